//! Tests `append`, `truncate` and `man`, and the differences between a terminal and a pipe.

use super::*;

const SMALL: [&str; 2] = ["--segment-bytes", "65536"];

fn append(scene: &Scene, arguments: &[&str], input: &[u8]) -> Outcome {
    scene.feed(&[&["append"], arguments, &SMALL].concat(), input)
}

fn payloads(scene: &Scene, name: &str) -> Vec<Vec<u8>> {
    scene.records(name).into_iter().map(|(_, payload)| payload).collect()
}

#[test]
fn appended_lines_are_durable_and_reported() {
    let scene = Scene::new();
    let outcome = append(&scene, &["log"], b"one\n\ntwo\r\nlast");
    let lsns: Vec<u64> = outcome.out.lines().map(|line| line.parse().unwrap()).collect();
    // A mark may lie between two groups.
    assert!(outcome.status == 0 && lsns[..3] == [0, 24, 40] && lsns[3] >= 64, "{}", outcome.error);
    assert_eq!(payloads(&scene, "log"), [&b"one"[..], b"", b"two\r", b"last"]);
    assert_eq!(scene.run(&["verify", "--quiet", "log"]).status, 0);
    let outcome = append(&scene, &["log", "--raw", "--json"], b"a\nb\n");
    assert_eq!(outcome.status, 0, "{}", outcome.error);
    let line: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(line["payload_bytes"], 4);
    let delimited = [&3u32.to_le_bytes()[..], b"abc", &0u32.to_le_bytes()].concat();
    let outcome = append(&scene, &["log", "--length-delimited"], &delimited);
    assert_eq!(outcome.out.lines().count(), 2, "{}", outcome.error);
    assert_eq!(payloads(&scene, "log")[4..], [&b"a\nb\n"[..], b"abc", b""]);
    assert_eq!(append(&scene, &["log"], b"").status, 0);
    assert_eq!(append(&scene, &["log", "--raw", "--length-delimited"], b"").status, 64);
}

#[test]
fn append_that_fails_keeps_what_it_reported() {
    let scene = Scene::new();
    // The wrong length is refused, and the record before it stays.
    for (length, reason) in [(9u32, "ends within a record"), (u32::MAX, "larger than")] {
        let input = [&2u32.to_le_bytes()[..], b"ok", &length.to_le_bytes(), b"abc"].concat();
        let outcome = append(&scene, &["log", "--length-delimited"], &input);
        assert!(outcome.status == 4 && outcome.error.contains(reason), "{}", outcome.error);
        assert_eq!(outcome.out.lines().count(), 1, "{}", outcome.out);
        assert_eq!(payloads(&scene, "log").last().unwrap(), b"ok");
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let wal = Wal::open(scene.path("log")).await.unwrap();
        let outcome = append(&scene, &["log"], b"x\n");
        assert!(outcome.status == 4 && outcome.out.is_empty(), "{}", outcome.error);
        wal.close().await.unwrap();
    });
}

