//! Sealed segments as a stream, and copies of a log during appends. No segment is missed or
//! reported twice, shared files are never written to, and an unfinished copy is detected.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and the coverage is printed"
)]

mod contract;
mod support;

use std::{collections::BTreeMap, fs, path::Path};

use contract::{
    copies::with_copies,
    sweep::{Depth, Tally, sweep_record},
    workload::{Running, Script, random_script, run},
};
use futures::{FutureExt, StreamExt, TryStreamExt};
use highwater::{
    Error, Lsn, SealedSegment, Wal,
    sabotage::{self, Sabotage},
    simulation::{Disk, Faults, Op, Simulation},
    storage::{FileStorage, MemoryStorage, Storage},
};
use support::{records, small, within};

/// Fills `count` segments and part of the next one.
async fn fill(wal: &Wal, count: u64) {
    let goal = wal.stats().rotation_count + count;
    while wal.stats().rotation_count < goal {
        wal.append_and_sync(vec![b'x'; 900]).await.unwrap();
    }
}

/// Returns the contents of a log's files, except `LOCK`.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    files
        .filter(|(name, _)| name != "LOCK")
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .collect()
}

#[tokio::test]
async fn sealed_stream_yields_each_segment_once() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    let wal = small().open(&path).await.unwrap();
    fill(&wal, 3).await;
    let mut sealed = wal.sealed_segments(Lsn::ZERO);
    let mut got: Vec<SealedSegment> = Vec::new();
    while let Some(Some(segment)) = sealed.next().now_or_never() {
        got.push(segment.unwrap());
    }
    assert_eq!(got.len(), 3, "the sealed segments");
    fill(&wal, 2).await;
    for _ in 0..2 {
        got.push(within("one more", sealed.next()).await.unwrap().unwrap());
    }
    let mut position = Lsn::ZERO;
    for segment in &got {
        assert_eq!(segment.lsns().start, position, "a gap or a duplicate: {segment:?}");
        position = segment.lsns().end;
        let bytes = fs::read(segment.path().unwrap()).unwrap();
        let used = &bytes[..usize::try_from(segment.used_bytes()).unwrap()];
        assert_eq!(segment.checksum().await.unwrap(), crc32c::crc32c(used));
        assert!(bytes[used.len()..].iter().all(|&byte| byte == 0), "bytes after the used part");
    }
    assert_eq!((sealed.position(), got[0].epoch()), (position, 1));
    assert!(position <= wal.watermarks().synced);
    // Starts within the third segment.
    let third = got[2].lsns();
    let from = Lsn::new(third.start.as_u64() + 8);
    let later: Vec<_> = wal.sealed_segments(from).take(3).try_collect().await.unwrap();
    assert_eq!(later[0].lsns(), third);
    let end = wal.watermarks().reserved;
    let above = wal.sealed_segments(Lsn::new(end.as_u64() + (1 << 20))).next().await;
    assert!(matches!(above, Some(Err(Error::AboveEnd { .. }))));
    wal.close().await.unwrap();
    assert!(within("the end", sealed.next()).await.is_none(), "a closed log must end the stream");
    assert!(matches!(got[0].checksum().await, Err(Error::Closed { .. })));
}

