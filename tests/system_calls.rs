//! The system calls before an acknowledgement, as `strace` shows them: the record is written, its
//! file is flushed, and then the call returns. The directory was flushed before.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and the coverage is printed"
)]

use std::{
    collections::BTreeMap,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use highwater::{InlineSyncs, SyncMethod, Wal};

const MODE: &str = "HIGHWATER_TRACED_MODE";
/// The number of records that mode "append in place" appends.
const IN_PLACE_COUNT: u8 = 20;

const DIRECTORY: &str = "HIGHWATER_TRACED_DIRECTORY";

/// Writes a marker line to standard error, which appears in the trace.
fn mark(what: &str) {
    std::io::stderr().write_all(format!("<<{what}>>\n").as_bytes()).unwrap();
}

/// The child process, which runs under `strace`.
#[test]
fn child_under_strace() {
    let (Ok(mode), Ok(directory)) = (std::env::var(MODE), std::env::var(DIRECTORY)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let options = Wal::options().segment_bytes(64 << 10).ring_bytes(16 << 10);
        let options = options.recycle_segments(if mode == "recycle" { 2 } else { 0 });
        let options = options.inline_writes(if mode.ends_with("in place") { 8192 } else { 0 });
        let options = options.inline_syncs(if mode.starts_with("commit") {
            InlineSyncs::Always
        } else {
            InlineSyncs::default()
        });
        let options = options.sync_method(match mode.as_str() {
            "commit durably" => SyncMethod::Dsync,
            _ => SyncMethod::default(),
        });
        let wal = options.open(directory).await.unwrap();
        mark("OPENED");
        match mode.as_str() {
            "append" => {
                for i in 0..30u8 {
                    wal.append_and_sync(&vec![i | 1; 5000]).await.unwrap();
                    mark("ACK");
                }
            }
            "recycle" => {
                for i in 0..120u8 {
                    let lsn = wal.append_and_sync(&vec![i | 1; 5000]).await.unwrap();
                    mark("ACK");
                    wal.truncate_before(lsn).await.unwrap();
                }
                assert!(wal.stats().recycled_count > 3, "{:?}", wal.stats());
            }
            "append in place" => {
                // Waits until the jobs of opening and of the first append have ended.
                wal.append(&[1; 8]).await.unwrap();
                std::thread::sleep(std::time::Duration::from_millis(50));
                mark("BEGIN");
                for i in 0..IN_PLACE_COUNT {
                    wal.append(&[i | 1; 8]).await.unwrap();
                }
                mark("END");
            }
            "commit in place" | "commit durably" => {
                wal.append_and_sync(&[1; 8]).await.unwrap();
                std::thread::sleep(std::time::Duration::from_millis(50));
                mark("BEGIN");
                for i in 0..IN_PLACE_COUNT {
                    wal.append_and_sync(&[i | 1; 8]).await.unwrap();
                    mark("ACK");
                }
                mark("END");
            }
            "sync" | "sync in place" => {
                for i in 0..12u8 {
                    wal.append(&vec![i | 1; 5000]).await.unwrap();
                    wal.sync().await.unwrap();
                    mark("ACK");
                }
            }
            "leave" => {
                for i in 0..3u8 {
                    wal.append(&vec![i | 1; 5000]).await.unwrap();
                }
                // Ends like a crash of the process, without sync and close.
                std::process::exit(0);
            }
            _ => {}
        }
    });
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Create,
    /// A rename to this path.
    Rename(String),
    /// Bytes of frames; not a header, zeros or a mark.
    Data,
    Zeros,
    Header,
    Flush,
    Marker(String),
}

/// A system call: its effect, its path, and the trace lines where it began and ended.
#[derive(Clone, Debug)]
struct Call {
    what: What,
    path: String,
    began: usize,
    ended: usize,
}

