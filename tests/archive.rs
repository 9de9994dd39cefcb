//! Sealed segments as a stream, and copies of a log beside its appends: nothing is missed, nothing
//! is told twice, nothing that two logs share is written to, and half a copy is told apart.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and what it covered is said"
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

/// Fills `count` segments and a bit of the next.
async fn fill(wal: &Wal, count: u64) {
    let goal = wal.stats().rotation_count + count;
    while wal.stats().rotation_count < goal {
        wal.append_and_sync(vec![b'x'; 900]).await.unwrap();
    }
}

/// The files of a log, without its lock.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    files
        .filter(|(name, _)| name != "LOCK")
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .collect()
}

#[tokio::test]
async fn each_sealed_segment_is_told_once_those_of_the_past_and_those_to_come() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    let wal = small().open(&path).await.unwrap();
    fill(&wal, 3).await;
    let mut sealed = wal.sealed_segments(Lsn::ZERO);
    let mut got: Vec<SealedSegment> = Vec::new();
    while let Some(Some(segment)) = sealed.next().now_or_never() {
        got.push(segment.unwrap());
    }
    assert_eq!(got.len(), 3, "what is sealed already");
    fill(&wal, 2).await;
    for _ in 0..2 {
        got.push(within("one more", sealed.next()).await.unwrap().unwrap());
    }
    let mut position = Lsn::ZERO;
    for segment in &got {
        assert_eq!(segment.lsns().start, position, "no gap, no duplicate: {segment:?}");
        position = segment.lsns().end;
        let bytes = fs::read(segment.path().unwrap()).unwrap();
        let used = &bytes[..usize::try_from(segment.used_bytes()).unwrap()];
        assert_eq!(segment.checksum().await.unwrap(), crc32c::crc32c(used));
        assert!(bytes[used.len()..].iter().all(|&byte| byte == 0), "all that is used");
    }
    assert_eq!((sealed.position(), got[0].epoch()), (position, 1));
    assert!(position <= wal.watermarks().synced);
    // From within the third on.
    let third = got[2].lsns();
    let from = Lsn::new(third.start.as_u64() + 8);
    let later: Vec<_> = wal.sealed_segments(from).take(3).try_collect().await.unwrap();
    assert_eq!(later[0].lsns(), third);
    let end = wal.watermarks().reserved;
    let above = wal.sealed_segments(Lsn::new(end.as_u64() + (1 << 20))).next().await;
    assert!(matches!(above, Some(Err(Error::OutOfRange { .. }))));
    wal.close().await.unwrap();
    assert!(within("the end", sealed.next()).await.is_none(), "it ends cleanly");
    assert!(matches!(got[0].checksum().await, Err(Error::Closed { .. })));
}

/// In memory removals are done in place: what nothing holds is gone at once.
#[tokio::test]
async fn no_file_goes_before_it_was_told_and_none_while_it_is_held() {
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
    // The stream is past them: what is let go of goes, the oldest first.
    for (segment, name) in held.into_iter().zip(&names) {
        assert!(has(name));
        segment.checksum().await.unwrap();
        drop(segment);
        assert!(!has(name), "nothing holds it");
    }
    let refused = wal.sealed_segments(Lsn::ZERO).next().await;
    assert!(matches!(refused, Some(Err(Error::OutOfRange { .. }))), "{refused:?}");
    drop(sealed);
    assert_eq!(wal.stats().lease_count, 0);
    wal.close().await.unwrap();
}

/// Sealed, and its flush under way: not told before that is done.
#[tokio::test]
async fn no_segment_is_told_before_it_is_durable() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    wal.append_and_sync("first").await.unwrap();
    let mut sealed = wal.sealed_segments(Lsn::ZERO);
    let gate = faults.on(Op::Sync).file(|name| name.ends_with("1.wal")).gate();
    while wal.stats().rotation_count == 0 {
        wal.append(vec![b'x'; 900]).await.unwrap();
    }
    support::reached(&gate, 1).await;
    assert!(sealed.next().now_or_never().is_none(), "it may still be lost");
    gate.open();
    let segment = within("it is durable", sealed.next()).await.unwrap().unwrap();
    assert!(segment.lsns().end <= wal.watermarks().synced);
}

#[tokio::test]
async fn a_log_that_failed_says_why_and_an_abandoned_one_ends() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new())).await.unwrap();
    fill(&wal, 1).await;
    let mut sealed = wal.sealed_segments(Lsn::ZERO);
    faults.on(Op::Sync).fail(std::io::ErrorKind::Other);
    wal.append_and_sync("fails").await.unwrap_err();
    assert!(sealed.next().await.unwrap().is_ok(), "what was sealed before");
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

