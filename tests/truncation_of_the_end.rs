//! The end of the log moves back: nothing of what was dropped returns, nobody is told of it as if it
//! were there, and what is appended behind the cut is never mistaken for it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and what was measured is said"
)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, TryStreamExt};
use highwater::{
    Error, Lsn, Options, Wal,
    sabotage::{self, Sabotage},
    simulation::{Disk, Faults, Op, Survival},
    storage::MemoryStorage,
};
use support::{records, small, within};

fn tiny() -> Options {
    Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10)
}

async fn filled(wal: &Wal, count: u64) -> Vec<Lsn> {
    let mut lsns = Vec::new();
    for i in 0..count {
        lsns.push(wal.append(&i.to_le_bytes().repeat(12)).await.unwrap());
    }
    wal.sync().await.unwrap();
    lsns
}

fn is_truncated<T>(answer: &Result<T, Error>, to: Lsn) -> bool {
    matches!(answer, Err(Error::Truncated { to: told }) if *told == to)
}

#[tokio::test]
async fn the_next_record_stands_behind_the_cut_also_after_every_kind_of_reopening() {
    for how in ["closed", "dropped", "power cut", "closed twice"] {
        for kept in [0, 1, 77, 150, 198] {
            let disk = Disk::new(1);
            let wal = tiny().open_with(disk.clone()).await.unwrap();
            let lsns = filled(&wal, 200).await;
            let mut expected = records(&wal).await[..=kept].to_vec();
            let end = wal.truncate_after(lsns[kept]).await.unwrap();
            assert_eq!(end, lsns[kept + 1]);
            let marks = wal.watermarks();
            assert_eq!((marks.synced, marks.written, marks.reserved), (end, end, end));
            assert_eq!(records(&wal).await, expected, "{how}, {kept} kept");
            if how == "power cut" {
                // At once: the cut is durable when it is answered.
                let again = tiny().open_with(disk.crash(Survival::Nothing)).await.unwrap();
                assert_eq!(records(&again).await, expected, "{kept} kept");
                assert!(again.recovery().cut.is_none(), "{}", again.recovery());
            }
            assert_eq!(wal.append_and_sync(b"instead").await.unwrap(), end);
            expected.push((end, b"instead".to_vec()));
            if how.starts_with("closed") {
                wal.close().await.unwrap();
            }
            drop(wal);
            let disk = if how == "power cut" { disk.crash(Survival::Nothing) } else { disk };
            let wal = tiny().open_with(disk.clone()).await.unwrap();
            assert_eq!(wal.recovery().was_closed, how.starts_with("closed"));
            assert_eq!(records(&wal).await, expected, "{how}: {}", wal.recovery());
            if how == "closed twice" {
                wal.close().await.unwrap();
                let wal = tiny().open_with(disk).await.unwrap();
                assert_eq!(records(&wal).await, expected, "{}", wal.recovery());
            }
        }
    }
}

#[tokio::test]
async fn none_drops_all_and_the_log_goes_on_where_it_began() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    assert_eq!(wal.truncate_after(None).await.unwrap(), Lsn::ZERO, "an empty log");
    let lsns = filled(&wal, 100).await;
    wal.truncate_before(lsns[60]).await.unwrap();
    assert_eq!(wal.truncate_after(None).await.unwrap(), lsns[60]);
    assert!(records(&wal).await.is_empty());
    assert_eq!(wal.append_and_sync(b"new").await.unwrap(), lsns[60]);
    drop(wal);
    let wal = tiny().open_with(disk.crash(Survival::Nothing)).await.unwrap();
    assert_eq!(records(&wal).await, [(lsns[60], b"new".to_vec())]);
}