/// Parses a trace. Joins the two lines of an interrupted call.
fn calls(trace: &str) -> Vec<Call> {
    let mut unfinished: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    let mut calls = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else {
            continue;
        };
        let text = text.trim_start();
        if let Some(begun) = text.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (at, begun.trim_end().to_owned()));
            continue;
        }
        let (began, text) = match text.split_once("resumed>") {
            Some((_, rest)) => {
                let (began, begun) = unfinished.remove(thread).unwrap();
                (began, begun + rest)
            }
            None => (at, text.to_owned()),
        };
        if let Some((what, path)) = classify(&text) {
            calls.push(Call { what, path, began, ended: at });
        }
    }
    calls
}

fn classify(text: &str) -> Option<(What, String)> {
    let name = text.split('(').next()?;
    let failed = text.contains(" = -1 ");
    assert!(!failed || !name.ends_with("sync"), "a flush failed: {text}");
    if failed {
        return None;
    }
    // `-y` shows a descriptor as `5</path>`.
    let path = || {
        let (_, rest) = text.split_once('<')?;
        Some(rest.split_once('>')?.0.to_owned())
    };
    match name {
        "openat" if text.contains("O_CREAT") => {
            let (_, result) = text.rsplit_once(" = ")?;
            let path = result.split_once('<')?.1.split_once('>')?.0;
            Some((What::Create, path.to_owned()))
        }
        "rename" | "renameat" | "renameat2" => {
            let mut paths = text.split('"').skip(1).step_by(2);
            let (from, to) = (paths.next()?, paths.next()?);
            // The path is relative to the log's directory, which `-y` shows as `4</path>`.
            let at = |name: &str| match path() {
                Some(directory) if !name.starts_with('/') => format!("{directory}/{name}"),
                _ => name.to_owned(),
            };
            Some((What::Rename(at(to)), at(from)))
        }
        "fsync" | "fdatasync" => Some((What::Flush, path()?)),
        "write" => {
            let message = text.split_once("<<")?.1.split_once(">>")?.0;
            Some((What::Marker(message.to_owned()), String::new()))
        }
        "pwrite64" | "pwritev2" => {
            // `…, 5016, 4096) = 5016`, `…, iov_len=5016}], 1, 4096, RWF_NOWAIT) = 5016`
            let (arguments, result) = text.rsplit_once(')')?;
            let numbers = arguments.strip_suffix(", RWF_NOWAIT").unwrap_or(arguments);
            let offset: u64 = numbers.rsplit(", ").next()?.parse().ok()?;
            let bytes: u64 = result.trim_start_matches([' ', '=']).trim().parse().ok()?;
            // Only the first quotation mark begins the bytes: a byte 0x22 among them is one, too.
            let (_, written) = arguments.split_once('"')?;
            let zeros = written.starts_with(r"\0\0\0\0\0\0\0\0");
            match (offset, bytes, zeros) {
                (_, _, true) => Some((What::Zeros, path()?)),
                (4096.., ..=24, _) => None,
                (0, _, _) => Some((What::Header, path()?)),
                _ => Some((What::Data, path()?)),
            }
        }
        _ => None,
    }
}

/// Runs the child under `strace`. Returns `None` where tracing is impossible.
fn trace(mode: &str, directory: &Path) -> Option<Vec<Call>> {
    let what = "openat,pwrite64,pwritev2,write,fsync,fdatasync,rename,renameat,renameat2";
    let calls = calls(&trace_of(what, mode, directory)?);
    assert!(
        calls.iter().any(|call| matches!(call.what, What::Marker(_))),
        "the trace has no marker of the child"
    );
    Some(calls)
}

