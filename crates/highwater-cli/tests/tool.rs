//! Runs the command-line tool as a process, and compares its output (`tests/tool/*.txt`) and its
//! exit statuses. `HIGHWATER_GOLDEN=write` rewrites the expected output; review the difference.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use highwater::{
    Wal,
    simulation::{Disk, Image, Survival},
};

#[path = "tool/exchange.rs"]
mod exchange;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Two segments and a spare. The seed decides all bytes, also ids and dates.
fn image(is_closed: bool) -> Image {
    let disk = Disk::new(11);
    block_on(async {
        let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
        let wal = options.open_with(disk.clone()).await.unwrap();
        wal.append(b"plain text, \x1b[31mescaped").await.unwrap();
        wal.append(&[0xff, 0x00, 0x9b]).await.unwrap();
        wal.append_batch([b"all of this".as_slice(), b"or", b"nothing"]).await.unwrap();
        wal.sync().await.unwrap();
        for i in 0..5u8 {
            wal.append(vec![b'a' + i; 900]).await.unwrap();
        }
        if is_closed {
            wal.close().await.unwrap();
        } else {
            wal.sync().await.unwrap();
            wal.append(b"the last").await.unwrap();
            drop(wal);
        }
    });
    disk.image().crash(Survival::Everything)
}

fn first() -> String {
    format!("{:020}.wal", 1)
}