#[tokio::test]
async fn what_is_no_record_of_the_log_changes_nothing() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let first = wal.append(&[1; 40]).await.unwrap();
    let batch = wal.append_batch([&[2; 40], &[3; 40]]).await.unwrap();
    let last = wal.append(&[4; 40]).await.unwrap();
    wal.sync().await.unwrap();
    let expected = records(&wal).await;
    let end = wal.watermarks().reserved;
    for lsn in [end, Lsn::new(1 << 40)] {
        let refused = wal.truncate_after(lsn).await;
        assert!(matches!(refused, Err(Error::OutOfRange { .. })), "{refused:?}");
    }
    let within_a_batch = batch.start;
    for lsn in [Lsn::new(first.as_u64() + 8), Lsn::new(first.as_u64() + 4), within_a_batch] {
        let refused = wal.truncate_after(lsn).await;
        assert!(matches!(refused, Err(Error::NotABoundary { .. })), "{lsn}: {refused:?}");
    }
    assert_eq!(wal.truncate_after(last).await.unwrap(), end, "nothing stands behind it");
    assert_eq!(records(&wal).await, expected);
    wal.truncate_before(batch.start).await.unwrap();
    let below = wal.truncate_after(first).await;
    assert!(matches!(below, Err(Error::OutOfRange { .. })), "{below:?}");
    let end_of_batch = Lsn::new(batch.end.as_u64() - 56);
    assert_eq!(wal.truncate_after(end_of_batch).await.unwrap(), batch.end);
    assert_eq!(records(&wal).await, expected[1..3]);
}

#[tokio::test]
async fn no_ticket_is_answered_by_what_came_later() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let kept = wal.enqueue(b"kept").await.unwrap();
    let cut = wal.enqueue(b"cut").await.unwrap();
    let far = wal.wait_synced(Lsn::new(1 << 20));
    let mut sink = wal.sink();
    sink.feed(Bytes::from_static(b"cut too")).await.unwrap();
    let end = wal.truncate_after(kept.lsn()).await.unwrap();
    assert_eq!(end, cut.lsn());
    // Grown past it again, and synced.
    for _ in 0..10 {
        wal.append_and_sync(b"instead").await.unwrap();
    }
    kept.synced().await.unwrap();
    for answer in [cut.written().await, cut.synced().await, sink.flush().await] {
        assert!(is_truncated(&answer, end), "{answer:?}");
    }
    // Said once: what it is sent from now on stands.
    sink.send(Bytes::from_static(b"stands")).await.unwrap();
    assert!(far.now_or_never().is_none(), "one that was never polled began after the cut");
    assert_eq!(wal.read(end).await.unwrap().payload, "instead");
}

#[tokio::test]
async fn those_who_wait_are_told() {
    let faults = Faults::new();
    let storage = faults.over(MemoryStorage::new()).on_pool();
    let wal = small().open_with(storage).await.unwrap();
    let kept = wal.append_and_sync(b"kept").await.unwrap();
    let gate = faults.on(Op::Sync).once().gate();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let wal = wal.clone();
            tokio::spawn(async move { wal.append_and_sync(b"cut").await })
        })
        .collect();
    gate.reached(1).await;
    let later = tokio::spawn({
        let wal = wal.clone();
        async move { wal.wait_synced(Lsn::new(1 << 30)).await }
    });
    while wal.watermarks().reserved < Lsn::new(96) {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    // The flush that would cover them is still under way, and ends after the cut.
    let end = within("truncate_after", wal.truncate_after(kept)).await.unwrap();
    for waiting in waiting {
        let answer = within("append", waiting).await.unwrap();
        assert!(is_truncated(&answer, end), "{answer:?}");
    }
    let answer = within("wait", later).await.unwrap();
    assert!(is_truncated(&answer, end), "{answer:?}");
    gate.open();
    let again = wal.append_and_sync(b"instead").await.unwrap();
    // Perhaps a mark stands between.
    assert!(again >= end);
    assert_eq!(records(&wal).await, [(kept, b"kept".to_vec()), (again, b"instead".to_vec())]);
    assert_eq!(wal.watermarks().synced, wal.watermarks().reserved);
}

