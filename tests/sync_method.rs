//! `SyncMethod::Dsync`: when a durable write replaces a write and a flush, and when it does not.

#![allow(clippy::unwrap_used, reason = "a mistake in a test must stop it")]

use std::io::ErrorKind;

use futures::TryStreamExt;
use highwater::{
    Error, SyncMethod, Wal,
    simulation::{Disk, Event, Op, Survival, Wrote},
    storage::MemoryStorage,
};

/// Opens a log that has flushed its first segment once, and clears the recorded events.
async fn opened(disk: &Disk) -> Wal {
    let options = Wal::options().segment_bytes(64 << 10).ring_bytes(128 << 10);
    let wal = options.sync_method(SyncMethod::Dsync).open_with(disk.clone()).await.unwrap();
    wal.append_and_sync("the header is flushed with it").await.unwrap();
    disk.faults().record(true);
    disk.faults().clear();
    wal
}

/// Returns the numbers of durable writes and of flushes.
fn counts(disk: &Disk) -> (usize, usize) {
    let is_durable = |event: &Event| matches!(event, Event::Wrote(Wrote { is_durable: true, .. }));
    let is_flush = |event: &Event| matches!(event, Event::SyncEnded { ok: true, .. });
    (disk.faults().count(is_durable), disk.faults().count(is_flush))
}

async fn assert_kept(disk: &Disk, expected: usize) {
    let after = disk.crash(Survival::Nothing);
    let wal = Wal::options().segment_bytes(64 << 10).open_with(after).await.unwrap();
    let records: Vec<_> = wal.replay(..).try_collect().await.unwrap();
    assert_eq!(records.len(), expected);
}

#[tokio::test]
async fn lone_commits_are_durable_without_flush() {
    let disk = Disk::new(1);
    let wal = opened(&disk).await;
    for _ in 0..5 {
        wal.append_and_sync(&[7; 300]).await.unwrap();
    }
    assert_eq!(counts(&disk), (5, 0));
    assert_eq!(wal.stats().sync_count, 6);
    assert_kept(&disk, 6).await;
}

#[tokio::test]
async fn unsynced_append_before_it_needs_flush() {
    let disk = Disk::new(2);
    let wal = opened(&disk).await;
    // As long as a mark frame, but a record.
    wal.append(&[7; 8]).await.unwrap();
    wal.append_and_sync(&[7; 300]).await.unwrap();
    assert_eq!(counts(&disk), (0, 1));
    wal.append_and_sync(&[7; 300]).await.unwrap();
    assert_eq!(counts(&disk), (1, 1));
    assert_kept(&disk, 4).await;
}

#[tokio::test]
async fn large_group_and_first_of_segment_need_flush() {
    let disk = Disk::new(3);
    let wal = opened(&disk).await;
    wal.append_and_sync(vec![7; 65 << 10]).await.unwrap();
    let (durable_count, flush_count) = counts(&disk);
    assert_eq!(durable_count, 0);
    assert!(flush_count >= 1);
    disk.faults().clear();
    for _ in 0..20 {
        wal.append_and_sync(&[7; 6000]).await.unwrap();
    }
    let (durable_count, _) = counts(&disk);
    let is_header = |event: &Event| matches!(event, Event::Wrote(Wrote { offset: 0, .. }));
    assert!(disk.faults().count(is_header) >= 1, "the log has rotated");
    assert!((1..20).contains(&durable_count), "{durable_count}");
    assert_kept(&disk, 22).await;
}

#[tokio::test]
async fn storage_without_it_is_tried_once_and_flushed() {
    let disk = Disk::new(4);
    disk.faults().on(Op::WriteDurably).fail(ErrorKind::Unsupported);
    let wal = opened(&disk).await;
    for _ in 0..3 {
        wal.append_and_sync(&[7; 300]).await.unwrap();
    }
    assert_eq!(counts(&disk), (0, 3));
    assert_eq!(disk.faults().met_count(), 1);
    assert_kept(&disk, 4).await;

    let options = Wal::options().sync_method(SyncMethod::Dsync);
    let wal = options.open_with(MemoryStorage::new()).await.unwrap();
    wal.append_and_sync("in memory").await.unwrap();
    wal.append_and_sync("in memory").await.unwrap();
    wal.close().await.unwrap();
}

#[tokio::test]
async fn failed_durable_write_stops_the_log() {
    let disk = Disk::new(5);
    let wal = opened(&disk).await;
    disk.faults().on(Op::WriteDurably).once().fail_os(5);
    let failed = wal.append_and_sync(&[7; 300]).await.unwrap_err();
    assert!(failed.is_poisoned(), "{failed}");
    // A later flush of the file would succeed, but proves nothing.
    let later = wal.append_and_sync(&[7; 300]).await.unwrap_err();
    assert!(matches!(later, Error::Poisoned { .. }), "{later}");
    assert_eq!(counts(&disk), (0, 0));
    drop(wal);
    assert_kept(&disk, 1).await;
}

#[tokio::test]
async fn short_durable_write_is_continued() {
    let disk = Disk::new(6);
    let wal = opened(&disk).await;
    disk.faults().on(Op::WriteDurably).times(2).short(100);
    wal.append_and_sync(&[7; 300]).await.unwrap();
    assert_eq!(counts(&disk), (3, 0));
    assert_kept(&disk, 2).await;
}

/// Control: these checks notice a device that ignores the flag.
#[tokio::test]
async fn ignored_flag_loses_the_record() {
    let disk = Disk::new(7);
    let wal = opened(&disk).await;
    disk.faults().on(Op::WriteDurably).once().ignore();
    wal.append_and_sync(&[7; 300]).await.unwrap();
    assert_kept(&disk, 1).await;
}