fn edited(image: &Image, name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Image {
    let mut bytes = image.bytes(name).unwrap().to_vec();
    edit(&mut bytes);
    let mut image = image.clone();
    image.put(name, bytes);
    image
}

/// Returns the offset of `needle` in a file.
fn find(image: &Image, name: &str, needle: &[u8]) -> usize {
    let bytes = image.bytes(name).unwrap();
    bytes.windows(needle.len()).position(|window| window == needle).unwrap()
}

/// The files of an image, in a directory of the real file system.
struct Directory {
    parent: tempfile::TempDir,
}

impl Directory {
    fn new(image: &Image) -> Self {
        let directory = Directory { parent: tempfile::tempdir().unwrap() };
        fs::create_dir(directory.path()).unwrap();
        for name in image.names() {
            fs::write(directory.path().join(&name), image.bytes(&name).unwrap()).unwrap();
        }
        directory
    }

    fn path(&self) -> PathBuf {
        self.parent.path().join("log")
    }
}

fn tool(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    let (name, options) = arguments.split_first().unwrap();
    command.arg(name).arg(directory).args(options).env_remove("NO_COLOR");
    command.stdin(Stdio::null()).output().unwrap()
}

/// Returns the output of a run, without the parts that depend on the machine.
fn transcript(directory: &Path, arguments: &[&str]) -> String {
    let output = tool(directory, arguments);
    let text = |bytes: &[u8]| {
        String::from_utf8(bytes.to_vec()).unwrap().replace(&directory.display().to_string(), "DIR")
    };
    let mut outcome = format!("$ highwater {} DIR {}\n", arguments[0], arguments[1..].join(" "));
    outcome.push_str(&text(&output.stdout));
    if !output.stderr.is_empty() {
        outcome.push_str(&format!("-- standard error\n{}", text(&output.stderr)));
    }
    outcome.push_str(&format!("-- status {}\n\n", output.status.code().unwrap()));
    outcome
}

fn assert_golden(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tool").join(name);
    if std::env::var("HIGHWATER_GOLDEN").is_ok_and(|value| value == "write") {
        fs::write(&path, made).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
    if made != golden {
        let differs = made.lines().zip(golden.lines()).find(|(made, golden)| made != golden);
        panic!("{name} differs, first (now, golden): {differs:#?}\n{made}");
    }
}

fn golden(name: &str, image: &Image, commands: &[&[&str]]) {
    let directory = Directory::new(image);
    let outcome: String =
        commands.iter().map(|arguments| transcript(&directory.path(), arguments)).collect();
    assert_golden(name, &outcome);
}

const ALL: [&[&str]; 3] = [&["verify"], &["stat"], &["inspect"]];

#[test]
fn intact_log_is_described() {
    golden("closed.txt", &image(true), &ALL);
    golden("unclosed.txt", &image(false), &ALL);
    golden("json.txt", &image(true), &[&["inspect", "--json"], &["verify", "--json"]]);
}

#[test]
fn dump_prints_every_form() {
    let range = ["dump", "--to", "168"];
    let forms = ["text", "hex", "json"].map(|form| [range.as_slice(), &["--as", form]].concat());
    let mut commands: Vec<&[&str]> = forms.iter().map(Vec::as_slice).collect();
    commands.push(&["dump", "--from", "64", "--to", "140"]);
    commands.push(&["dump", "--from", "1000000"]);
    golden("dump.txt", &image(true), &commands);
}

#[test]
fn damaged_payload_is_shown_with_later_frames() {
    let intact = image(true);
    let at = find(&intact, &first(), b"or");
    let damaged = edited(&intact, &first(), |bytes| bytes[at] ^= 1);
    let dump: &[&str] = &["dump", "--to", "168"];
    golden("damaged.txt", &damaged, &[&["verify"], &["inspect"], dump, &["verify", "--quiet"]]);
}

#[test]
fn tail_prints_the_last_records() {
    let intact = image(true);
    let forms = ["text", "hex", "json"].map(|form| ["tail", "-n", "1", "--as", form]);
    let mut commands: Vec<&[&str]> = vec![&["tail", "-n", "2"]];
    commands.extend(forms.iter().map(<[_; 5]>::as_slice));
    commands.push(&["tail", "-n", "0"]);
    golden("tail.txt", &intact, &commands);
    // The last record is not known to be synced.
    let commands: [&[&str]; 2] = [&["tail", "-n", "1"], &["tail", "-n", "1", "--written"]];
    golden("tail_unclosed.txt", &image(false), &commands);
}

#[test]
fn skip_damaged_prints_records_and_gaps() {
    let intact = image(true);
    let at = find(&intact, &first(), b"or");
    let damaged = edited(&intact, &first(), |bytes| bytes[at] ^= 1);
    let skipping: [&[&str]; 3] = [
        &["dump", "--skip-damaged", "--to", "300"],
        &["dump", "--skip-damaged", "--to", "300", "--json"],
        &["tail", "-n", "9"],
    ];
    golden("salvaged.txt", &damaged, &skipping);
    let mut missing = intact.clone();
    missing.delete(&first());
    let skipping: &[&str] = &["dump", "--skip-damaged", "--to", "5000", "--json"];
    golden("salvaged_missing.txt", &missing, &[skipping]);
    golden("salvaged_whole.txt", &intact, &[&["dump", "--skip-damaged", "--to", "300"]]);
}

/// The writer is this process, and the follower another one. Each record comes, also after a close
/// and a reopening, and Ctrl-C ends with status 0.
#[test]
#[cfg(unix)]
fn tail_follows_a_log_in_use_until_ctrl_c() {
    use std::io::{BufRead, BufReader};
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
    let mut wal = runtime.block_on(options.clone().open(&path)).unwrap();
    runtime.block_on(wal.append_and_sync(b"record -1")).unwrap();
    runtime.block_on(wal.append_and_sync(b"record 0")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["tail", "-f", "-n", "1", "--json"])
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = |what: &str| loop {
        let line = lines.next().unwrap().unwrap();
        if line.contains(&format!("\"text\":\"{what}")) {
            break;
        }
        // The mark that commits the newest record may come after the tool has read the log.
        assert!(line.contains("\"text\":\"record -1"), "{line}, not {what}");
    };
    seen("record 0");
    for i in 1..30 {
        let record = format!("record {i} {}", "x".repeat(700));
        runtime.block_on(wal.append_and_sync(&record)).unwrap();
        if i % 10 == 0 {
            runtime.block_on(wal.close()).unwrap();
            wal = runtime.block_on(options.clone().open(&path)).unwrap();
        }
        seen(&format!("record {i} "));
    }
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupted.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(0) && text.is_empty(), "{:?}: {text}", output.status);
}

#[test]
fn torn_tail_is_described() {
    let intact = image(false);
    let newest = intact
        .names()
        .into_iter()
        .rfind(|name| name.ends_with(".wal") && intact.bytes(name).unwrap()[..8] != [0; 8]);
    let newest = newest.unwrap();
    let at = find(&intact, &newest, b"the last");
    let torn = edited(&intact, &newest, |bytes| bytes[at] ^= 1);
    golden("torn.txt", &torn, &ALL);
}

#[test]
fn bad_headers_are_described() {
    let intact = image(true);
    let main = edited(&intact, &first(), |bytes| bytes[20] ^= 1);
    golden("one_header.txt", &main, &[&["verify"], &["stat"]]);
    let both = edited(&intact, &first(), |bytes| bytes[..4096].fill(7));
    golden("headless.txt", &both, &[&["verify"], &["stat"], &["dump", "--to", "100"]]);
    let mut missing = intact.clone();
    missing.delete(&first());
    golden("missing.txt", &missing, &[&["verify"], &["stat"]]);
    let newer = edited(&intact, &first(), |bytes| {
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..120]);
        bytes[120..124].copy_from_slice(&crc.to_le_bytes());
    });
    golden("newer.txt", &newer, &[&["verify"], &["stat"]]);
}

