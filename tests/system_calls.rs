//! The system calls behind an acknowledgement, as `strace` saw them: a record is written, then its
//! file is flushed, then it is acknowledged; and the directory was flushed before.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and what it covered is said"
)]

use std::{
    collections::BTreeMap,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use highwater::Wal;

const MODE: &str = "HIGHWATER_TRACED_MODE";
/// How many records "append in place" appends.
const IN_PLACE_COUNT: u8 = 20;

const DIRECTORY: &str = "HIGHWATER_TRACED_DIRECTORY";

/// One write to standard error: a line in the trace that says what the child knows by then.
fn say(what: &str) {
    std::io::stderr().write_all(format!("<<{what}>>\n").as_bytes()).unwrap();
}

/// Runs in the child, under `strace`.
#[test]
fn child_that_is_traced() {
    let (Ok(mode), Ok(directory)) = (std::env::var(MODE), std::env::var(DIRECTORY)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let options = Wal::options().segment_bytes(64 << 10).ring_bytes(16 << 10);
        let options = options.recycle_segments(if mode == "recycle" { 2 } else { 0 });
        let options = options.inline_writes(if mode.ends_with("in place") { 8192 } else { 0 });
        let options = options.inline_syncs(mode == "commit in place");
        let wal = options.open(directory).await.unwrap();
        say("OPENED");
        match mode.as_str() {
            "append" => {
                for i in 0..30u8 {
                    wal.append_and_sync(&vec![i | 1; 5000]).await.unwrap();
                    say("ACK");
                }
            }
            "recycle" => {
                for i in 0..120u8 {
                    let lsn = wal.append_and_sync(&vec![i | 1; 5000]).await.unwrap();
                    say("ACK");
                    wal.truncate_before(lsn).await.unwrap();
                }
                assert!(wal.stats().recycled_count > 3, "{:?}", wal.stats());
            }
            "append in place" => {
                // What opening and the first append had jobs for has ended.
                wal.append(&[1; 8]).await.unwrap();
                std::thread::sleep(std::time::Duration::from_millis(50));
                say("BEGIN");
                for i in 0..IN_PLACE_COUNT {
                    wal.append(&[i | 1; 8]).await.unwrap();
                }
                say("END");
            }
            "commit in place" => {
                wal.append_and_sync(&[1; 8]).await.unwrap();
                std::thread::sleep(std::time::Duration::from_millis(50));
                say("BEGIN");
                for i in 0..IN_PLACE_COUNT {
                    wal.append_and_sync(&[i | 1; 8]).await.unwrap();
                    say("ACK");
                }
                say("END");
            }
            "sync" | "sync in place" => {
                for i in 0..12u8 {
                    wal.append(&vec![i | 1; 5000]).await.unwrap();
                    wal.sync().await.unwrap();
                    say("ACK");
                }
            }
            "leave" => {
                for i in 0..3u8 {
                    wal.append(&vec![i | 1; 5000]).await.unwrap();
                }
                // As a crash of the process: nothing is synced, nothing is closed.
                std::process::exit(0);
            }
            _ => {}
        }
    });
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Create,
    /// To this path, of another file.
    Rename(String),
    /// Bytes of frames: not the header, not zeros, not a mark.
    Data,
    Zeros,
    Header,
    Flush,
    Say(String),
}

/// A system call: what it did to which path, and the lines of the trace where it began and ended.
#[derive(Clone, Debug)]
struct Call {
    what: What,
    path: String,
    began: usize,
    ended: usize,
}

