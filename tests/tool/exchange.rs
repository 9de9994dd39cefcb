//! `export`, `import` and `bench-fsync` as processes, in a directory of their own.

use std::{io::Write, process::Child};

use super::*;

mod foreign;

pub(super) struct Scene {
    directory: tempfile::TempDir,
}

pub(super) struct Told {
    pub(super) status: i32,
    pub(super) out: String,
    pub(super) error: String,
}

impl Scene {
    pub(super) fn new() -> Self {
        Scene { directory: tempfile::tempdir().unwrap() }
    }

    /// With the files of an image in `log`.
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
            // Of the default size two are prepared, 16 MiB of zeros each.
            command.args(["--segment-bytes", "65536"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn told(child: Child) -> (i32, Output) {
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), output)
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Told {
        let (status, output) = Self::told(self.command(arguments).spawn().unwrap());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Told { status, out: text(output.stdout), error: text(output.stderr) }
    }

    /// The bytes that a command gives.
    fn bytes(&self, arguments: &[&str]) -> Vec<u8> {
        let (status, output) = Self::told(self.command(arguments).spawn().unwrap());
        assert_eq!(status, 0, "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn feed(&self, arguments: &[&str], bytes: &[u8]) -> Told {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // Who refuses the first byte doesn't read the last.
        let _ = child.stdin.take().unwrap().write_all(bytes);
        let (status, output) = Self::told(child);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Told { status, out: text(output.stdout), error: text(output.stderr) }
    }

    fn transcript(&self, commands: &[&[&str]]) -> String {
        let mut told = String::new();
        for arguments in commands {
            let Told { status, out, error } = self.run(arguments);
            told.push_str(&format!("$ highwater {}\n{out}", arguments.join(" ")));
            if !error.is_empty() {
                told.push_str(&format!("-- standard error\n{error}"));
            }
            told.push_str(&format!("-- status {status}\n\n"));
        }
        told
    }

    pub(super) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The records of a log: whether a batch goes on behind each, and its payload.
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
fn what_was_exported_is_imported_record_for_record() {
    let scene = Scene::with(&image(true));
    let told = scene.transcript(&[
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
    assert_golden("exchange.txt", &told);
    assert_eq!(scene.records("copy"), scene.records("log"));
    assert!(scene.records("log").iter().any(|(goes_on, _)| *goes_on), "a batch among them");
    let bare =
        ["log", "copy", "again"].map(|log| scene.bytes(&["export", log, "--without-positions"]));
    assert_eq!(bare[0], bare[1]);
    assert_eq!(bare[0], bare[2]);
    // The whole batch belongs to where it begins.
    assert_eq!(scene.run(&["import", "part.hwx", "part"]).status, 0);
    assert_eq!(scene.records("part"), scene.records("log")[2..5]);
    let map = fs::read_to_string(scene.path("map.tsv")).unwrap();
    assert_eq!(map.lines().take(3).collect::<Vec<_>>(), ["0\t0", "40\t40", "64\t64"]);
    // The mark at 144 is no record: what stood behind it moved.
    assert!(map.lines().any(|line| line == "168\t144"), "{map}");
}

#[test]
fn a_pipe_carries_a_log() {
    let scene = Scene::with(&image(true));
    let mut export = scene.command(&["export", "log"]).spawn().unwrap();
    let stream = export.stdout.take().unwrap();
    let mut import = scene.command(&["import", "-", "copy", "--segment-bytes", "8192"]);
    let (status, output) = Scene::told(import.stdin(stream).spawn().unwrap());
    assert_eq!(status, 0, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Scene::told(export).0, 0);
    assert_eq!(scene.records("copy"), scene.records("log"));
    let segments = fs::read_dir(scene.path("copy")).unwrap().count();
    assert!(segments > 2, "of the size that was asked for: {segments}");
    // A stream that nobody reads to its end was not delivered. Who should is gone already.
    let mut reader = scene.command(&["--version"]).stdin(Stdio::piped()).spawn().unwrap();
    let gone = reader.stdin.take().unwrap();
    reader.wait_with_output().unwrap();
    let export = scene.command(&["export", "log"]).stdout(gone).spawn().unwrap();
    let (status, output) = Scene::told(export);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(status == 4 && error.contains("went away before its end"), "{status}: {error}");
    // Exporting what can't be exported leaves the importer with nothing to believe.
    let told = scene.feed(&["import", "-", "none"], b"");
    assert_eq!(told.status, 2);
    assert!(told.error.contains("nothing came"), "{}", told.error);
    assert!(!scene.path("none").exists());
}

#[test]
fn a_damaged_stream_makes_no_log_and_leaves_none_changed() {
    let scene = Scene::with(&image(true));
    let stream = scene.bytes(&["export", "log"]);
    let before = scene.names();
    for at in (0..stream.len()).step_by(97) {
        let mut flipped = stream.clone();
        flipped[at] ^= 0x10;
        for damaged in [&flipped[..], &stream[..at]] {
            let small = ["import", "-", "new", "--segment-bytes", "8192"];
            let told = scene.feed(&small, damaged);
            let is_foreign = at < 8;
            assert!(told.status == 2 || is_foreign && told.status == 4, "{at}: {}", told.error);
            assert!(told.out.is_empty(), "{}", told.out);
            assert_eq!(scene.names(), before, "{at}");
        }
    }
    let mut flipped = stream.clone();
    flipped[stream.len() / 2] ^= 1;
    fs::write(scene.path("flipped.hwx"), &flipped).unwrap();
    let records = scene.records("log");
    // From a file: verified before the first record is appended.
    let told = scene.run(&["import", "--append", "flipped.hwx", "log"]);
    assert_eq!((told.status, scene.records("log")), (2, records.clone()), "{}", told.error);
    // From a pipe that can't be: said.
    let told = scene.feed(&["import", "--append", "-", "log"], &flipped);
    assert_eq!(told.status, 2);
    assert!(told.error.contains("had been appended before, from LSN"), "{}", told.error);
    assert!(scene.records("log").len() > records.len());
    assert_eq!(scene.run(&["verify", "--quiet", "log"]).status, 0);
}

#[test]
fn appending_goes_on_where_the_log_ends() {
    let scene = Scene::with(&image(true));
    fs::write(scene.path("log.hwx"), scene.bytes(&["export", "log"])).unwrap();
    let once = scene.records("log");
    let told = scene.run(&["import", "--append", "log.hwx", "log"]);
    assert_eq!(told.status, 0, "{}", told.error);
    assert_eq!(scene.records("log"), [once.clone(), once].concat());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let wal = Wal::open(scene.path("log")).await.unwrap();
        let told = scene.run(&["import", "--append", "log.hwx", "log"]);
        assert_eq!(told.status, 4);
        assert!(told.error.contains("open"), "{}", told.error);
        // Exporting asks for no lock.
        assert_eq!(scene.run(&["export", "log", "-o", "used.hwx"]).status, 0);
        wal.close().await.unwrap();
    });
}

#[test]
fn a_log_that_is_not_whole_is_no_export() {
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
    assert_eq!(scene.names(), before, "nothing was made: {refused}");
    let intact = scene.transcript(&[
        &["export", "log", "--to", "64", "-o", "front.hwx"],
        &["export", "log", "--from", "144", "-o", "back.hwx"],
        &["export", "torn", "-o", "torn.hwx"],
    ]);
    assert_golden("export.txt", &format!("{refused}{intact}"));
    for (stream, records) in [("front.hwx", 2), ("back.hwx", 5), ("torn.hwx", 10)] {
        let told = scene.run(&["import", stream, &format!("{stream}.log")]);
        assert_eq!(told.status, 0, "{}", told.error);
        assert_eq!(scene.records(&format!("{stream}.log")).len(), records, "{stream}");
    }
}

/// Four segments and more of records of 900 bytes, and where each record stands.
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
fn no_export_leaps_over_a_segment_that_is_missing() {
    let (mut image, lsns) = long(None);
    let at = |number: usize| lsns[number].to_string();
    image.delete(&format!("{:020}.wal", 2));
    let scene = Scene::with(&image);
    let export = |from: usize, to: usize| {
        scene.run(&["export", "log", "--from", &at(from), "--to", &at(to), "-o", "log.hwx"])
    };
    for (from, to) in [(0, 19), (0, 13), (2, 19), (5, 10)] {
        let told = export(from, to);
        assert_eq!(told.status, 2, "{from}..{to}: {}{}", told.out, told.error);
        assert!(!scene.path("log.hwx").exists());
    }
    let told = export(14, 19);
    assert_eq!(told.status, 0, "{}", told.error);
    scene.run(&["import", "log.hwx", "back"]);
    let records: Vec<_> = (14..19).map(|i| (false, vec![i; 900])).collect();
    assert_eq!(scene.records("back"), records);
}

#[test]
fn a_log_whose_beginning_was_truncated_is_exported_from_where_it_begins() {
    let (image, lsns) = long(Some(7));
    let scene = Scene::with(&image);
    let told = scene.run(&["export", "log", "-o", "log.hwx"]);
    assert_eq!(told.status, 0, "{}", told.error);
    assert!(told.out.contains(&format!("13 records, 11.4 KiB of payload, LSN {}", lsns[7])));
    let told = scene.run(&["export", "log", "--from", &lsns[6].to_string(), "-o", "no.hwx"]);
    assert_eq!(told.status, 4);
    assert!(told.error.contains(&format!("the log begins at {}", lsns[7])), "{}", told.error);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_and_leaves_nothing_half_done() {
    let scene = Scene::with(&image(true));
    let told = scene.run(&["export", "log", "-o", "/dev/full"]);
    assert_eq!(told.status, 4);
    assert!(
        told.error.contains("No space left") && told.error.contains("free some"),
        "{}",
        told.error
    );
    assert!(told.out.is_empty(), "{}", told.out);
    let told = scene.run(&["import", "log", "/proc/log"]);
    assert_eq!(told.status, 4);
    // A file system of 256 KiB, for this process alone, where that is allowed.
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
        eprintln!("no file system of one's own here: skipped: {error}");
        return;
    }
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], "status 4", "{out}{error}");
    assert!(lines[1].contains("imported and synced"), "{out}{error}");
    assert_eq!(lines[2..], ["status 0", "log", "status 4", "log"], "{out}{error}");
    assert!(error.contains("no space for the next segment"), "{error}");
    assert!(error.contains("nothing was imported"), "{error}");
    assert!(error.contains("highwater-bench-fsync-1.tmp: No space left"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_limit_of_file_sizes_is_an_error_and_not_the_end() {
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
fn what_an_import_that_was_killed_left_is_told_of() {
    let scene = Scene::with(&image(true));
    fs::write(scene.path("log.hwx"), scene.bytes(&["export", "log"])).unwrap();
    fs::create_dir(scene.path("new.importing")).unwrap();
    let told = scene.run(&["import", "log.hwx", "new"]);
    assert_eq!(told.status, 4);
    assert!(told.error.contains("new.importing: there already"), "{}", told.error);
    fs::remove_dir(scene.path("new.importing")).unwrap();
    // One that still waits for the second half of its stream.
    let stream = fs::read(scene.path("log.hwx")).unwrap();
    let mut child = scene.command(&["import", "-", "new"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&stream[..stream.len() / 2]).unwrap();
    while !scene.path("new.importing").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it waits for its input");
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
fn an_import_is_durable_before_it_says_so() {
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
    let told = place(&|line| line.contains("imported and synced"));
    let order = [written, synced, staged, renamed, named, told];
    assert!(order.is_sorted(), "{order:?}\n{calls}");
}

#[test]
fn the_new_commands_have_help_a_manual_and_completions() {
    let scene = Scene::new();
    let manual = scene.run(&["man"]).out;
    let script = scene.run(&["completions", "bash"]).out;
    for name in ["export", "import", "bench-fsync"] {
        let help = scene.run(&[name, "--help"]).out;
        assert!(help.contains("Examples:\n  highwater ") && help.contains("--json"), "{help}");
        // The manual writes hyphens as troff wants them.
        let section = format!(".SH \"HIGHWATER {}\"", name.to_uppercase());
        assert!(manual.contains(&section), "{name}");
        assert!(script.contains(&format!("highwater,{name})")), "{name}");
    }
}

#[test]
fn a_disk_is_measured_in_bounded_time_and_left_as_it_was() {
    let scene = Scene::new();
    let told = scene.run(&["bench-fsync", ".", "--seconds", "1", "--json"]);
    assert_eq!(told.status, 0, "{}", told.error);
    assert!(scene.names().is_empty(), "{:?}", scene.names());
    for name in ["\"floor\"", "\"growing\"", "\"suggestions\"", "zero_fill_bytes_per_second"] {
        assert!(told.out.contains(name), "{}", told.out);
    }
    let medians: Vec<u64> = told
        .out
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("\"p50_ns\": ")?.strip_suffix(',')?.parse().ok()
        })
        .collect();
    assert!(medians.len() >= 5, "{}", told.out);
    assert!(medians.iter().all(|ns| (100..60_000_000_000).contains(ns)), "{medians:?}");
    let told = scene.run(&["bench-fsync", "missing"]);
    assert_eq!(told.status, 4);
    assert!(told.error.contains("does the path exist?"), "{}", told.error);
    assert_eq!(scene.run(&["bench-fsync", ".", "--seconds", "0"]).status, 64);
}