/// An archive of the files alone opens as the log that it is a prefix of.
#[tokio::test]
async fn an_archive_opens_as_a_log() {
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
        if i % 50 == 49 {
            wal.truncate_before(appended[appended.len() - 10].0).await.unwrap();
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
async fn a_copy_beside_appends_opens_with_all_that_was_durable_and_shares_no_write() {
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

    // The copy: opened, appended to, closed, opened again, truncated, and never a shared byte.
    let copy = small().open(&backup).await.unwrap();
    let found = records(&copy).await;
    assert!(found.len() >= durable.len() && found[..durable.len()] == durable[..]);
    fill(&copy, 2).await;
    copy.close().await.unwrap();
    let copy = small().open(&backup).await.unwrap();
    let last = copy.append_and_sync("of the copy").await.unwrap();
    assert_eq!(sealed(&files(&path)), before, "the log's files are as they were");
    assert_eq!(sealed(&files(&backup)), before);

    // The log: the same, unclosed and closed. (An open copy would prepare its next segment.)
    copy.close().await.unwrap();
    let of_copy = files(&backup);
    drop(wal);
    let wal = support_open(&path).await;
    fill(&wal, 1).await;
    wal.close().await.unwrap();
    let wal = small().open(&path).await.unwrap();
    let kept = wal.append_and_sync("of the log").await.unwrap();
    assert_eq!(files(&backup), of_copy, "the copy's files are as they were");
    wal.truncate_before(kept).await.unwrap();
    wal.close().await.unwrap();
    assert_eq!(files(&backup), of_copy, "removed there, not here");
    let copy = small().open(&backup).await.unwrap();
    copy.truncate_before(last).await.unwrap();
    copy.close().await.unwrap();
}

async fn support_open(path: &Path) -> Wal {
    support::open_when_free(|| FileStorage::create(path).unwrap()).await
}

/// As a backup that is made of hard links by other means: the closed log's newest segment too.
#[cfg(unix)]
#[tokio::test]
async fn a_closed_log_whose_files_have_other_names_is_not_gone_on_with_in_place() {
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
    assert_eq!(files(&links), linked, "the other names show what they showed");
    let wal = small().open(&path).await.unwrap();
    assert_eq!(records(&wal).await.len(), 2);
    let copy = small().open(&links).await.unwrap();
    assert!(copy.recovery().was_closed);
    assert_eq!(records(&copy).await.len(), 1);
}

#[tokio::test]
async fn a_copy_goes_to_an_empty_place_only_and_half_of_one_is_no_log() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    let wal = small().open(&path).await.unwrap();
    // An empty log too.
    wal.copy_to(parent.path().join("empty")).await.unwrap();
    let copy = small().open(parent.path().join("empty")).await.unwrap();
    assert!(!copy.recovery().is_new && records(&copy).await.is_empty());
    fill(&wal, 3).await;
    // Those that are sealed: the next is prepared in the background.
    let sealed = || files(&path).into_iter().take(3).collect::<Vec<_>>();
    let before = sealed();
    let refused = wal.copy_to(&path).await;
    assert!(matches!(refused, Err(Error::Locked { .. })), "onto itself: {refused:?}");
    let taken = parent.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("notes.txt"), "mine").unwrap();
    let refused = wal.copy_to(&taken).await;
    assert!(matches!(refused, Err(Error::NotEmpty { .. })), "{refused:?}");
    assert_eq!(files(&taken).len(), 1);
    // Dropped at any step.
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
            // What is under way ends before the next look.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(copying);
        let has_begun = || half.exists() && !files(&half).is_empty();
        if is_done || !has_begun() {
            continue;
        }
        let opened = small().open(&half).await;
        let is_told = matches!(opened, Err(Error::UnfinishedCopy { .. } | Error::Locked { .. }));
        assert!(is_told || opened.is_ok_and(|half| half.watermarks().synced > Lsn::ZERO));
    }
    assert_eq!(wal.stats().lease_count, 0);
    assert!(sealed() == before, "the log's files are as they were");
    wal.close().await.unwrap();
    let closed = wal.copy_to(parent.path().join("late")).await;
    assert!(matches!(closed, Err(Error::Closed { .. })));
}

/// Where nothing can be linked, all is copied.
#[tokio::test]
async fn a_copy_to_another_storage_is_a_copy() {
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
fn copies_survive_a_power_cut_after_every_operation_or_are_told_apart() {
    let mut tally = Tally::default();
    for seed in 0..2 {
        for running in [Running::InPlace, Running::Simulated] {
            sweep_copies(seed, running, &mut tally)
                .unwrap_or_else(|what| panic!("seed {seed}, {running:?}: {what}"));
        }
    }
    println!("{tally}");
}

#[test]
fn an_unfinished_copy_that_is_not_marked_is_caught() {
    let mut tally = Tally::default();
    let caught = sabotage::with(Sabotage::ForgetUnfinished, || {
        (0..4).find_map(|seed| sweep_copies(seed, Running::InPlace, &mut tally).err())
    });
    println!("{}", caught.unwrap_or_else(|| panic!("not caught by {tally}")));
}