#[tokio::test]
async fn a_follower_learns_that_what_it_yielded_is_gone_and_one_that_did_not_never_does() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let lsns = filled(&wal, 50).await;
    let mut ahead = wal.follow(Lsn::ZERO);
    let mut behind = wal.follow(Lsn::ZERO);
    for lsn in &lsns {
        assert_eq!(ahead.next().await.unwrap().unwrap().lsn, *lsn);
    }
    for lsn in &lsns[..10] {
        assert_eq!(behind.next().await.unwrap().unwrap().lsn, *lsn);
    }
    assert!(ahead.next().now_or_never().is_none());
    let mut replay = wal.replay(lsns[20]..);
    let mut whole = wal.replay(..lsns[30]);
    wal.truncate_after(lsns[40]).await.unwrap();
    wal.truncate_after(lsns[29]).await.unwrap();
    let end = lsns[30];
    wal.append_and_sync(b"instead").await.unwrap();
    let told = ahead.next().await.unwrap();
    assert!(is_truncated(&told, end), "{told:?}");
    assert_eq!(ahead.position(), end);
    let next = ahead.next().await.unwrap().unwrap();
    assert_eq!((next.lsn, next.payload), (end, Bytes::from_static(b"instead")));
    for lsn in &lsns[10..=30] {
        assert_eq!(behind.next().await.unwrap().unwrap().lsn, *lsn);
    }
    for lsn in &lsns[20..30] {
        assert_eq!(replay.next().await.unwrap().unwrap().lsn, *lsn);
    }
    let told = replay.next().await.unwrap();
    assert!(is_truncated(&told, end), "{told:?}");
    assert!(replay.next().await.is_none());
    let mut count = 0;
    while let Some(record) = whole.next().await {
        record.unwrap();
        count += 1;
    }
    assert_eq!(count, 30, "what is below the cut is read as if nothing had happened");
    wal.close().await.unwrap();
    assert!(ahead.next().await.is_none() && behind.next().await.is_none());
}

#[tokio::test]
async fn a_follower_from_beyond_the_cut_is_told_before_anything_else() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let lsns = filled(&wal, 10).await;
    let mut follower = wal.follow(wal.watermarks().reserved);
    assert!(follower.next().now_or_never().is_none());
    let end = wal.truncate_after(lsns[4]).await.unwrap();
    let told = follower.next().await.unwrap();
    assert!(is_truncated(&told, end), "{told:?}");
    wal.append_and_sync(b"instead").await.unwrap();
    assert_eq!(follower.next().await.unwrap().unwrap().lsn, end);
}

#[tokio::test]
async fn the_files_of_what_was_dropped_go_and_none_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let wal = small().open(directory.path()).await.unwrap();
    let lsns = filled(&wal, 2000).await;
    let before = wal.stats().segment_count;
    assert!(before > 10);
    wal.truncate_after(lsns[10]).await.unwrap();
    assert_eq!(wal.stats().segment_count, 2);
    wal.close().await.unwrap();
    drop(wal);
    // Those that were left are removed now, or have been: none is kept as one that was cut.
    let wal = small().open(directory.path()).await.unwrap();
    let names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "LOCK")
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(records(&wal).await.len(), 11);
}

#[tokio::test]
async fn without_space_nothing_is_changed() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let mut lsns = filled(&wal, 3).await;
    disk.faults().on(Op::Resize).fail_os(28);
    disk.faults().on(Op::Create).fail_os(28);
    let refused = wal.truncate_after(lsns[0]).await;
    assert!(matches!(refused, Err(Error::NoSpace { .. })), "{refused:?}");
    assert_eq!(records(&wal).await.len(), 3);
    lsns.push(wal.append_and_sync(b"goes on").await.unwrap());
    disk.faults().heal();
    let end = wal.truncate_after(lsns[0]).await.unwrap();
    assert_eq!((end, records(&wal).await.len()), (lsns[1], 1));
}