/// A segment that is not yet reported, or held by a `SealedSegment`, must not be removed. In
/// memory, removal happens at once.
#[tokio::test]
async fn sealed_segment_is_kept_until_released() {
    let storage = MemoryStorage::new();
    let has = |segment: &str| storage.list().unwrap().iter().any(|name| name == segment);
    let wal = small().open_with(storage.clone()).await.unwrap();
    fill(&wal, 4).await;
    let mut sealed = wal.sealed_segments(Lsn::ZERO);
    let last = wal.append_and_sync("kept").await.unwrap();
    wal.truncate_before(last).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..4 {
        let segment = sealed.next().await.unwrap().unwrap();
        assert!(has(&segment.name()), "{segment:?}");
        held.push(segment);
    }
    let names: Vec<_> = held.iter().map(SealedSegment::name).collect();
    assert!(names.iter().all(|name| has(name)));
    assert_eq!(wal.stats().lease_count, 5);
    // The stream is past these segments: each is removed when its holder is dropped.
    for (segment, name) in held.into_iter().zip(&names) {
        assert!(has(name));
        segment.checksum().await.unwrap();
        drop(segment);
        assert!(!has(name), "a segment without holder must be removed");
    }
    let refused = wal.sealed_segments(Lsn::ZERO).next().await;
    assert!(matches!(refused, Some(Err(Error::BelowFirst { .. }))), "{refused:?}");
    drop(sealed);
    assert_eq!(wal.stats().lease_count, 0);
    wal.close().await.unwrap();
}

/// A sealed segment is reported only after its flush.
#[tokio::test]
async fn sealed_segment_is_reported_after_its_flush() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    wal.append_and_sync("first").await.unwrap();
    let mut sealed = wal.sealed_segments(Lsn::ZERO);
    let gate = faults.on(Op::Sync).file(|name| name.ends_with("1.wal")).gate();
    while wal.stats().rotation_count == 0 {
        wal.append(vec![b'x'; 900]).await.unwrap();
    }
    support::reached(&gate, 1).await;
    assert!(sealed.next().now_or_never().is_none(), "the segment is not durable yet");
    gate.open();
    let segment = within("the durable segment", sealed.next()).await.unwrap().unwrap();
    assert!(segment.lsns().end <= wal.watermarks().synced);
}

#[tokio::test]
async fn sealed_stream_ends_with_poison_or_last_handle() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new())).await.unwrap();
    fill(&wal, 1).await;
    let mut sealed = wal.sealed_segments(Lsn::ZERO);
    faults.on(Op::Sync).fail(std::io::ErrorKind::Other);
    wal.append_and_sync("fails").await.unwrap_err();
    assert!(sealed.next().await.unwrap().is_ok(), "the segment sealed before the failure");
    assert!(matches!(sealed.next().await, Some(Err(Error::Poisoned { .. }))));
    assert!(sealed.next().await.is_none());

    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    fill(&wal, 1).await;
    let mut sealed = wal.sealed_segments(Lsn::ZERO);
    assert!(sealed.next().await.unwrap().unwrap().path().is_none());
    assert!(sealed.next().now_or_never().is_none());
    drop(wal);
    assert!(within("the end", sealed.next()).await.is_none());
}

/// The archived files alone open as a prefix of the log.
#[tokio::test]
async fn archive_opens_as_log() {
    let parent = tempfile::tempdir().unwrap();
    let (path, archive) = (parent.path().join("log"), parent.path().join("archive"));
    fs::create_dir(&archive).unwrap();
    let wal = small().open(&path).await.unwrap();
    let mut sealed = wal.sealed_segments(Lsn::ZERO);
    let target = archive.clone();
    let archiving = tokio::spawn(async move {
        let mut position = Lsn::ZERO;
        while let Some(segment) = sealed.next().await {
            let segment = segment.unwrap();
            fs::copy(segment.path().unwrap(), target.join(segment.name())).unwrap();
            position = segment.lsns().end;
        }
        position
    });
    let mut appended = Vec::new();
    for i in 0..200u32 {
        let payload = vec![i.to_le_bytes()[0]; 700];
        appended.push((wal.append_and_sync(&payload).await.unwrap(), payload));
        if i % 50 == 49 && i < 150 {
            wal.truncate_before(appended[appended.len() - 40].0).await.unwrap();
        }
    }
    wal.close().await.unwrap();
    let end = archiving.await.unwrap();
    appended.retain(|(lsn, _)| *lsn < end);
    let copy = small().open(&archive).await.unwrap();
    let first = copy.watermarks().first;
    appended.retain(|(lsn, _)| *lsn >= first);
    assert!(appended.len() > 50);
    assert_eq!(records(&copy).await, appended);
}