/// Returns the trace of the given calls of the child.
fn trace_of(what: &str, mode: &str, directory: &Path) -> Option<String> {
    let found =
        Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        println!("skipped: there is no strace");
        return None;
    }
    let output = tempfile::NamedTempFile::new().unwrap();
    let ran = Command::new("strace")
        .args(["-f", "-y", "-s", "40", "-e"])
        .arg(format!("trace={what}"))
        .arg("-o")
        .arg(output.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_under_strace", "--nocapture"])
        .env(MODE, mode)
        .env(DIRECTORY, directory)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stderr).into_owned();
    if text.contains("ptrace") || text.contains("Operation not permitted") {
        println!("skipped: strace is not permitted: {text}");
        return None;
    }
    assert!(ran.status.success(), "{text}");
    Some(std::fs::read_to_string(output.path()).unwrap())
}

fn markers<'a>(calls: &'a [Call], what: &'a str) -> impl Iterator<Item = &'a Call> {
    calls.iter().filter(move |call| call.what == What::Marker(what.to_owned()))
}

/// Returns whether a flush of `path` lies completely between two lines.
fn is_flushed(calls: &[Call], path: &str, after: usize, before: usize) -> bool {
    calls.iter().any(|call| {
        call.what == What::Flush && call.path == path && call.began > after && call.ended < before
    })
}

/// Checks that every write before an acknowledgement was also flushed before it.
fn check_acknowledgements(calls: &[Call], directory: &Path, expected: usize) -> Result<(), String> {
    let directory = directory.canonicalize().unwrap().display().to_string();
    let mut previous = markers(calls, "OPENED").next().unwrap().ended;
    let mut count = 0;
    for ack in markers(calls, "ACK") {
        let written: Vec<_> =
            calls.iter().filter(|call| call.what == What::Data && call.began < ack.began).collect();
        if !written.iter().any(|call| call.began > previous) {
            return Err(format!("line {}: nothing was written for it", ack.began));
        }
        for write in written {
            if !is_flushed(calls, &write.path, write.ended, ack.began) {
                return Err(format!("line {}: {write:?} was not flushed", ack.began));
            }
            let header = calls
                .iter()
                .find(|call| call.what == What::Header && call.path == write.path)
                .ok_or("a segment without a header")?;
            if !is_flushed(calls, &write.path, header.ended, ack.began) {
                return Err(format!("line {}: the header was not flushed", ack.began));
            }
            let created = calls
                .iter()
                .find(|call| call.what == What::Create && call.path == write.path)
                .ok_or("a segment that was not created")?;
            if !is_flushed(calls, &directory, created.ended, ack.began) {
                return Err(format!("line {}: the directory was not flushed", ack.began));
            }
        }
        previous = ack.ended;
        count += 1;
    }
    if count != expected {
        return Err(format!("{count} acknowledgements, not {expected}"));
    }
    Ok(())
}

#[test]
fn append_and_sync_flushes_record_and_directory() {
    let directory = tempfile::tempdir().unwrap();
    let Some(calls) = trace("append", directory.path()) else {
        return;
    };
    check_acknowledgements(&calls, directory.path(), 30).unwrap();
    let segments = calls.iter().filter(|call| call.what == What::Header).count();
    assert!(segments >= 3, "the log must rotate");
}

#[test]
fn sync_issues_a_flush() {
    let directory = tempfile::tempdir().unwrap();
    let Some(calls) = trace("sync", directory.path()) else {
        return;
    };
    check_acknowledgements(&calls, directory.path(), 12).unwrap();
}

/// Inline writes, too, are flushed before they count as synced.
#[test]
fn sync_flushes_inline_writes() {
    let directory = tempfile::tempdir().unwrap();
    let Some(calls) = trace("sync in place", directory.path()) else {
        return;
    };
    check_acknowledgements(&calls, directory.path(), 12).unwrap();
    let path = directory.path().canonicalize().unwrap().display().to_string();
    let kept: Vec<_> =
        calls.into_iter().filter(|call| call.what != What::Flush || call.path == path).collect();
    assert!(check_acknowledgements(&kept, directory.path(), 12).is_err(), "control: no flushes");
}