#[tokio::test]
async fn a_header_that_is_not_synced_poisons_and_leaves_one_state_or_the_other() {
    for survival in [Survival::Nothing, Survival::Everything] {
        let disk = Disk::new(1);
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let lsns = filled(&wal, 20).await;
        let expected = records(&wal).await;
        wal.truncate_before(lsns[1]).await.unwrap();
        disk.faults().on(Op::Sync).file(|name| name.starts_with("00000000000000000002")).fail_os(5);
        let failed = wal.truncate_after(lsns[9]).await;
        assert!(matches!(failed, Err(Error::Poisoned { .. })), "{failed:?}");
        assert!(wal.append(b"x").await.is_err());
        let again = tiny().open_with(disk.crash(survival)).await.unwrap();
        let found = records(&again).await;
        assert!(found == expected[1..] || found == expected[1..10], "{}", again.recovery());
    }
}

/// Dropped at each of its polls: as it was, or truncated.
#[tokio::test]
async fn a_dropped_truncation_leaves_the_log_as_it_was_or_truncated() {
    let mut ends = Vec::new();
    for polls in 1..30 {
        let wal = small().open_with(MemoryStorage::new()).await.unwrap();
        let lsns = filled(&wal, 20).await;
        {
            let mut truncation = Box::pin(wal.truncate_after(lsns[9]));
            for _ in 0..polls {
                if futures::poll!(truncation.as_mut()).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // Behind whatever goes on by itself.
        let lsn = within("append", wal.append_and_sync(b"next")).await.unwrap();
        let count = records(&wal).await.len();
        assert!((lsn == lsns[10] && count == 11) || (lsn > lsns[19] && count == 21), "{count}");
        ends.push(count);
    }
    assert!(ends.contains(&11));
}

/// What the peers can't: 64 appenders, 8 replays, 4 followers, and both ends move all the time.
#[test]
fn both_ends_move_beside_appenders_replays_and_followers() {
    for seed in 0..if cfg!(debug_assertions) { 3 } else { 20 } {
        for workers in [1, 3] {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(workers)
                .enable_time()
                .build()
                .unwrap();
            let storage = MemoryStorage::new();
            runtime.block_on(within("both ends", both_ends_move(storage, seed)));
        }
    }
}

/// Payloads tell who appended them and in which order; what a reader sees of one appender is in that
/// order but for what a truncation took back, of which a follower is told.
async fn both_ends_move(storage: MemoryStorage, seed: u64) {
    let wal = tiny().open_with(storage.clone()).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let appenders: Vec<_> =
        (0..64).map(|task| tokio::spawn(append(wal.clone(), task, Arc::clone(&is_over)))).collect();
    let followers: Vec<_> = (0..4).map(|_| tokio::spawn(follow(wal.clone()))).collect();
    let replays: Vec<_> = (0..8)
        .map(|_| {
            let (wal, is_over) = (wal.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let mut last = None;
                    let mut replay = wal.replay(wal.watermarks().first..);
                    while let Some(item) = replay.next().await {
                        match item {
                            Ok(record) => {
                                assert!(last < Some(record.lsn), "in order");
                                assert_eq!(record.payload.len() % 16, 0, "whole");
                                last = Some(record.lsn);
                            }
                            Err(Error::Truncated { .. } | Error::OutOfRange { .. }) => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let truncated = {
        let (wal, is_over) = (wal.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut random = highwater::simulation::Random::new(seed);
            let mut counts = [0, 0];
            while counts[0] < 8 || counts[1] < 8 {
                let marks = wal.watermarks();
                let there: Vec<_> =
                    wal.replay(marks.first..).take(200).try_collect().await.unwrap_or_default();
                if let Some(picked) = there.get(random.below(there.len().max(1))) {
                    let end = usize::from(random.one_in(3));
                    let answer = match end {
                        0 => wal.truncate_before(picked.lsn).await,
                        _ => wal.truncate_after(picked.lsn).await.map(drop),
                    };
                    match answer {
                        Ok(()) => counts[end] += 1,
                        Err(
                            Error::Truncated { .. }
                            | Error::OutOfRange { .. }
                            | Error::NotABoundary { .. },
                        ) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                tokio::task::yield_now().await;
            }
            is_over.store(true, Ordering::Relaxed);
        })
    };
    truncated.await.unwrap();
    let mut standing = 0;
    for appender in appenders {
        standing += appender.await.unwrap();
    }
    for replay in replays {
        replay.await.unwrap();
    }
    assert!(standing > 0);
    let expected = records(&wal).await;
    wal.close().await.unwrap();
    for follower in followers {
        let (seen, first) = follower.await.unwrap();
        let seen: Vec<_> = seen.into_iter().filter(|(lsn, _)| *lsn >= first).collect();
        let there: Vec<_> = expected.iter().filter(|(lsn, _)| *lsn >= first).cloned().collect();
        let from = seen.len().saturating_sub(there.len());
        assert_eq!(seen[from..], there, "what it has seen, less what was taken back, is the log");
    }
    drop(wal);
    let wal = tiny().open_with(storage).await.unwrap();
    assert_eq!(records(&wal).await, expected);
}

/// How many of its records were acknowledged as synced.
async fn append(wal: Wal, task: u64, is_over: Arc<AtomicBool>) -> u64 {
    let mut count = 0;
    for i in 0u64.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        // In memory nothing ever waits.
        tokio::task::yield_now().await;
        let mut payload = [task.to_le_bytes(), i.to_le_bytes()].concat();
        payload.resize(16 * (1 + usize::try_from((task + i) % 12).unwrap()), 7);
        match wal.append_and_sync(&payload).await {
            Ok(_) => count += 1,
            Err(Error::Truncated { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    count
}

/// All that it saw and wasn't taken back, and from where on it saw all.
async fn follow(wal: Wal) -> (Vec<(Lsn, Vec<u8>)>, Lsn) {
    let mut seen: Vec<(Lsn, Vec<u8>)> = Vec::new();
    let mut first = Lsn::ZERO;
    let mut follower = wal.follow(first);
    drop(wal.clone());
    let core = wal;
    loop {
        match follower.next().await {
            Some(Ok(record)) => {
                assert!(seen.last().is_none_or(|(lsn, _)| *lsn < record.lsn), "no duplicate");
                seen.push((record.lsn, record.payload.to_vec()));
            }
            Some(Err(Error::Truncated { to })) => {
                let still = seen.partition_point(|(lsn, _)| *lsn < to);
                assert!(still < seen.len() || follower.position() == to, "for nothing");
                seen.truncate(still);
            }
            Some(Err(Error::OutOfRange { .. })) => {
                // Left behind by a truncation of the beginning: goes on there.
                first = core.watermarks().first;
                seen.clear();
                follower = core.follow(first);
            }
            Some(Err(error)) => panic!("{error}"),
            None => return (seen, first),
        }
    }
}

/// Told, not judged: how long an append waits while the end of a large log is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_segments_go_and_no_append_waits_for_that() {
    let directory = tempfile::tempdir().unwrap();
    let wal = Wal::options().segment_bytes(64 << 10).ring_bytes(16 << 10);
    let wal = wal.open(directory.path()).await.unwrap();
    let kept = wal.append(&[1; 1000]).await.unwrap();
    while wal.stats().segment_count < 1000 {
        let payloads: Vec<_> = (0..10).map(|_| vec![1; 1000]).collect();
        wal.append_batch(payloads).await.unwrap();
    }
    wal.sync().await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let appender = tokio::spawn({
        let (wal, is_over) = (wal.clone(), Arc::clone(&is_over));
        async move {
            let mut longest = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                match wal.append(&[2; 100]).await {
                    Ok(_) | Err(Error::Truncated { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                longest = longest.max(began.elapsed());
                tokio::task::yield_now().await;
            }
            longest
        }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let began = Instant::now();
    wal.truncate_after(kept).await.unwrap();
    let answered = began.elapsed();
    while wal.stats().removed_count < 990 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let removed = began.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let longest = appender.await.unwrap();
    println!("answered {answered:?}, removed {removed:?}, longest append {longest:?}");
}

/// The negative control of `no_ticket_is_answered_by_what_came_later`.
#[tokio::test]
async fn a_log_that_forgets_its_cuts_would_answer_by_what_came_later() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let kept = wal.append(b"kept").await.unwrap();
    let cut = wal.enqueue(b"cut").await.unwrap();
    wal.truncate_after(kept).await.unwrap();
    for _ in 0..10 {
        wal.append_and_sync(b"instead").await.unwrap();
    }
    let forgetful = sabotage::with(Sabotage::ForgetCuts, || cut.synced().now_or_never());
    assert!(matches!(forgetful, Some(Ok(()))), "{forgetful:?}");
    assert!(cut.synced().await.is_err());
}

/// What is archived goes on behind the cut, with the epoch that says so.
#[tokio::test]
async fn sealed_segments_behind_a_cut_are_told_too() {
    let wal = tiny().open_with(MemoryStorage::new()).await.unwrap();
    let lsns = filled(&wal, 400).await;
    let mut sealed = wal.sealed_segments(Lsn::ZERO);
    let mut before = Vec::new();
    while let Some(item) = sealed.next().now_or_never() {
        before.push(item.unwrap().unwrap());
    }
    let first_end = before[0].lsns().end;
    assert!(before.len() > 3, "{before:?}");
    // Within the second of them.
    let kept = lsns.partition_point(|lsn| *lsn < first_end) + 5;
    let end = wal.truncate_after(lsns[kept]).await.unwrap();
    filled(&wal, 300).await;
    let mut at = end;
    let mut count = 0;
    while let Some(item) = sealed.next().now_or_never() {
        let item = item.unwrap().unwrap();
        assert_eq!(item.lsns().start, at, "no gap and no duplicate");
        assert!(item.epoch() > before[0].epoch());
        at = item.lsns().end;
        count += 1;
    }
    assert!(count > 2 && at == sealed.position(), "{count}");
    let copy = MemoryStorage::new();
    let copied = wal.copy_to_storage(copy.clone()).await.unwrap();
    assert_eq!(copied.end, wal.watermarks().synced);
    let expected = records(&wal).await;
    assert_eq!(records(&tiny().open_with(copy).await.unwrap()).await, expected);
}

/// Those who wait in vain leave no wish behind: plain appends are synced when somebody asks for it.
#[tokio::test]
async fn a_ticket_of_what_was_cut_has_nothing_synced() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let kept = wal.append_and_sync(b"kept").await.unwrap();
    let mut tickets = Vec::new();
    for _ in 0..100 {
        tickets.push(wal.enqueue(&[1; 100]).await.unwrap());
    }
    wal.sync().await.unwrap();
    wal.truncate_after(kept).await.unwrap();
    assert!(tickets[99].synced().await.is_err());
    let before = wal.stats().sync_count;
    for _ in 0..20 {
        wal.append(b"plain").await.unwrap();
    }
    assert_eq!(wal.stats().sync_count, before);
}

/// What was acknowledged behind a cut is not given up for what the cut had taken, when the header that
/// tells of the cut can't be read.
#[tokio::test]
async fn a_cut_whose_header_is_damaged_is_no_torn_tail() {
    for closes in [true, false] {
        let disk = Disk::new(1);
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let lsns = filled(&wal, 20).await;
        wal.truncate_after(lsns[4]).await.unwrap();
        for _ in 0..10 {
            wal.append_and_sync(&[7; 40]).await.unwrap();
        }
        if closes {
            wal.close().await.unwrap();
        }
        drop(wal);
        let mut image = disk.image();
        let names = image.names().into_iter().filter(|name| name.ends_with(".wal"));
        let used = |name: &String| image.bytes(name).unwrap()[4096..].iter().any(|&byte| byte != 0);
        let newest = names.filter(used).max().unwrap();
        let mut bytes = image.bytes(&newest).unwrap().to_vec();
        bytes[..4096].fill(0xaa);
        image.put(&newest, bytes);
        let refused = tiny().open_with(Disk::with_image(image, 1)).await;
        let Err(Error::Corrupt { lsn, segment, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!((lsn, segment), (lsns[5], newest));
    }
}
