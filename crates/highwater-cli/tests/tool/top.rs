//! Tests `top`: lines beside a writer, and pictures on a terminal.

use std::{
    io::{BufRead, BufReader, Lines},
    process::ChildStdout,
};

use super::*;

/// `top` as a process whose lines are read one by one.
struct Watched {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watched {
    fn new(scene: &Scene) -> Self {
        let arguments = ["top", "log", "--interval", "100ms"];
        let mut child = scene.command(&arguments).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Watched { child, lines }
    }

    /// Returns the first line with all these parts.
    #[track_caller]
    fn find(&mut self, parts: &[&str]) -> String {
        self.find_by(|line| parts.iter().all(|part| line.contains(part)))
    }

    #[track_caller]
    fn find_by(&mut self, is_wanted: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        for _ in 0..300 {
            last = self.lines.next().unwrap().unwrap();
            if is_wanted(&last) {
                return last;
            }
        }
        panic!("no such line, but {last}");
    }
}

fn options() -> highwater::Options {
    Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10)
}

/// The log is written, truncated at both ends, closed, opened again, removed and created again.
#[test]
fn top_prints_a_line_for_each_look() {
    let scene = Scene::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let wal = runtime.block_on(options().open(scene.path("log"))).unwrap();
    let append = |wal: &Wal, count: usize| {
        let record = vec![b'x'; 900];
        let lsns = (0..count).map(|_| runtime.block_on(wal.append_and_sync(&record)).unwrap());
        lsns.collect::<Vec<_>>()
    };
    let early = append(&wal, 30);
    let slot = runtime.block_on(wal.slot("billing")).unwrap();
    append(&wal, 1);
    let mut watched = Watched::new(&scene);
    let line = watched.find(&["slot billing keeps", "health: not published", "first 0, end "]);
    let pid = format!("in use by process {}", std::process::id());
    assert!(line.contains(&pid) || !cfg!(target_os = "linux"), "{line}");
    assert!(line.contains("- B/s, - records/s, 0 rotations"), "the first look: {line}");
    let late = append(&wal, 40);
    // A look may come between two records.
    let is_nonzero = |line: &str, unit: &str| {
        let number = line.split(unit).next().unwrap().rsplit(' ').next().unwrap();
        number.replace(',', "").parse::<u64>().is_ok_and(|number| number > 0)
    };
    watched.find_by(|line| is_nonzero(line, " records/s") && !line.contains(" 0 B/s"));
    watched.find_by(|line| is_nonzero(line, " rotation"));
    runtime.block_on(wal.truncate_after(late[20])).unwrap();
    // The last look may have seen fewer records than the truncation has left.
    let line = watched
        .find_by(|line| line.contains("the end moved back") || line.contains("the end was trunc"));
    assert!(line.contains("- B/s"), "a cut has no rate: {line}");
    runtime.block_on(slot.remove()).unwrap();
    runtime.block_on(wal.truncate_before(early[20])).unwrap();
    append(&wal, 1);
    watched.find(&["the beginning was truncated to LSN"]);
    runtime.block_on(wal.close()).unwrap();
    if cfg!(target_os = "linux") {
        watched.find(&["  closed; ", "; the log was closed"]);
    }
    fs::rename(scene.path("log"), scene.path("other")).unwrap();
    watched.find(&["the directory is gone", "the log can't be read any more"]);
    fs::rename(scene.path("other"), scene.path("log")).unwrap();
    watched.find(&["; the log can be read"]);
    let interrupted = Command::new("kill").args(["-INT", &watched.child.id().to_string()]).status();
    assert!(interrupted.unwrap().success());
    let (status, output) = Scene::outcome(watched.child);
    assert!(status == 0 && output.stderr.is_empty(), "{status}: {output:?}");
}

#[test]
fn top_ends_after_the_count_and_refuses_wrong_paths() {
    let scene = Scene::with(&image(true));
    fs::create_dir(scene.path("none")).unwrap();
    let outcome = scene.run(&["top", "log", "--interval", "100ms", "--count", "3"]);
    assert_eq!((outcome.status, outcome.out.lines().count()), (0, 3), "{}", outcome.error);
    assert!(outcome.out.lines().all(|line| line.contains(" closed; first 0, end ")));
    let outcome = scene.run(&["top", "none", "--count", "1"]);
    assert!(outcome.status == 0 && outcome.out.contains("no log yet"), "{}", outcome.out);
    let outcome = scene.run(&["top", "missing"]);
    assert!(outcome.status == 4 && outcome.error.contains("name the directory of a log"));
    for arguments in [&["--interval", "1"][..], &["--interval", "1ms"], &["--count", "0"]] {
        assert_eq!(scene.run(&[&["top", "log"], arguments].concat()).status, 64, "{arguments:?}");
    }
}

/// Runs `top` on a terminal, types `keys` after the first picture, and returns everything that it
/// has printed, and its status.
#[cfg(unix)]
fn on_terminal(scene: &Scene, arguments: &[&str], keys: &[u8], environment: &str) -> (String, i32) {
    use rustix::{pty, termios};
    use std::io::{Read, Write};
    let master = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&master).unwrap();
    pty::unlockpt(&master).unwrap();
    let name = pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave = fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
    let size = termios::Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    termios::tcsetwinsize(&slave, size).unwrap();
    let is_cooked = || {
        let modes = termios::tcgetattr(&slave).unwrap().local_modes;
        modes.contains(termios::LocalModes::ICANON | termios::LocalModes::ECHO)
    };
    assert!(is_cooked());
    let mut command = scene.command(arguments);
    command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap());
    let mut child = command.env("TERM", "xterm").env(environment, "1").spawn().unwrap();
    drop(command);
    let (mut shown, mut master) = (Vec::new(), fs::File::from(master));
    let read_until = |part: &str, shown: &mut Vec<u8>, master: &mut fs::File| {
        while !shown.windows(part.len()).any(|found| found == part.as_bytes()) {
            let mut bytes = [0; 4096];
            let count = master.read(&mut bytes).unwrap();
            shown.extend_from_slice(&bytes[..count]);
        }
    };
    read_until("health", &mut shown, &mut master);
    assert!(!is_cooked(), "a key needs no Enter");
    master.write_all(keys).unwrap();
    // The process leaves the second screen at its end.
    read_until("\x1b[?1049l\x1b[?25h", &mut shown, &mut master);
    let status = child.wait().unwrap().code().unwrap();
    assert!(is_cooked(), "the terminal has its former state");
    (String::from_utf8(shown).unwrap(), status)
}

#[test]
#[cfg(unix)]
fn top_draws_on_a_terminal_and_restores_it() {
    let scene = Scene::with(&image(true));
    let cases: [(&[&str], &[u8]); 4] = [
        (&["top", "log"], b"q"),
        (&["top", "log"], b"\x1b"),
        (&["top", "log", "--interval", "1h"], b"\x03"),
        (&["top", "log", "--interval", "100ms", "--count", "2"], b""),
    ];
    for (arguments, keys) in cases {
        let (shown, status) = on_terminal(&scene, arguments, keys, "UNUSED");
        assert_eq!(status, 0, "{arguments:?}, {keys:?}");
        assert!(shown.starts_with("\x1b[?1049h"), "the second screen: {shown:?}");
        assert!(shown.contains("closed") && shown.contains("\x1b[38;5;2;"), "{shown:?}");
    }
    let (shown, _) = on_terminal(&scene, &["top", "log"], b"q", "NO_COLOR");
    assert!(shown.contains("closed") && !shown.contains("\x1b[38"), "{shown:?}");
}
