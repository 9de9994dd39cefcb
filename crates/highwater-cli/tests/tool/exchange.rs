//! Tests `export`, `import` and `bench-fsync` as processes, each in a new directory.

use std::{io::Write, process::Child};

use super::*;

mod commands;
mod files;
mod foreign;
mod since;
mod top;

pub(super) struct Scene {
    directory: tempfile::TempDir,
}

pub(super) struct Outcome {
    pub(super) status: i32,
    pub(super) out: String,
    pub(super) error: String,
}

impl Scene {
    pub(super) fn new() -> Self {
        Scene { directory: tempfile::tempdir().unwrap() }
    }

    /// Creates a scene with the files of an image in `log`.
    fn with(image: &Image) -> Self {
        let scene = Scene::new();
        scene.put("log", image);
        scene
    }

    fn put(&self, name: &str, image: &Image) {
        fs::create_dir(self.path(name)).unwrap();
        for file in image.names() {
            fs::write(self.path(name).join(&file), image.bytes(&file).unwrap()).unwrap();
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        command.args(arguments).current_dir(self.directory.path()).env_remove("NO_COLOR");
        if arguments[0] == "import" && !arguments.contains(&"--segment-bytes") {
            // With the default size, two segments of 16 MiB of zeros would be prepared.
            command.args(["--segment-bytes", "65536"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn outcome(child: Child) -> (i32, Output) {
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), output)
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Outcome {
        let (status, output) = Self::outcome(self.command(arguments).spawn().unwrap());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Outcome { status, out: text(output.stdout), error: text(output.stderr) }
    }

    /// Returns the standard output of a command.
    fn bytes(&self, arguments: &[&str]) -> Vec<u8> {
        let (status, output) = Self::outcome(self.command(arguments).spawn().unwrap());
        assert_eq!(status, 0, "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn feed(&self, arguments: &[&str], bytes: &[u8]) -> Outcome {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // A command that refuses the first bytes does not read the rest.
        let _ = child.stdin.take().unwrap().write_all(bytes);
        let (status, output) = Self::outcome(child);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Outcome { status, out: text(output.stdout), error: text(output.stderr) }
    }

    fn transcript(&self, commands: &[&[&str]]) -> String {
        let mut outcome = String::new();
        for arguments in commands {
            let Outcome { status, out, error } = self.run(arguments);
            outcome.push_str(&format!("$ highwater {}\n{out}", arguments.join(" ")));
            if !error.is_empty() {
                outcome.push_str(&format!("-- standard error\n{error}"));
            }
            outcome.push_str(&format!("-- status {status}\n\n"));
        }
        outcome
    }

    pub(super) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Returns the records of a log. The flag is true if more records of the same batch follow.
    pub(super) fn records(&self, name: &str) -> Vec<(bool, Vec<u8>)> {
        let snapshot = highwater::inspect::Snapshot::of_directory(self.path(name)).unwrap();
        let mut records = Vec::new();
        for segment in &snapshot.outline().segments {
            if segment.role != highwater::inspect::Role::Log {
                continue;
            }
            for frame in snapshot.frames(segment).unwrap() {
                let frame = frame.unwrap();
                use highwater::inspect::FrameKind::{BatchEnd, BatchPart, Record};
                if matches!(frame.kind, Record | BatchPart | BatchEnd) {
                    records.push((frame.kind == BatchPart, frame.payload.to_vec()));
                }
            }
        }
        records
    }
}

#[test]
fn import_restores_every_exported_record() {
    let scene = Scene::with(&image(true));
    let outcome = scene.transcript(&[
        &["export", "log", "-o", "log.hwx"],
        &["import", "log.hwx", "copy", "--map", "map.tsv"],
        &["verify", "copy"],
        &["export", "copy", "-o", "copy.hwx", "--json"],
        &["import", "copy.hwx", "again", "--json"],
        &["export", "log", "-o", "log.hwx"],
        &["import", "log.hwx", "copy"],
        &["import", "log.hwx", "log.hwx"],
        &["import", "log", "other"],
        &["import", "nothing.hwx", "other"],
        &["export", "log", "--from", "64", "--to", "100", "-o", "part.hwx"],
        &["export", "log", "--from", "100", "--to", "64", "-o", "none.hwx"],
    ]);
    assert_golden("exchange.txt", &outcome);
    assert_eq!(scene.records("copy"), scene.records("log"));
    assert!(scene.records("log").iter().any(|(is_part, _)| *is_part), "a batch among them");
    let bare =
        ["log", "copy", "again"].map(|log| scene.bytes(&["export", log, "--without-positions"]));
    assert_eq!(bare[0], bare[1]);
    assert_eq!(bare[0], bare[2]);
    // A batch belongs to the range in which it begins.
    assert_eq!(scene.run(&["import", "part.hwx", "part"]).status, 0);
    assert_eq!(scene.records("part"), scene.records("log")[2..5]);
    let map = fs::read_to_string(scene.path("map.tsv")).unwrap();
    assert_eq!(map.lines().take(3).collect::<Vec<_>>(), ["0\t0", "40\t40", "64\t64"]);
    // The mark at 144 is no record, so the records after it have new LSNs.
    assert!(map.lines().any(|line| line == "168\t144"), "{map}");
}

#[test]
fn pipe_carries_a_log() {
    let scene = Scene::with(&image(true));
    let mut export = scene.command(&["export", "log"]).spawn().unwrap();
    let stream = export.stdout.take().unwrap();
    let mut import = scene.command(&["import", "-", "copy", "--segment-bytes", "8192"]);
    let (status, output) = Scene::outcome(import.stdin(stream).spawn().unwrap());
    assert_eq!(status, 0, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Scene::outcome(export).0, 0);
    assert_eq!(scene.records("copy"), scene.records("log"));
    let segments = fs::read_dir(scene.path("copy")).unwrap().count();
    assert!(segments > 2, "the requested segment size: {segments}");
    // The reader closes the stream early, so the export fails.
    let mut reader = scene.command(&["--version"]).stdin(Stdio::piped()).spawn().unwrap();
    let gone = reader.stdin.take().unwrap();
    reader.wait_with_output().unwrap();
    let export = scene.command(&["export", "log"]).stdout(gone).spawn().unwrap();
    let (status, output) = Scene::outcome(export);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(status == 4 && error.contains("closed the stream before its end"), "{status}: {error}");
    // The importer refuses the empty output of a failed export.
    let outcome = scene.feed(&["import", "-", "none"], b"");
    assert_eq!(outcome.status, 2);
    assert!(outcome.error.contains("no input"), "{}", outcome.error);
    assert!(!scene.path("none").exists());
}

#[test]
fn damaged_stream_creates_and_changes_no_log() {
    let scene = Scene::with(&image(true));
    let stream = scene.bytes(&["export", "log"]);
    let before = scene.names();
    for at in (0..stream.len()).step_by(97) {
        let mut flipped = stream.clone();
        flipped[at] ^= 0x10;
        for damaged in [&flipped[..], &stream[..at]] {
            let small = ["import", "-", "new", "--segment-bytes", "8192"];
            let outcome = scene.feed(&small, damaged);
            let is_foreign = at < 8;
            assert!(
                outcome.status == 2 || is_foreign && outcome.status == 4,
                "{at}: {}",
                outcome.error
            );
            assert!(outcome.out.is_empty(), "{}", outcome.out);
            assert_eq!(scene.names(), before, "{at}");
        }
    }
    let mut flipped = stream.clone();
    flipped[stream.len() / 2] ^= 1;
    fs::write(scene.path("flipped.hwx"), &flipped).unwrap();
    let records = scene.records("log");
    // A file is verified before the first record is appended.
    let outcome = scene.run(&["import", "--append", "flipped.hwx", "log"]);
    assert_eq!((outcome.status, scene.records("log")), (2, records.clone()), "{}", outcome.error);
    // A pipe can't be verified first, so the appended records are reported.
    let outcome = scene.feed(&["import", "--append", "-", "log"], &flipped);
    assert_eq!(outcome.status, 2);
    assert!(outcome.error.contains("had been appended before, from LSN"), "{}", outcome.error);
    assert!(scene.records("log").len() > records.len());
    assert_eq!(scene.run(&["verify", "--quiet", "log"]).status, 0);
}

#[test]
fn import_appends_at_the_end_of_the_log() {
    let scene = Scene::with(&image(true));
    fs::write(scene.path("log.hwx"), scene.bytes(&["export", "log"])).unwrap();
    let once = scene.records("log");
    let outcome = scene.run(&["import", "--append", "log.hwx", "log"]);
    assert_eq!(outcome.status, 0, "{}", outcome.error);
    assert_eq!(scene.records("log"), [once.clone(), once].concat());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let wal = Wal::open(scene.path("log")).await.unwrap();
        let outcome = scene.run(&["import", "--append", "log.hwx", "log"]);
        assert_eq!(outcome.status, 4);
        assert!(outcome.error.contains("open"), "{}", outcome.error);
        // An export takes no lock.
        assert_eq!(scene.run(&["export", "log", "-o", "used.hwx"]).status, 0);
        wal.close().await.unwrap();
    });
}

#[test]
fn damaged_log_is_not_exported() {
    let intact = image(true);
    let at = find(&intact, &first(), b"or");
    let damaged = edited(&intact, &first(), |bytes| bytes[at] ^= 1);
    let scene = Scene::with(&damaged);
    let mut missing = intact.clone();
    missing.delete(&first());
    scene.put("missing", &missing);
    let open = image(false);
    let newest = open
        .names()
        .into_iter()
        .rfind(|name| name.ends_with(".wal") && open.bytes(name).unwrap()[..8] != [0; 8]);
    let newest = newest.unwrap();
    let at = find(&open, &newest, b"the last");
    scene.put("torn", &edited(&open, &newest, |bytes| bytes[at] ^= 1));
    scene.put("empty", &Image::new());
    let before = scene.names();
    let refused = scene.transcript(&[
        &["export", "log", "-o", "no.hwx"],
        &["export", "log", "--from", "40", "--to", "100", "-o", "no.hwx"],
        &["export", "log", "--from", "120", "--to", "168", "-o", "no.hwx"],
        &["export", "missing", "-o", "no.hwx"],
        &["export", "missing", "--to", "100", "-o", "no.hwx"],
        &["export", "empty", "-o", "no.hwx"],
        &["export", "nowhere", "-o", "no.hwx"],
        &["export", "torn", "-o", "nowhere/no.hwx"],
    ]);
    assert_eq!(scene.names(), before, "no file must be created: {refused}");
    let intact = scene.transcript(&[
        &["export", "log", "--to", "64", "-o", "front.hwx"],
        &["export", "log", "--from", "144", "-o", "back.hwx"],
        &["export", "torn", "-o", "torn.hwx"],
    ]);
    assert_golden("export.txt", &format!("{refused}{intact}"));
    for (stream, records) in [("front.hwx", 2), ("back.hwx", 5), ("torn.hwx", 10)] {
        let outcome = scene.run(&["import", stream, &format!("{stream}.log")]);
        assert_eq!(outcome.status, 0, "{}", outcome.error);
        assert_eq!(scene.records(&format!("{stream}.log")).len(), records, "{stream}");
    }
}

/// More than four segments of records of 900 bytes, and the LSN of each record.
fn long(truncate_before: Option<usize>) -> (Image, Vec<u64>) {
    let disk = Disk::new(5);
    let lsns = block_on(async {
        let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
        let wal = options.open_with(disk.clone()).await.unwrap();
        let mut lsns = Vec::new();
        for i in 0..20u8 {
            lsns.push(wal.append_and_sync(vec![i; 900]).await.unwrap());
        }
        if let Some(number) = truncate_before {
            wal.truncate_before(lsns[number]).await.unwrap();
        }
        wal.close().await.unwrap();
        lsns
    });
    let lsns = lsns.into_iter().map(highwater::Lsn::as_u64).collect();
    (disk.image().crash(Survival::Everything), lsns)
}

#[test]
fn export_refuses_a_missing_segment() {
    let (mut image, lsns) = long(None);
    let at = |number: usize| lsns[number].to_string();
    image.delete(&format!("{:020}.wal", 2));
    let scene = Scene::with(&image);
    let export = |from: usize, to: usize| {
        scene.run(&["export", "log", "--from", &at(from), "--to", &at(to), "-o", "log.hwx"])
    };
    for (from, to) in [(0, 19), (0, 13), (2, 19), (5, 10)] {
        let outcome = export(from, to);
        assert_eq!(outcome.status, 2, "{from}..{to}: {}{}", outcome.out, outcome.error);
        assert!(!scene.path("log.hwx").exists());
    }
    let outcome = export(14, 19);
    assert_eq!(outcome.status, 0, "{}", outcome.error);
    scene.run(&["import", "log.hwx", "back"]);
    let records: Vec<_> = (14..19).map(|i| (false, vec![i; 900])).collect();
    assert_eq!(scene.records("back"), records);
}

#[test]
fn truncated_log_is_exported_from_its_first_lsn() {
    let (image, lsns) = long(Some(7));
    let scene = Scene::with(&image);
    let outcome = scene.run(&["export", "log", "-o", "log.hwx"]);
    assert_eq!(outcome.status, 0, "{}", outcome.error);
    assert!(outcome.out.contains(&format!("13 records, 11.4 KiB of payload, LSN {}", lsns[7])));
    let outcome = scene.run(&["export", "log", "--from", &lsns[6].to_string(), "-o", "no.hwx"]);
    assert_eq!(outcome.status, 4);
    assert!(outcome.error.contains(&format!("the log begins at {}", lsns[7])), "{}", outcome.error);
}

#[cfg(target_os = "linux")]
#[test]
fn full_disk_is_reported_and_leaves_no_file() {
    let scene = Scene::with(&image(true));
    let outcome = scene.run(&["export", "log", "-o", "/dev/full"]);
    assert_eq!(outcome.status, 4);
    assert!(
        outcome.error.contains("No space left") && outcome.error.contains("free some"),
        "{}",
        outcome.error
    );
    assert!(outcome.out.is_empty(), "{}", outcome.out);
    let outcome = scene.run(&["import", "log", "/proc/log"]);
    assert_eq!(outcome.status, 4);
    // A file system of 256 KiB for this process only, if the system allows that.
    fs::write(scene.path("log.hwx"), scene.bytes(&["export", "log"])).unwrap();
    fs::create_dir(scene.path("small")).unwrap();
    let script = "mount -t tmpfs -o size=256k none small || { echo skipped; exit 0; }
        \"$0\" import log.hwx small/log; echo status $?; ls -A small
        \"$0\" import --segment-bytes 8192 log.hwx small/log; echo status $?; ls -A small
        \"$0\" bench-fsync small; echo status $?; ls -A small
        \"$0\" import log.hwx small";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command.arg(env!("CARGO_BIN_EXE_highwater")).current_dir(scene.directory.path());
    let Ok(output) = command.output() else { return };
    let out = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    if out.is_empty() || out.contains("skipped") {
        eprintln!("no private file system here: skipped: {error}");
        return;
    }
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], "status 4", "{out}{error}");
    assert!(lines[1].contains("imported and synced"), "{out}{error}");
    assert_eq!(lines[2..], ["status 0", "log", "status 4", "log"], "{out}{error}");
    assert!(error.contains("no space for the next segment"), "{error}");
    assert!(error.contains("nothing was imported"), "{error}");
    assert!(error.contains(".tmp: No space left"), "{error}");
}

#[cfg(unix)]
#[test]
fn file_size_limit_is_an_error() {
    let scene = Scene::with(&image(true));
    fs::write(scene.path("log.hwx"), scene.bytes(&["export", "log"])).unwrap();
    let before = scene.names();
    let limited = |arguments: &str| {
        let script = format!("ulimit -f 2; exec \"$0\" {arguments}");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_highwater")]);
        let output = command.current_dir(scene.directory.path()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{arguments}: {error}");
        assert_eq!(scene.names(), before, "{arguments}");
        error
    };
    assert!(limited("import log.hwx new").contains("too large"));
    assert!(limited("export log -o new.hwx").contains("ulimit -f"));
    assert!(limited("bench-fsync .").contains("ulimit -f"));
}

#[test]
fn leftover_of_a_killed_import_is_reported() {
    let scene = Scene::with(&image(true));
    fs::write(scene.path("log.hwx"), scene.bytes(&["export", "log"])).unwrap();
    fs::create_dir(scene.path("new.importing")).unwrap();
    let outcome = scene.run(&["import", "log.hwx", "new"]);
    assert_eq!(outcome.status, 4);
    assert!(outcome.error.contains("new.importing: exists already"), "{}", outcome.error);
    fs::remove_dir(scene.path("new.importing")).unwrap();
    // The import still waits for the second half of its stream.
    let stream = fs::read(scene.path("log.hwx")).unwrap();
    let mut child = scene.command(&["import", "-", "new"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&stream[..stream.len() / 2]).unwrap();
    while !scene.path("new.importing").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it must wait for its input");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!scene.path("new").exists() && scene.path("new.importing").exists());
    fs::remove_dir_all(scene.path("new.importing")).unwrap();
    assert_eq!(scene.run(&["import", "log.hwx", "new/"]).status, 0);
    assert_eq!(scene.records("new"), scene.records("log"));
}

#[cfg(target_os = "linux")]
#[test]
fn import_is_durable_before_its_report() {
    let scene = Scene::with(&image(true));
    fs::write(scene.path("log.hwx"), scene.bytes(&["export", "log"])).unwrap();
    let mut command = Command::new("strace");
    let calls = "trace=rename,renameat,renameat2,fsync,fdatasync,pwrite64,pwritev,write";
    command.args(["-f", "-y", "-o", "calls", "-e", calls, env!("CARGO_BIN_EXE_highwater")]);
    command.args(["import", "log.hwx", "new"]).current_dir(scene.directory.path());
    let Ok(output) = command.stdin(Stdio::null()).output() else {
        eprintln!("no strace here: skipped");
        return;
    };
    let calls = fs::read_to_string(scene.path("calls")).unwrap_or_default();
    if !calls.contains("rename") {
        eprintln!("strace may not trace here: skipped");
        return;
    }
    assert!(output.status.success());
    let lines: Vec<_> = calls.lines().collect();
    let place = |what: &dyn Fn(&&str) -> bool| lines.iter().position(what).unwrap();
    let last = |what: &dyn Fn(&&str) -> bool| lines.iter().rposition(what).unwrap();
    let is_segment = |line: &&str| line.contains("new.importing/") && line.contains(".wal>");
    let written = last(&|line| is_segment(line) && line.contains("pwrite"));
    let synced = last(&|line| is_segment(line) && line.contains("sync("));
    let staged = last(&|line| line.contains("new.importing>)") && line.contains("sync("));
    let renamed = place(&|line| line.contains("rename") && line.contains("new.importing\""));
    let parent = scene.directory.path().file_name().unwrap().to_str().unwrap();
    let named = last(&|line| line.contains(&format!("{parent}>)")) && line.contains("fsync("));
    let outcome = place(&|line| line.contains("imported and synced"));
    let order = [written, synced, staged, renamed, named, outcome];
    assert!(order.is_sorted(), "{order:?}\n{calls}");
}

#[test]
fn commands_have_help_manual_and_completions() {
    let scene = Scene::new();
    let manual = scene.run(&["man"]).out;
    let script = scene.run(&["completions", "bash"]).out;
    for name in ["export", "import", "bench-fsync"] {
        let help = scene.run(&[name, "--help"]).out;
        assert!(help.contains("Examples:\n  highwater ") && help.contains("--json"), "{help}");
        // The manual escapes hyphens for troff.
        let section = format!(".SH \"HIGHWATER {}\"", name.to_uppercase());
        assert!(manual.contains(&section), "{name}");
        assert!(script.contains(&format!("highwater,{name})")), "{name}");
    }
}

#[test]
fn bench_fsync_is_bounded_and_leaves_no_file() {
    let scene = Scene::new();
    let outcome = scene.run(&["bench-fsync", ".", "--seconds", "1", "--json"]);
    assert_eq!(outcome.status, 0, "{}", outcome.error);
    assert!(scene.names().is_empty(), "{:?}", scene.names());
    for name in ["\"floor\"", "\"growing\"", "\"suggestions\"", "zero_fill_bytes_per_second"] {
        assert!(outcome.out.contains(name), "{}", outcome.out);
    }
    let medians: Vec<u64> = outcome
        .out
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("\"p50_ns\": ")?.strip_suffix(',')?.parse().ok()
        })
        .collect();
    assert!(medians.len() >= 5, "{}", outcome.out);
    assert!(medians.iter().all(|ns| (100..60_000_000_000).contains(ns)), "{medians:?}");
    let outcome = scene.run(&["bench-fsync", "missing"]);
    assert_eq!(outcome.status, 4);
    assert!(outcome.error.contains("does the path exist?"), "{}", outcome.error);
    assert_eq!(scene.run(&["bench-fsync", ".", "--seconds", "0"]).status, 64);
}