#[test]
fn repair_plans_first_and_keeps_copies() {
    let intact = image(true);
    let at = find(&intact, &first(), b"or");
    let damaged = edited(&intact, &first(), |bytes| bytes[at] ^= 1);
    let plan: &[&[&str]] = &[&["repair"], &["repair", "--dry-run", "--json"]];
    golden("repair_plan.txt", &damaged, plan);
    let directory = Directory::new(&damaged);
    let before = files(&directory.path());
    for arguments in [&["repair"][..], &["repair", "--dry-run"], &["repair", "--json"]] {
        assert_eq!(tool(&directory.path(), arguments).status.code(), Some(2));
        assert_eq!(files(&directory.path()), before, "a plan must change nothing");
    }
    let mut done: String = [&["repair", "--apply"][..], &["verify"], &["repair"]]
        .map(|arguments| transcript(&directory.path(), arguments))
        .concat();
    let after = files(&directory.path());
    let segments =
        before.iter().filter(|(name, bytes)| name.ends_with(".wal") && bytes[..8] != [0; 8]);
    for (name, bytes) in segments {
        assert_eq!(&after[&format!("{name}.cut")], bytes, "a copy of {name}");
    }
    let manifest = format!("{:020}.cut.manifest", 3);
    done.push_str("the manifest:\n");
    for line in String::from_utf8(after[&manifest].clone()).unwrap().lines() {
        // Replaces random numbers and times.
        let is_variable = line.starts_with("incarnation") || line.starts_with("unix ms");
        done.push_str(if is_variable { line.split(':').next().unwrap() } else { line });
        done.push('\n');
    }
    assert_golden("repair_done.txt", &done);

    let mut missing = intact.clone();
    missing.delete(&first());
    golden("repair_missing.txt", &missing, &[&["repair"], &["repair", "--apply"]]);
    golden("repair_whole.txt", &intact, &[&["repair"], &["repair", "--apply"]]);
    let newer = edited(&intact, &first(), |bytes| {
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..120]);
        bytes[120..124].copy_from_slice(&crc.to_le_bytes());
    });
    golden("repair_newer.txt", &newer, &[&["repair", "--apply"]]);
}

#[path = "../../../tests/compression/frames.rs"]
#[allow(dead_code, reason = "one of the codecs is enough")]
mod frames;

/// The options of the logs that `frames` builds.
fn small() -> highwater::Options {
    Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10)
}

/// All commands return the same status for a record with right checksums that no codec expands.
#[test]
fn unexpandable_record_has_one_verdict() {
    let intact = |payload: &[u8]| ((frames::RECORD, 0), payload.to_vec());
    let cases = [
        ((frames::LZ4, frames::stored(100, &[0xff; 40])), 2),
        // The size is above the limit of each release.
        ((frames::LZ4, frames::stored(900 << 20, &[0xff; 4000])), 2),
        ((frames::ZSTD, frames::zstd_by_hand()), if cfg!(feature = "zstd") { 0 } else { 3 }),
    ];
    for ((flags, payload), status) in cases {
        let odd = ((frames::RECORD, flags), payload);
        let (storage, _) = frames::log_of(&[intact(b"before"), odd, intact(b"after")]);
        let mut image = Image::new();
        for (name, bytes) in frames::contents(&storage) {
            image.put(&name, bytes);
        }
        let directory = Directory::new(&image);
        let before = files(&directory.path());
        let to = directory.parent.path().join("out.hwx");
        for command in ["verify", "repair", "export", "repair --apply", "repair --json"] {
            let mut arguments: Vec<_> = command.split(' ').collect();
            if command == "export" {
                arguments.extend(["-o", to.to_str().unwrap()]);
            }
            let output = tool(&directory.path(), &arguments);
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8(text).unwrap();
            assert_eq!(output.status.code(), Some(status), "{command}, flags {flags}: {text}");
            assert!(status == 0 || !text.contains("whole"), "{command}: {text}");
            assert_eq!(files(&directory.path()), before, "{command} changes nothing");
        }
    }
}