/// A commit with inline sync: the thread writes and flushes, and no other thread is involved.
#[test]
fn inline_commit_is_flushed_by_its_own_thread() {
    let directory = tempfile::tempdir().unwrap();
    let Some(trace) = trace_of("pwrite64,write,fdatasync", "commit in place", directory.path())
    else {
        return;
    };
    let begun = trace.lines().skip_while(|line| !line.contains("<<BEGIN>>"));
    let during: Vec<_> = begun.take_while(|line| !line.contains("<<END>>")).collect();
    let thread = during[0].split(' ').next().unwrap_or_default();
    assert!(during.iter().all(|line| line.starts_with(thread)), "{during:#?}");
    // Between two acknowledgements lie a write, the flush, and the mark.
    let mut acknowledged = 0;
    for calls in during.split(|line| line.contains("<<ACK>>")) {
        let position = |what: &str| calls.iter().position(|line| line.contains(what));
        let (write, flush) = (position("pwrite64("), position("fdatasync("));
        acknowledged += usize::from(write.is_some() && write < flush);
    }
    assert_eq!(acknowledged, usize::from(IN_PLACE_COUNT), "{during:#?}");
}

/// If the file system refuses to zero without a transfer, the log tries it once.
#[test]
fn refusal_to_zero_costs_one_call() {
    let directory = tempfile::tempdir().unwrap();
    let Some(trace) = trace_of("fallocate,openat,write", "append", directory.path()) else {
        return;
    };
    let reserved = trace.lines().filter(|line| line.contains("fallocate(")).count();
    let zeroed: Vec<_> = trace.lines().filter(|line| is_zeroing(line)).collect();
    assert!(reserved > 3, "the log must rotate: {trace}");
    match zeroed.iter().any(|line| line.contains(" = 0")) {
        true => println!("the file system zeroes without a transfer: {zeroed:?}"),
        false => assert_eq!(zeroed.len(), 1, "{zeroed:?}"),
    }
}

/// `fallocate(7</…>, 0x80, 0, 65536)`, with the flag's name where `strace` knows it.
fn is_zeroing(line: &str) -> bool {
    let arguments = line.split_once("fallocate(").map_or("", |(_, rest)| rest);
    arguments.contains(", 0x80") || arguments.contains("WRITE_ZEROES")
}

/// With durable writes, one call writes a commit and makes it durable. No flush follows.
#[test]
fn durable_write_replaces_write_and_flush() {
    let directory = tempfile::tempdir().unwrap();
    let what = "pwrite64,pwritev2,write,fsync,fdatasync";
    let Some(trace) = trace_of(what, "commit durably", directory.path()) else {
        return;
    };
    let begun = trace.lines().skip_while(|line| !line.contains("<<BEGIN>>"));
    let during: Vec<_> = begun.take_while(|line| !line.contains("<<END>>")).collect();
    assert!(!during.iter().any(|line| line.contains("sync(")), "{during:#?}");
    let mut acknowledged = 0;
    for calls in during.split(|line| line.contains("<<ACK>>")) {
        let durable = calls.iter().filter(|line| line.contains("RWF_DSYNC"));
        acknowledged += usize::from(durable.count() == 1);
    }
    assert_eq!(acknowledged, usize::from(IN_PLACE_COUNT), "{during:#?}");
}

/// Checks that each append was exactly one write by the calling thread.
fn check_in_place(trace: &str) -> Result<(), String> {
    let begun = trace.lines().skip_while(|line| !line.contains("<<BEGIN>>"));
    let during: Vec<_> = begun.skip(1).take_while(|line| !line.contains("<<END>>")).collect();
    let marker = trace
        .lines()
        .find(|line| line.contains("<<BEGIN>>"))
        .ok_or("the trace has no BEGIN marker")?;
    let thread = marker.split(' ').next().unwrap_or_default();
    if let Some(line) = during.iter().find(|line| !line.starts_with(thread)) {
        return Err(format!("another thread made a call: {line}"));
    }
    if let Some(line) = during.iter().find(|line| line.contains("futex(")) {
        return Err(format!("a thread was woken or waited for: {line}"));
    }
    let is_write = |line: &&&str| line.contains("pwrite64(") || line.contains("pwritev2(");
    let writes = during.iter().filter(is_write).count();
    match writes == usize::from(IN_PLACE_COUNT) && during.len() == writes {
        true => Ok(()),
        false => Err(format!("{writes} writes, {} calls: {during:#?}", during.len())),
    }
}

