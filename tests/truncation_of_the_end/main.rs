//! `truncate_after`: dropped records never reappear, their waiters and readers get `Truncated`,
//! and records appended later at the same positions are never mistaken for them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and the measurements are printed"
)]

mod stress;
#[path = "../support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt};
use highwater::{
    Error, Lsn, Wal,
    sabotage::{self, Sabotage},
    simulation::{Disk, Faults, Op, Survival},
    storage::MemoryStorage,
};
use support::{filled, records, small, tiny, within};

fn is_truncated<T>(result: &Result<T, Error>, to: Lsn) -> bool {
    matches!(result, Err(Error::Truncated { to: lsn }) if *lsn == to)
}

#[tokio::test]
async fn append_continues_at_cut_after_each_reopen() {
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
                // Right after the call: the truncation is durable when it returns.
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

/// Only control records follow the last record: of a slot, of the beginning, of a close. They stay,
/// and no segment and no epoch begins.
#[tokio::test]
async fn truncation_that_drops_no_record_changes_nothing() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let slot = wal.slot("s").await.unwrap();
    let lsns = filled(&wal, 10).await;
    slot.advance_and_sync(lsns[5]).await.unwrap();
    assert_eq!(wal.truncate_before(lsns[5]).await.unwrap(), lsns[5]);
    drop(slot);
    wal.close().await.unwrap();
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let slot = wal.slot("s").await.unwrap();
    slot.advance_and_sync(lsns[7]).await.unwrap();
    let end = wal.read(lsns[9]).await.unwrap().end;
    let (names, reserved) = (disk.image().names(), wal.watermarks().reserved);
    assert!(reserved > end);
    assert_eq!(wal.truncate_after(lsns[9]).await.unwrap(), end);
    assert_eq!(disk.image().names(), names);
    assert!(wal.watermarks().reserved >= reserved);
    assert_eq!(slot.position(), lsns[7]);
    // All records are dropped, and then none is left to be dropped.
    wal.truncate_after(None).await.unwrap();
    let (emptied, reserved) = (disk.image().names(), wal.watermarks().reserved);
    assert_ne!(emptied, names);
    wal.truncate_after(None).await.unwrap();
    assert_eq!((disk.image().names(), records(&wal).await), (emptied, vec![]));
    assert!(wal.watermarks().reserved >= reserved);
}

#[tokio::test]
async fn truncate_after_none_empties_log() {
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
async fn truncate_after_invalid_position_changes_nothing() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let first = wal.append(&[1; 40]).await.unwrap();
    let batch = wal.append_batch([&[2; 40], &[3; 40]]).await.unwrap();
    let last = wal.append(&[4; 40]).await.unwrap();
    wal.sync().await.unwrap();
    let expected = records(&wal).await;
    let end = wal.watermarks().reserved;
    for lsn in [end, Lsn::new(1 << 40)] {
        let refused = wal.truncate_after(lsn).await;
        assert!(matches!(refused, Err(Error::AboveEnd { .. })), "{refused:?}");
    }
    let within_a_batch = batch.start;
    for lsn in [Lsn::new(first.as_u64() + 8), Lsn::new(first.as_u64() + 4), within_a_batch] {
        let refused = wal.truncate_after(lsn).await;
        assert!(matches!(refused, Err(Error::NotABoundary { .. })), "{lsn}: {refused:?}");
    }
    assert_eq!(wal.truncate_after(last).await.unwrap(), end, "no record follows it");
    assert_eq!(records(&wal).await, expected);
    wal.truncate_before(batch.start).await.unwrap();
    let below = wal.truncate_after(first).await;
    assert!(matches!(below, Err(Error::BelowFirst { .. })), "{below:?}");
    let end_of_batch = Lsn::new(batch.end.as_u64() - 56);
    assert_eq!(wal.truncate_after(end_of_batch).await.unwrap(), batch.end);
    assert_eq!(records(&wal).await, expected[1..3]);
}

#[tokio::test]
async fn later_record_does_not_complete_truncated_ticket() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let kept = wal.enqueue(b"kept").await.unwrap();
    let cut = wal.enqueue(b"cut").await.unwrap();
    let far = wal.wait_synced(Lsn::new(1 << 20));
    let mut sink = wal.sink();
    sink.feed(Bytes::from_static(b"cut too")).await.unwrap();
    let end = wal.truncate_after(kept.lsn()).await.unwrap();
    assert_eq!(end, cut.lsn());
    // The log has grown past the old end again and is synced.
    for _ in 0..10 {
        wal.append_and_sync(b"instead").await.unwrap();
    }
    kept.synced().await.unwrap();
    for result in [cut.written().await, cut.synced().await, sink.flush().await] {
        assert!(is_truncated(&result, end), "{result:?}");
    }
    // The sink returns the error once; later records are accepted.
    sink.send(Bytes::from_static(b"later")).await.unwrap();
    assert!(
        far.now_or_never().is_none(),
        "a wait starts at its first poll, here after the truncation"
    );
    assert_eq!(wal.read(end).await.unwrap().payload, "instead");
}

#[tokio::test]
async fn waiters_for_truncated_records_get_error() {
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
    // The flush that covers these records is still running; it ends after the truncation.
    let end = within("truncate_after", wal.truncate_after(kept)).await.unwrap();
    for waiting in waiting {
        let result = within("append", waiting).await.unwrap();
        assert!(is_truncated(&result, end), "{result:?}");
    }
    let result = within("wait", later).await.unwrap();
    assert!(is_truncated(&result, end), "{result:?}");
    gate.open();
    let again = wal.append_and_sync(b"instead").await.unwrap();
    // A mark frame may lie between.
    assert!(again >= end);
    assert_eq!(records(&wal).await, [(kept, b"kept".to_vec()), (again, b"instead".to_vec())]);
    assert_eq!(wal.watermarks().synced, wal.watermarks().reserved);
}