#[tokio::test]
async fn copy_during_appends_holds_all_durable_records() {
    let parent = tempfile::tempdir().unwrap();
    let (path, backup) = (parent.path().join("log"), parent.path().join("a/backup"));
    let wal = small().open(&path).await.unwrap();
    fill(&wal, 4).await;
    let durable = records(&wal).await;
    let appender = {
        let wal = wal.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                wal.append_and_sync(vec![b'y'; 600]).await.unwrap();
            }
        })
    };
    let copied = wal.copy_to(&backup).await.unwrap();
    appender.await.unwrap();
    assert!(copied.linked_count >= 4 || cfg!(not(unix)), "{copied:?}");
    assert_eq!((copied.first, copied.copied_count), (Lsn::ZERO, 1));
    let sealed = |files: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
        let shared = files.iter().take(copied.linked_count);
        shared.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
    };
    let before = sealed(&files(&path));

    // Appends to the copy, reopens it and truncates it: no shared file may change.
    let copy = small().open(&backup).await.unwrap();
    let found = records(&copy).await;
    assert!(found.len() >= durable.len() && found[..durable.len()] == durable[..]);
    fill(&copy, 2).await;
    copy.close().await.unwrap();
    let copy = small().open(&backup).await.unwrap();
    let last = copy.append_and_sync("of the copy").await.unwrap();
    assert_eq!(sealed(&files(&path)), before, "a file of the log has changed");
    assert_eq!(sealed(&files(&backup)), before);

    // The same for the log. The copy is closed, because an open copy prepares its next segment.
    copy.close().await.unwrap();
    let of_copy = files(&backup);
    drop(wal);
    let wal = open_when_unlocked(&path).await;
    fill(&wal, 1).await;
    wal.close().await.unwrap();
    let wal = small().open(&path).await.unwrap();
    let kept = wal.append_and_sync("of the log").await.unwrap();
    assert_eq!(files(&backup), of_copy, "a file of the copy has changed");
    wal.truncate_before(kept).await.unwrap();
    wal.close().await.unwrap();
    assert_eq!(files(&backup), of_copy, "truncating the log changed the copy");
    let copy = small().open(&backup).await.unwrap();
    copy.truncate_before(last).await.unwrap();
    copy.close().await.unwrap();
}

async fn open_when_unlocked(path: &Path) -> Wal {
    support::open_when_free(|| FileStorage::create(path).unwrap()).await
}

/// A backup may be made of hard links: then the newest segment has two names, too.
#[cfg(unix)]
#[tokio::test]
async fn closed_log_with_hard_links_is_not_resumed_in_place() {
    let parent = tempfile::tempdir().unwrap();
    let (path, links) = (parent.path().join("log"), parent.path().join("links"));
    let wal = small().open(&path).await.unwrap();
    wal.append_and_sync("before").await.unwrap();
    wal.close().await.unwrap();
    fs::create_dir(&links).unwrap();
    for name in files(&path).keys() {
        fs::hard_link(path.join(name), links.join(name)).unwrap();
    }
    let linked = files(&links);
    let wal = small().open(&path).await.unwrap();
    assert!(wal.recovery().was_closed);
    wal.append_and_sync("after").await.unwrap();
    wal.close().await.unwrap();
    assert_eq!(files(&links), linked, "a linked file has changed");
    let wal = small().open(&path).await.unwrap();
    assert_eq!(records(&wal).await.len(), 2);
    let copy = small().open(&links).await.unwrap();
    assert!(copy.recovery().was_closed);
    assert_eq!(records(&copy).await.len(), 1);
}