/// The LSN of a record is printed while the input is still open, because a producer may wait for
/// it.
#[test]
fn appended_line_is_reported_before_the_input_ends() {
    use std::io::{BufRead, BufReader};
    let scene = Scene::new();
    let mut command = scene.command(&["append", "log", "--segment-bytes", "65536"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) =
        (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    for count in 1..=3 {
        input.write_all(b"line\n").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert!(line.trim().parse::<u64>().is_ok(), "{count}: {line}");
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn truncate_plans_first_and_applies_on_request() {
    let scene = Scene::new();
    let lines: String = (0..10).map(|i| format!("record {i}\n")).collect();
    let lsns: Vec<String> =
        append(&scene, &["log"], lines.as_bytes()).out.lines().map(str::to_owned).collect();
    let all = payloads(&scene, "log");
    let before = files(&scene.path("log"));
    let commands: [&[&str]; 5] = [
        &["truncate", "log", "--before", &lsns[3]],
        &["truncate", "log", "--after", &lsns[7], "--dry-run"],
        &["truncate", "log", "--before", "7", "--apply"],
        &["truncate", "log", "--after", "7", "--apply"],
        &["truncate", "missing", "--after", "7"],
    ];
    let planned = scene.transcript(&commands);
    assert_eq!(files(&scene.path("log")), before, "nothing is changed");
    let commands: [&[&str]; 3] = [
        &["truncate", "log", "--before", &lsns[3], "--apply"],
        &["truncate", "log", "--after", &lsns[7], "--apply"],
        &["tail", "log"],
    ];
    // The log may have written a mark (24 bytes) before it was closed.
    let outcome = format!("{planned}{}", scene.transcript(&commands));
    let outcome = outcome.replace("72 to 264", "72 to 288").replace("72 to 296", "72 to 320");
    assert_golden("truncate.txt", &outcome);
    assert_eq!(scene.run(&["verify", "--quiet", "log"]).status, 0);
    let outcome = scene.run(&["tail", "-n", "99", "log"]);
    assert_eq!(outcome.out.lines().count(), 5, "{}", outcome.out);
    assert!(outcome.out.contains("record 3") && !outcome.out.contains("record 8"), "{all:?}");
    assert_eq!(scene.run(&["truncate", "log"]).status, 64);
    assert_eq!(scene.run(&["truncate", "log", "--before", "0", "--after", "0"]).status, 64);
}

#[test]
fn empty_log_is_reported_on_standard_error() {
    let scene = Scene::new();
    fs::create_dir(scene.path("none")).unwrap();
    append(&scene, &["empty"], b"");
    let commands: [&[&str]; 5] = [
        &["dump", "none"],
        &["dump", "none", "--skip-damaged"],
        &["tail", "none"],
        &["tail", "empty"],
        &["tail", "empty", "--written"],
    ];
    for arguments in commands {
        let outcome = scene.run(arguments);
        assert!(outcome.status == 0 && outcome.out.is_empty(), "{arguments:?}: {}", outcome.out);
        assert!(outcome.error.contains(": no "), "{arguments:?}: {}", outcome.error);
    }
}

#[test]
fn manual_has_the_options_of_each_command() {
    let scene = Scene::new();
    let all = scene.run(&["man"]).out;
    for name in ["inspect", "dump", "tail", "verify", "repair", "stat", "export", "import"] {
        let section = format!(".SH \"HIGHWATER {}\"\n", name.to_uppercase());
        let (_, section) = all.split_once(&section).unwrap();
        let section = section.split(".SH ").next().unwrap();
        for part in [".SS SYNOPSIS", ".SS OPTIONS", "\\-\\-json"] {
            assert!(section.contains(part), "{name} has {part}: {section}");
        }
        let page = scene.run(&["man", name]).out;
        assert!(page.contains(&format!(".TH highwater-{name} 1")), "{page}");
        assert!(page.contains("\\-\\-json"), "{page}");
    }
    // The manual must not refer to pages that do not exist.
    assert!(!all.contains("(1)\n"), "{all}");
    assert_eq!(scene.run(&["man", "nonsense"]).status, 64);
}

/// Returns the output of a command on a terminal with `columns` columns.
#[cfg(unix)]
fn on_terminal(scene: &Scene, columns: u16, arguments: &[&str]) -> String {
    use rustix::{pty, termios};
    use std::io::Read;
    let master = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&master).unwrap();
    pty::unlockpt(&master).unwrap();
    let name = pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave = fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
    let size = termios::Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    termios::tcsetwinsize(&slave, size).unwrap();
    let mut command = scene.command(arguments);
    let child = command.stdout(slave).env("NO_COLOR", "1").spawn().unwrap();
    drop(command);
    let (mut shown, mut master) = (Vec::new(), fs::File::from(master));
    // The read fails when the last handle of the other side is closed.
    let _ = master.read_to_end(&mut shown);
    assert_eq!(Scene::outcome(child).0, 0, "{arguments:?}");
    String::from_utf8(shown).unwrap()
}

#[cfg(unix)]
#[test]
fn long_payload_is_short_on_a_terminal_only() {
    let scene = Scene::new();
    // The limit splits a character of two bytes.
    append(&scene, &["log"], format!("x{}\n", "ü".repeat(30_000)).as_bytes());
    for (arguments, short) in [
        (&["dump", "log"][..], 60_001 - 479),
        (&["tail", "log"], 60_001 - 479),
        (&["dump", "log", "--as", "hex"], 60_001 - 256),
        (&["dump", "log", "--skip-damaged"], 60_001 - 479),
    ] {
        let shown = on_terminal(&scene, 100, arguments);
        assert!(shown.len() < 3000, "{arguments:?}: {} bytes", shown.len());
        let counted = format!("{},{:03} bytes", short / 1000, short % 1000);
        assert!(shown.contains(&counted) && !shown.contains("\\x"), "{arguments:?}: {shown}");
        let whole = on_terminal(&scene, 100, &[arguments, &["--whole"]].concat());
        assert!(whole.len() > 60_000, "{arguments:?}: {}", whole.len());
        assert!(scene.run(arguments).out.len() > 60_000, "a pipe gets all");
    }
    assert!(on_terminal(&scene, 100, &["dump", "log", "--json"]).len() > 60_000);
}

#[cfg(unix)]
#[test]
fn picture_has_the_width_of_the_terminal() {
    let scene = Scene::with(&image(true));
    let bar = |shown: &str| {
        let (_, bar) = shown.split_once("1 [").unwrap();
        bar.split(']').next().unwrap().len()
    };
    assert_eq!(bar(&scene.run(&["stat", "log"]).out), 40);
    for (columns, expected) in [(40, 20), (100, 42), (180, 122), (400, 200)] {
        assert_eq!(bar(&on_terminal(&scene, columns, &["stat", "log"])), expected);
    }
}

/// Opening refuses a damaged batch below the synced LSN that a later segment claims.
#[test]
fn picture_shows_where_the_damage_is() {
    let intact = image(false);
    let mut missing = intact.clone();
    missing.delete(&first());
    let headless = edited(&intact, &first(), |bytes| bytes[..4096].fill(7));
    for (damaged, expected) in [(missing, "missing"), (headless, "[?")] {
        let scene = Scene::with(&damaged);
        let shown = scene.run(&["stat", "log"]).out;
        assert!(shown.contains(expected) && shown.contains("!  damaged"), "{shown}");
    }
    let newest = intact
        .names()
        .into_iter()
        .rfind(|name| name.ends_with(".wal") && intact.bytes(name).unwrap()[..8] != [0; 8]);
    let newest = newest.unwrap();
    // The mark claims the bytes before it.
    let at = find(&intact, &newest, &[b'e'; 100]);
    let damaged = edited(&intact, &newest, |bytes| bytes[at] ^= 1);
    let scene = Scene::with(&damaged);
    let shown = scene.run(&["stat", "log"]).out;
    let row = shown.lines().find(|line| line.contains("2 [")).unwrap();
    let (cell, offset) = (row.find('!').unwrap() - row.find('[').unwrap() - 1, at / 205);
    assert!(cell.abs_diff(offset) <= 6, "{cell}, {offset}: {shown}");
}