#[test]
fn inline_append_is_one_write_without_wakeup() {
    let directory = tempfile::tempdir().unwrap();
    let what = "pwrite64,pwritev2,write,futex,fsync,fdatasync";
    let Some(trace) = trace_of(what, "append in place", directory.path()) else {
        return;
    };
    check_in_place(&trace).unwrap();
    let begun = trace.find("<<BEGIN>>").unwrap();
    let (before, during) = trace.split_at(begun + trace[begun..].find('\n').unwrap() + 1);
    let woken = format!("{before}{} futex(0x1, FUTEX_WAKE_PRIVATE, 1) = 1\n{during}", 1);
    assert!(check_in_place(&woken).is_err(), "control: a thread is woken");
}

/// Negative control: the check fails without the flushes of the segments or of the directory.
#[test]
fn trace_without_flushes_is_caught() {
    let directory = tempfile::tempdir().unwrap();
    let Some(calls) = trace("append", directory.path()) else {
        return;
    };
    let path = directory.path().canonicalize().unwrap().display().to_string();
    let without = |dropped: &dyn Fn(&Call) -> bool| {
        let kept: Vec<_> = calls
            .iter()
            .filter(|call| call.what != What::Flush || !dropped(call))
            .cloned()
            .collect();
        check_acknowledgements(&kept, directory.path(), 30)
    };
    assert!(without(&|call| call.path == path).is_err(), "without flushes of the directory");
    assert!(without(&|call| call.path != path).is_err(), "without flushes of the segments");
    // Otherwise the last record's file is flushed only by the next commit.
    let last = calls.iter().rfind(|call| call.what == What::Data).unwrap();
    let last_alone = |call: &Call| call.path == last.path && call.began > last.ended;
    assert!(without(&last_alone).is_err(), "without the flush of the last record");
}

/// Checks the order for recycled files: new name durable, then zeros durable, then the next name
/// durable, then the header.
fn check_recycling(calls: &[Call], directory: &str) -> Result<usize, String> {
    let renamed = calls.iter().filter_map(|call| match &call.what {
        What::Rename(to) => Some((call, to)),
        _ => None,
    });
    let (kept, used): (Vec<_>, Vec<_>) = renamed.partition(|(_, to)| to.ends_with(".recycled"));
    for (call, waiting) in &kept {
        let zeros = calls.iter().find(|zeros| {
            zeros.what == What::Zeros && zeros.path == **waiting && zeros.began > call.ended
        });
        let Some(zeros) = zeros else { continue };
        if !is_flushed(calls, directory, call.ended, zeros.began) {
            return Err(format!("{call:?}: overwritten before the name was flushed"));
        }
    }
    for (call, name) in &used {
        let zeros = calls.iter().rfind(|zeros| {
            zeros.what == What::Zeros && zeros.path == call.path && zeros.ended < call.began
        });
        let zeros = zeros.ok_or_else(|| format!("{call:?}: without zeros"))?;
        if !is_flushed(calls, &call.path, zeros.ended, call.began) {
            return Err(format!("{call:?}: before its zeros were flushed"));
        }
        let header = calls.iter().find(|header| {
            header.what == What::Header && header.path == **name && header.began > call.ended
        });
        if header.is_some_and(|header| !is_flushed(calls, directory, call.ended, header.began)) {
            return Err(format!("{call:?}: begun before its name was flushed"));
        }
    }
    Ok(used.len())
}