#[tokio::test]
async fn only_follower_past_the_cut_gets_truncated() {
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
    let result = ahead.next().await.unwrap();
    assert!(is_truncated(&result, end), "{result:?}");
    assert_eq!(ahead.position(), end);
    let next = ahead.next().await.unwrap().unwrap();
    assert_eq!((next.lsn, next.payload), (end, Bytes::from_static(b"instead")));
    for lsn in &lsns[10..=30] {
        assert_eq!(behind.next().await.unwrap().unwrap().lsn, *lsn);
    }
    for lsn in &lsns[20..30] {
        assert_eq!(replay.next().await.unwrap().unwrap().lsn, *lsn);
    }
    let result = replay.next().await.unwrap();
    assert!(is_truncated(&result, end), "{result:?}");
    assert!(replay.next().await.is_none());
    let mut count = 0;
    while let Some(record) = whole.next().await {
        record.unwrap();
        count += 1;
    }
    assert_eq!(count, 30, "records below the cut are still read");
    wal.close().await.unwrap();
    assert!(ahead.next().await.is_none() && behind.next().await.is_none());
}

#[tokio::test]
async fn follower_starting_beyond_cut_gets_truncated_first() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let lsns = filled(&wal, 10).await;
    let mut follower = wal.follow(wal.watermarks().reserved);
    assert!(follower.next().now_or_never().is_none());
    let end = wal.truncate_after(lsns[4]).await.unwrap();
    let result = follower.next().await.unwrap();
    assert!(is_truncated(&result, end), "{result:?}");
    wal.append_and_sync(b"instead").await.unwrap();
    assert_eq!(follower.next().await.unwrap().unwrap().lsn, end);
}

#[tokio::test]
async fn truncated_segments_are_removed_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let wal = small().open(directory.path()).await.unwrap();
    let lsns = filled(&wal, 2000).await;
    let before = wal.stats().segment_count;
    assert!(before > 10);
    wal.truncate_after(lsns[10]).await.unwrap();
    assert_eq!(wal.stats().segment_count, 2);
    wal.close().await.unwrap();
    drop(wal);
    // Opening removes the dropped files that are left, and keeps none as cut files.
    let wal = small().open(directory.path()).await.unwrap();
    let names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "LOCK" && name != "LAST-CLOSE")
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(records(&wal).await.len(), 11);
}

#[tokio::test]
async fn full_disk_fails_truncation_unchanged() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let mut lsns = filled(&wal, 3).await;
    disk.faults().on(Op::Resize).fail_os(28);
    disk.faults().on(Op::Create).fail_os(28);
    let refused = wal.truncate_after(lsns[0]).await;
    assert!(matches!(refused, Err(Error::NoSpace { .. })), "{refused:?}");
    assert_eq!(records(&wal).await.len(), 3);
    lsns.push(wal.append_and_sync(b"still works").await.unwrap());
    disk.faults().heal();
    let end = wal.truncate_after(lsns[0]).await.unwrap();
    assert_eq!((end, records(&wal).await.len()), (lsns[1], 1));
}

#[tokio::test]
async fn failed_header_sync_poisons_with_old_or_new_end() {
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

/// Drops the call after each number of polls.
#[tokio::test]
async fn dropped_truncate_after_is_complete_or_absent() {
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
        // This append waits for the truncation, whose job continues without the future.
        let lsn = within("append", wal.append_and_sync(b"next")).await.unwrap();
        let count = records(&wal).await.len();
        assert!((lsn == lsns[10] && count == 11) || (lsn > lsns[19] && count == 21), "{count}");
        ends.push(count);
    }
    assert!(ends.contains(&11));
}

/// Prints, without a limit, the longest append while 1,000 segments are dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncating_1000_segments_measures_appends() {
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
    let returned = began.elapsed();
    while wal.stats().removed_count < 990 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let removed = began.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let longest = appender.await.unwrap();
    println!("returned {returned:?}, removed {removed:?}, longest append {longest:?}");
}

/// Negative control: a log without epochs reports a truncated record as synced.
#[tokio::test]
async fn forgotten_truncation_is_caught() {
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

/// After a truncation the archive continues at the cut, with a higher epoch.
#[tokio::test]
async fn sealed_segments_continue_after_truncation() {
    let wal = tiny().open_with(MemoryStorage::new()).await.unwrap();
    let lsns = filled(&wal, 400).await;
    let mut sealed = wal.sealed_segments(Lsn::ZERO);
    let mut before = Vec::new();
    while let Some(item) = sealed.next().now_or_never() {
        before.push(item.unwrap().unwrap());
    }
    let first_end = before[0].lsns().end;
    assert!(before.len() > 3, "{before:?}");
    // Truncates within the second sealed segment.
    let kept = lsns.partition_point(|lsn| *lsn < first_end) + 5;
    let end = wal.truncate_after(lsns[kept]).await.unwrap();
    filled(&wal, 300).await;
    let mut at = end;
    let mut count = 0;
    while let Some(item) = sealed.next().now_or_never() {
        let item = item.unwrap().unwrap();
        assert_eq!(item.lsns().start, at, "a gap or a duplicate");
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

/// Truncated waiters leave no sync request behind, so plain appends cause no flush.
#[tokio::test]
async fn truncated_ticket_requests_no_sync() {
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

/// Records acknowledged after a truncation are not given up when the header that records the
/// truncation is damaged: the log is corrupt.
#[tokio::test]
async fn damaged_header_of_truncation_is_corrupt() {
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