/// A list of findings has a limit, and its last line counts the rest.
#[test]
fn long_list_is_cut_and_counted() {
    let mut many = image(true);
    for number in 0..33 {
        many.put(&format!("foreign-{number}"), Vec::new());
    }
    let directory = Directory::new(&many);
    let output = tool(&directory.path(), &["inspect"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("is not a file of the log").count(), 20, "{text}");
    assert!(text.contains("more; --json lists all"), "{text}");
    let json = String::from_utf8(tool(&directory.path(), &["inspect", "--json"]).stdout).unwrap();
    assert_eq!(json.matches("\"foreign-").count(), 33);
    let options = small();
    let wal = block_on(options.open(directory.path())).unwrap();
    let line = wal.recovery().to_string();
    assert!(wal.recovery().warnings.len() >= 33, "{line}");
    assert!(line.len() < 600 && line.contains(" more"), "{} bytes: {line}", line.len());
}

fn files(directory: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let read = |path| fs::read(path).unwrap();
    entries.map(|e| (e.file_name().into_string().unwrap(), read(e.path()))).collect()
}

#[test]
fn log_in_use_is_not_repaired() {
    let intact = image(true);
    let at = find(&intact, &first(), b"or");
    let damaged = edited(&intact, &first(), |bytes| bytes[at] ^= 1);
    let directory = Directory::new(&damaged);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Damages bytes below a clean close, which opening does not read.
    let wal = runtime.block_on(Wal::open(directory.path())).unwrap();
    let before = files(&directory.path());
    let refused = tool(&directory.path(), &["repair", "--apply"]);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(4), "{text}");
    assert!(text.contains("the log is open in another process"), "{text}");
    assert_eq!(files(&directory.path()), before);
    runtime.block_on(wal.close()).unwrap();
}

#[test]
fn path_that_is_no_log_is_reported() {
    let mut foreign = Image::new();
    foreign.put("notes.txt", b"hello".to_vec());
    golden("not_a_log.txt", &foreign, &ALL);
    golden("empty.txt", &Image::new(), &ALL);
    let directory = Directory::new(&foreign);
    let missing = transcript(&directory.path().join("missing"), &["verify"]);
    let file = transcript(&directory.path().join("notes.txt"), &["verify"]);
    if cfg!(unix) {
        assert_golden("nowhere.txt", &format!("{missing}{file}"));
    }
}

#[test]
fn log_in_use_is_read_beside_its_writer() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let wal = Wal::open(&path).await.unwrap();
        wal.append_and_sync(b"seen").await.unwrap();
        let output = tool(&path, &["verify"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        let is_noted = text.contains(&format!("in use by process {}", std::process::id()));
        assert!(is_noted || !cfg!(target_os = "linux"), "{text}");
        let dumped = tool(&path, &["dump"]);
        assert!(String::from_utf8(dumped.stdout).unwrap().contains("seen"));
        wal.append(b"and the writer continues").await.unwrap();
        wal.close().await.unwrap();
    });
}

#[test]
fn wrong_arguments_end_with_status_64() {
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_highwater")).args(arguments).output().unwrap()
    };
    assert_eq!(run(&["verify"]).status.code(), Some(64));
    assert_eq!(run(&["dump", ".", "--from", "x"]).status.code(), Some(64));
    for arguments in [&["--help"][..], &["--version"], &["verify", "--help"], &["man"]] {
        let output = run(arguments);
        assert!(output.status.success() && !output.stdout.is_empty(), "{arguments:?}");
    }
    let help = String::from_utf8(run(&["verify", "--help"]).stdout).unwrap();
    for status in ["0  whole", "1  torn", "2  corrupt", "3  unsupported", "4  could not"] {
        assert!(help.contains(status), "{help}");
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success() && output.stdout.len() > 1000, "{shell}");
    }
}

#[test]
fn closed_output_pipe_is_no_error() {
    let directory = Directory::new(&image(true));
    for arguments in [&["dump"][..], &["inspect"], &["verify"], &["stat", "--json"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        command.arg(arguments[0]).arg(directory.path()).args(&arguments[1..]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.is_empty(), "{arguments:?}: {text}");
    }
}