#[test]
fn recycled_file_is_flushed_at_each_step() {
    let directory = tempfile::tempdir().unwrap();
    // The resolved path, as traces show it.
    let path = directory.path().canonicalize().unwrap();
    let Some(calls) = trace("recycle", &path) else {
        return;
    };
    let path = path.display().to_string();
    let count = check_recycling(&calls, &path).unwrap();
    assert!(count > 3, "{count} files were recycled");
    let without = |dropped: &dyn Fn(&Call) -> bool| {
        let is_kept = |call: &&Call| call.what != What::Flush || !dropped(call);
        let kept: Vec<_> = calls.iter().filter(is_kept).cloned().collect();
        check_recycling(&kept, &path)
    };
    assert!(without(&|call| call.path == path).is_err(), "without flushes of the directory");
    assert!(
        without(&|call| call.path.ends_with(".recycled")).is_err(),
        "without flushes of the zeros"
    );
}

#[test]
fn new_directory_is_flushed_into_parent() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("new");
    let Some(calls) = trace("append", &directory) else {
        return;
    };
    let opened = markers(&calls, "OPENED").next().unwrap();
    let parent = parent.path().canonicalize().unwrap().display().to_string();
    assert!(is_flushed(&calls, &parent, 0, opened.began));
}

/// A process that ends after `mkdir` and before the flush leaves such a directory.
#[test]
fn existing_empty_directory_is_flushed_into_parent() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("found");
    std::fs::create_dir(&directory).unwrap();
    let Some(calls) = trace("append", &directory) else {
        return;
    };
    let ack = markers(&calls, "ACK").next().unwrap();
    let parent = parent.path().canonicalize().unwrap().display().to_string();
    assert!(
        is_flushed(&calls, &parent, 0, ack.began),
        "the entry of the directory must be flushed"
    );
}

/// A killed process leaves a clean end. Opening writes the same bytes again in place and flushes
/// them.
#[test]
fn unclosed_log_is_written_again_before_it_opens() {
    let directory = tempfile::tempdir().unwrap();
    if trace("leave", directory.path()).is_none() {
        return;
    }
    let Some(calls) = trace("reopen", directory.path()) else {
        return;
    };
    let opened = markers(&calls, "OPENED").next().unwrap().began;
    for what in [What::Data, What::Header] {
        let written: Vec<_> =
            calls.iter().filter(|call| call.what == what && call.ended < opened).collect();
        assert!(!written.is_empty(), "{what:?} must be written again");
        for write in written {
            assert!(is_flushed(&calls, &write.path, write.ended, opened), "{write:?}");
        }
    }
}

/// A torn tail is cut by a new segment. Its frames must be durable before its header.
#[test]
fn recovered_records_are_flushed_before_their_header() {
    let directory = tempfile::tempdir().unwrap();
    if trace("leave", directory.path()).is_none() {
        return;
    }
    let oldest = std::fs::OpenOptions::new()
        .write(true)
        .open(directory.path().join("00000000000000000001.wal"))
        .unwrap();
    let bytes = oldest.metadata().unwrap().len();
    std::os::unix::fs::FileExt::write_all_at(&oldest, b"torn", bytes - 8).unwrap();
    let Some(calls) = trace("reopen", directory.path()) else {
        return;
    };
    let opened = markers(&calls, "OPENED").next().unwrap().began;
    let written: Vec<_> =
        calls.iter().filter(|call| call.what == What::Data && call.ended < opened).collect();
    assert!(!written.is_empty(), "the records must be written to a new segment");
    for write in written {
        let header =
            calls.iter().find(|call| call.what == What::Header && call.path == write.path).unwrap();
        assert!(is_flushed(&calls, &write.path, write.ended, header.began), "{write:?}");
        assert!(is_flushed(&calls, &write.path, header.ended, opened), "{header:?}");
    }
}
