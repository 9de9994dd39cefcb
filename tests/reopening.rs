//! Reopening: findings of an independent review, each as a test. The sweeps of `crashes.rs` and
//! `corruption/` cover the same ground broadly.

#![allow(clippy::unwrap_used, reason = "a mistake in a test must stop it")]

use std::time::Duration;

use futures::TryStreamExt;
use highwater::{
    Error, Options, Record, Wal,
    storage::{MemoryStorage, Storage},
};

fn tiny() -> Options {
    Wal::options().segment_bytes(8 << 10).ring_bytes(4 << 10)
}

async fn records(wal: &Wal) -> Vec<Record> {
    wal.replay(..).try_collect().await.unwrap()
}

fn segment_count(storage: &MemoryStorage) -> usize {
    storage.list().unwrap().iter().filter(|name| name.ends_with(".wal")).count()
}

/// A mark that is rewritten at each open must not get another mark. Otherwise each open of an
/// unclosed log leaves a segment.
#[tokio::test]
async fn reopening_unclosed_log_leaves_no_segments() {
    let storage = MemoryStorage::new();
    tiny().open_with(storage.clone()).await.unwrap().append_and_sync(b"one").await.unwrap();
    for _ in 0..30 {
        let wal = tiny().open_with(storage.clone()).await.unwrap();
        assert_eq!(records(&wal).await.len(), 1);
    }
    assert!(segment_count(&storage) <= 3, "{:?}", storage.list());
}

/// With a segment of twice the ring, the space for the close was once counted wrongly. An append
/// then waited for a rotation that never started.
#[tokio::test]
async fn small_records_fill_segments_of_every_size() {
    for segment_bytes in (8 << 10..=16 << 10).step_by(512) {
        let options = Wal::options().segment_bytes(segment_bytes);
        let wal = options.open_with(MemoryStorage::new()).await.unwrap();
        let filling = async {
            for i in 0..2000u64 {
                wal.append(&i.to_le_bytes()).await.unwrap();
            }
        };
        let filled = tokio::time::timeout(Duration::from_secs(20), filling).await;
        assert!(filled.is_ok(), "an append hangs with segments of {segment_bytes}");
        assert_eq!(records(&wal).await.len(), 2000);
    }
}

/// A segment's length is durable before its header, so no crash shortens it.
#[tokio::test]
async fn shortened_segment_is_refused() {
    let storage = MemoryStorage::new();
    let wal = tiny().open_with(storage.clone()).await.unwrap();
    let mut lsns = Vec::new();
    for i in 0..50u64 {
        lsns.push(wal.append_and_sync(&i.to_le_bytes()).await.unwrap());
    }
    wal.close().await.unwrap();
    let name = storage.list().unwrap().remove(0);
    storage.open(&name).unwrap().set_len(4096 + lsns[20].as_u64()).unwrap();
    let error = tiny().open_with(storage).await.unwrap_err();
    assert!(
        matches!(&error, Error::Corrupt { reason, .. } if reason.contains("shorter")),
        "{error}"
    );
}

/// The limit applies to the large frame of the batch, not to its first, intact frame.
#[tokio::test]
async fn torn_batch_above_lowered_limit_is_cut() {
    let storage = MemoryStorage::new();
    let wal = Wal::options().open_with(storage.clone()).await.unwrap();
    wal.append_and_sync(b"kept").await.unwrap();
    let batch = wal.append_batch([vec![1; 100], vec![2; 9000]]).await.unwrap();
    drop(wal);
    let name = storage.list().unwrap().remove(0);
    let inside_second = 4096 + batch.start.as_u64() + 120 + 5000;
    storage.open(&name).unwrap().write_at(&[9; 64], inside_second).unwrap();
    let lowered = Wal::options().record_bytes_max(1000).batch_bytes_max(20_000);
    let wal = lowered.open_with(storage).await.unwrap();
    assert_eq!(wal.recovery().cut.as_ref().map(|cut| cut.lsn), Some(batch.start));
    assert_eq!(records(&wal).await.len(), 1);
}

/// The same for an intact record: it stays in the log, but is too large for this handle.
#[tokio::test]
async fn record_above_lowered_limit_is_refused_and_kept() {
    let storage = MemoryStorage::new();
    let wal = Wal::options().open_with(storage.clone()).await.unwrap();
    let lsn = wal.append_and_sync(vec![2; 9000]).await.unwrap();
    wal.close().await.unwrap();
    let lowered = Wal::options().record_bytes_max(1000);
    let wal = lowered.open_with(storage.clone()).await.unwrap();
    let error = wal.read(lsn).await.unwrap_err();
    assert!(matches!(error, Error::RecordTooLarge { bytes: 9000, max: 1000 }), "{error}");
    drop(wal);
    let wal = Wal::options().open_with(storage).await.unwrap();
    assert_eq!(wal.read(lsn).await.unwrap().payload.len(), 9000);
}

/// An unused spare is removed first, because recovery needs its space on a full disk.
#[tokio::test]
async fn recovery_removes_unused_spare_first() {
    let storage = MemoryStorage::new();
    let wal = tiny().open_with(storage.clone()).await.unwrap();
    while segment_count(&storage) < 2 {
        wal.append_and_sync(&[1; 100]).await.unwrap();
    }
    let count = records(&wal).await.len();
    drop(wal);
    let before = storage.list().unwrap();
    let wal = tiny().open_with(storage.clone()).await.unwrap();
    assert_eq!(records(&wal).await.len(), count);
    let spare = before.last().unwrap();
    assert!(!storage.list().unwrap().contains(spare), "the unused {spare} must be removed");
}

/// Only the mark commits to the last synced group. Without it, damage to that group would look like
/// a torn tail and be cut.
#[tokio::test]
async fn damage_to_last_acknowledged_record_is_corrupt() {
    let storage = MemoryStorage::new();
    let wal = tiny().open_with(storage.clone()).await.unwrap();
    wal.append_and_sync(&[1; 100]).await.unwrap();
    let last = wal.append_and_sync(&[2; 100]).await.unwrap();
    drop(wal);
    let name = storage.list().unwrap().remove(0);
    storage.open(&name).unwrap().write_at(&[9; 8], 4096 + last.as_u64() + 50).unwrap();
    let error = tiny().open_with(storage).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { lsn, synced, .. } if lsn == last && synced > last));
}