#[tokio::test]
async fn copy_needs_empty_target_and_partial_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    let wal = small().open(&path).await.unwrap();
    // An empty log can be copied, too.
    wal.copy_to(parent.path().join("empty")).await.unwrap();
    let copy = small().open(parent.path().join("empty")).await.unwrap();
    assert!(!copy.recovery().is_new && records(&copy).await.is_empty());
    fill(&wal, 3).await;
    // Only the sealed segments: the next one is prepared in the background.
    let sealed = || files(&path).into_iter().take(3).collect::<Vec<_>>();
    let before = sealed();
    let refused = wal.copy_to(&path).await;
    assert!(
        matches!(refused, Err(Error::Locked { .. })),
        "a copy onto the log itself: {refused:?}"
    );
    let taken = parent.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("notes.txt"), "mine").unwrap();
    let refused = wal.copy_to(&taken).await;
    assert!(matches!(refused, Err(Error::NotEmpty { .. })), "{refused:?}");
    assert_eq!(files(&taken).len(), 1);
    // Drops the copy after each number of polls.
    for polls in 1..12 {
        let half = parent.path().join(format!("half-{polls}"));
        let mut copying = Box::pin(wal.copy_to(&half));
        let mut is_done = false;
        for _ in 0..polls {
            if let std::task::Poll::Ready(copied) = futures::poll!(copying.as_mut()) {
                copied.unwrap();
                is_done = true;
                break;
            }
            // Waits for the running job.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(copying);
        let has_begun = || half.exists() && !files(&half).is_empty();
        if is_done || !has_begun() {
            continue;
        }
        let opened = small().open(&half).await;
        let is_refused = matches!(opened, Err(Error::UnfinishedCopy { .. } | Error::Locked { .. }));
        assert!(is_refused || opened.is_ok_and(|half| half.watermarks().synced > Lsn::ZERO));
    }
    assert_eq!(wal.stats().lease_count, 0);
    assert!(sealed() == before, "a file of the log has changed");
    wal.close().await.unwrap();
    let closed = wal.copy_to(parent.path().join("late")).await;
    assert!(matches!(closed, Err(Error::Closed { .. })));
}

/// Without hard links every segment is copied.
#[tokio::test]
async fn copy_to_other_storage_copies_all_segments() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    fill(&wal, 2).await;
    let target = MemoryStorage::new();
    let copied = wal.copy_to_storage(target.clone()).await.unwrap();
    assert_eq!((copied.linked_count, copied.copied_count), (0, 3));
    assert!(!target.list().unwrap().contains(&"UNFINISHED-COPY".to_owned()));
    let copy = small().open_with(target).await.unwrap();
    assert_eq!(records(&copy).await, records(&wal).await);
}

const DEPTH: Depth = Depth { survivals: 2, recovery_one_in: 60 };

fn sweep_copies(seed: u64, running: Running, tally: &mut Tally) -> Result<(), String> {
    let script: Script = with_copies(random_script(seed), seed);
    let disk = Disk::new(seed).recording();
    let oracle = match running {
        Running::InPlace => contract::block_on(run(&script, &disk, seed, running)),
        Running::Simulated => Simulation::new(seed).run(run(&script, &disk, seed, running)),
    };
    sweep_record(&disk, &oracle, seed, DEPTH, tally)
}

#[test]
fn copies_survive_power_cuts_or_are_detected() {
    let mut tally = Tally::default();
    for seed in 0..2 {
        for running in [Running::InPlace, Running::Simulated] {
            sweep_copies(seed, running, &mut tally)
                .unwrap_or_else(|what| panic!("seed {seed}, {running:?}: {what}"));
        }
    }
    tally.assert_judged(1_300, 1_000);
}

#[test]
fn unmarked_unfinished_copy_is_caught() {
    let mut tally = Tally::default();
    let caught = sabotage::with(Sabotage::ForgetUnfinished, || {
        (0..4).find_map(|seed| sweep_copies(seed, Running::InPlace, &mut tally).err())
    });
    println!("{}", caught.unwrap_or_else(|| panic!("not caught by {tally}")));
}