/// The calls of a trace made with `-f -y -xx`-less defaults, unfinished ones put together.
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
            let (from, to) = (paths.next()?.to_owned(), paths.next()?.to_owned());
            Some((What::Rename(to), from))
        }
        "fsync" | "fdatasync" => Some((What::Flush, path()?)),
        "write" => {
            let said = text.split_once("<<")?.1.split_once(">>")?.0;
            Some((What::Say(said.to_owned()), String::new()))
        }
        "pwrite64" | "pwritev2" => {
            // `…, 5016, 4096) = 5016`, `…, iov_len=5016}], 1, 4096, RWF_NOWAIT) = 5016`
            let (arguments, result) = text.rsplit_once(')')?;
            let numbers = arguments.strip_suffix(", RWF_NOWAIT").unwrap_or(arguments);
            let offset: u64 = numbers.rsplit(", ").next()?.parse().ok()?;
            let bytes: u64 = result.trim_start_matches([' ', '=']).trim().parse().ok()?;
            let zeros = arguments.contains("\"\\0\\0\\0\\0\\0\\0\\0\\0");
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

/// Runs the child under `strace`; `None` if that can't be done here.
fn trace(mode: &str, directory: &Path) -> Option<Vec<Call>> {
    let what = "openat,pwrite64,pwritev2,write,fsync,fdatasync,rename,renameat,renameat2";
    let calls = calls(&trace_of(what, mode, directory)?);
    assert!(calls.iter().any(|call| matches!(call.what, What::Say(_))), "no line of the child");
    Some(calls)
}

/// The lines of `strace` that show these calls of the child.
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
        .args(["--exact", "child_that_is_traced", "--nocapture"])
        .env(MODE, mode)
        .env(DIRECTORY, directory)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stderr).into_owned();
    if text.contains("ptrace") || text.contains("Operation not permitted") {
        println!("skipped: strace may not trace here: {text}");
        return None;
    }
    assert!(ran.status.success(), "{text}");
    Some(std::fs::read_to_string(output.path()).unwrap())
}

fn said<'a>(calls: &'a [Call], what: &'a str) -> impl Iterator<Item = &'a Call> {
    calls.iter().filter(move |call| call.what == What::Say(what.to_owned()))
}

/// Whether a flush of `path` lies wholly between two lines.
fn is_flushed(calls: &[Call], path: &str, after: usize, before: usize) -> bool {
    calls.iter().any(|call| {
        call.what == What::Flush && call.path == path && call.began > after && call.ended < before
    })
}

/// For each acknowledgement: all that was written before it was flushed before it.
fn check_acknowledgements(calls: &[Call], directory: &Path, expected: usize) -> Result<(), String> {
    let directory = directory.canonicalize().unwrap().display().to_string();
    let mut previous = said(calls, "OPENED").next().unwrap().ended;
    let mut count = 0;
    for ack in said(calls, "ACK") {
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
                .ok_or("a segment that nobody created")?;
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
fn append_and_sync_answers_after_the_flush_of_the_record_and_of_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let Some(calls) = trace("append", directory.path()) else {
        return;
    };
    check_acknowledgements(&calls, directory.path(), 30).unwrap();
    let segments = calls.iter().filter(|call| call.what == What::Header).count();
    assert!(segments >= 3, "the log rotated");
}

#[test]
fn sync_issues_a_flush() {
    let directory = tempfile::tempdir().unwrap();
    let Some(calls) = trace("sync", directory.path()) else {
        return;
    };
    check_acknowledgements(&calls, directory.path(), 12).unwrap();
}

/// What is written in place is flushed as ever before it counts as synced.
#[test]
fn sync_flushes_what_appends_wrote_in_place() {
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

/// A commit of a thread that flushes itself: the write and the flush, and no other thread.
#[test]
fn a_commit_in_place_is_flushed_by_its_own_thread() {
    let directory = tempfile::tempdir().unwrap();
    let Some(trace) = trace_of("pwrite64,write,fdatasync", "commit in place", directory.path())
    else {
        return;
    };
    let begun = trace.lines().skip_while(|line| !line.contains("<<BEGIN>>"));
    let during: Vec<_> = begun.take_while(|line| !line.contains("<<END>>")).collect();
    let thread = during[0].split(' ').next().unwrap_or_default();
    assert!(during.iter().all(|line| line.starts_with(thread)), "{during:#?}");
    // Between two acknowledgements: a write, the flush, and the mark that it leaves.
    let mut acknowledged = 0;
    for said in during.split(|line| line.contains("<<ACK>>")) {
        let position = |what: &str| said.iter().position(|line| line.contains(what));
        let (write, flush) = (position("pwrite64("), position("fdatasync("));
        acknowledged += usize::from(write.is_some() && write < flush);
    }
    assert_eq!(acknowledged, usize::from(IN_PLACE_COUNT), "{during:#?}");
}

/// What is wrong with appends that should each have been one write of the thread that asks for it.
fn check_in_place(trace: &str) -> Result<(), String> {
    let begun = trace.lines().skip_while(|line| !line.contains("<<BEGIN>>"));
    let during: Vec<_> = begun.skip(1).take_while(|line| !line.contains("<<END>>")).collect();
    let said = trace.lines().find(|line| line.contains("<<BEGIN>>")).ok_or("nothing was said")?;
    let thread = said.split(' ').next().unwrap_or_default();
    if let Some(line) = during.iter().find(|line| !line.starts_with(thread)) {
        return Err(format!("another thread is at work: {line}"));
    }
    if let Some(line) = during.iter().find(|line| line.contains("futex(")) {
        return Err(format!("a thread is woken, or waited for: {line}"));
    }
    let is_write = |line: &&&str| line.contains("pwrite64(") || line.contains("pwritev2(");
    let writes = during.iter().filter(is_write).count();
    match writes == usize::from(IN_PLACE_COUNT) && during.len() == writes {
        true => Ok(()),
        false => Err(format!("{writes} writes, {} calls: {during:#?}", during.len())),
    }
}

#[test]
fn an_append_in_place_is_one_write_and_wakes_nobody() {
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

/// Negative control: without any one of the flushes of segments or of the directory, it is seen.
#[test]
fn a_trace_without_its_flushes_is_caught() {
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
    assert!(without(&|call| call.path == path).is_err(), "the directory's");
    assert!(without(&|call| call.path != path).is_err(), "the segments'");
    // The last record's file is flushed again, after the mark behind it, at the next commit only.
    let last = calls.iter().rfind(|call| call.what == What::Data).unwrap();
    let last_alone = |call: &Call| call.path == last.path && call.began > last.ended;
    assert!(without(&last_alone).is_err(), "the last record's alone");
}

/// What is wrong with how files were used again, if anything: a new name is durable before the file is
/// overwritten, the zeros are before it has its next name, and that one is before its header.
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
fn a_file_is_used_again_behind_the_flushes_of_its_names_and_of_its_zeros() {
    let directory = tempfile::tempdir().unwrap();
    // As the traces show it.
    let path = directory.path().canonicalize().unwrap();
    let Some(calls) = trace("recycle", &path) else {
        return;
    };
    let path = path.display().to_string();
    let count = check_recycling(&calls, &path).unwrap();
    assert!(count > 3, "{count} files were used again");
    let without = |dropped: &dyn Fn(&Call) -> bool| {
        let is_kept = |call: &&Call| call.what != What::Flush || !dropped(call);
        let kept: Vec<_> = calls.iter().filter(is_kept).cloned().collect();
        check_recycling(&kept, &path)
    };
    assert!(without(&|call| call.path == path).is_err(), "the directory's");
    assert!(without(&|call| call.path.ends_with(".recycled")).is_err(), "the zeros'");
}

#[test]
fn a_new_directory_is_flushed_into_its_parent() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("new");
    let Some(calls) = trace("append", &directory) else {
        return;
    };
    let opened = said(&calls, "OPENED").next().unwrap();
    let parent = parent.path().canonicalize().unwrap().display().to_string();
    assert!(is_flushed(&calls, &parent, 0, opened.began));
}

/// A process that ended after `mkdir` and before the flush leaves such a directory.
#[test]
fn an_empty_directory_found_is_flushed_into_its_parent_before_the_log_counts() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("found");
    std::fs::create_dir(&directory).unwrap();
    let Some(calls) = trace("append", &directory) else {
        return;
    };
    let ack = said(&calls, "ACK").next().unwrap();
    let parent = parent.path().canonicalize().unwrap().display().to_string();
    assert!(is_flushed(&calls, &parent, 0, ack.began), "its entry may not be durable");
}

#[test]
fn what_an_unclosed_log_had_is_written_and_flushed_anew_before_it_opens() {
    let directory = tempfile::tempdir().unwrap();
    if trace("leave", directory.path()).is_none() {
        return;
    }
    let Some(calls) = trace("reopen", directory.path()) else {
        return;
    };
    let opened = said(&calls, "OPENED").next().unwrap().began;
    let written: Vec<_> =
        calls.iter().filter(|call| call.what == What::Data && call.ended < opened).collect();
    assert!(!written.is_empty(), "the records were written anew");
    for write in written {
        let header =
            calls.iter().find(|call| call.what == What::Header && call.path == write.path).unwrap();
        // The frames are durable before the header, which makes them count.
        assert!(is_flushed(&calls, &write.path, write.ended, header.began), "{write:?}");
        assert!(is_flushed(&calls, &write.path, header.ended, opened), "{header:?}");
    }
}
