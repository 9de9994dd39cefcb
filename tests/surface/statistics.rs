//! `stats`: the numbers that a log measures.

use std::time::{Duration, Instant};

use futures::future::join_all;
use highwater::{
    Wal,
    simulation::{Faults, Op},
    storage::MemoryStorage,
};

use crate::{
    held, poisoned, runtimes,
    support::{RING_PAYLOAD_BYTES, poll_and_drop, reached, small, within},
};

#[tokio::test]
async fn groups_count_records_without_marks() {
    let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
    assert_eq!(wal.stats().records_per_sync.count, 0);
    for _ in 0..10 {
        wal.append_and_sync(b"alone").await.unwrap();
    }
    let lone = wal.stats();
    assert_eq!((lone.records_per_sync.count, lone.records_per_sync.max), (10, 1));
    assert!(lone.frame_count > 10, "marks must be counted as frames");
    for _ in 0..20 {
        wal.enqueue(b"together").await.unwrap();
    }
    wal.append_batch([b"one", b"two"]).await.unwrap();
    wal.sync().await.unwrap();
    let grouped = wal.stats().records_per_sync;
    assert_eq!((grouped.count, grouped.p50, grouped.max), (11, 1, 22));
    let stats = wal.stats();
    assert_eq!(stats.sync_time.count, stats.sync_count);
    assert_eq!((stats.queue_bytes, stats.ring_bytes), (0, 4 << 20));
    assert_eq!((stats.room_wait_count, stats.room_wait_time), (0, Duration::ZERO));
}

#[test]
fn each_record_is_counted_in_one_group() {
    for runtime in runtimes() {
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let wal = small().open(directory.path()).await.unwrap();
            let appends = (0..200u8).map(|i| wal.append_and_sync(vec![i; 100]));
            for lsn in within("appends", join_all(appends)).await {
                lsn.unwrap();
            }
            let stats = wal.stats();
            let groups = stats.records_per_sync;
            assert!(groups.count >= 1 && groups.p50 <= groups.p90 && groups.p90 <= groups.max);
            assert!(groups.max >= 200 / groups.count && groups.max <= 200);
            assert!(stats.sync_time.max > Duration::ZERO);
            assert!(stats.queue_bytes_at_sync.max <= stats.ring_bytes);
            assert!(stats.room_wait_count > 0, "a ring of 1 KiB must make appends wait");
        });
    }
}

#[tokio::test]
async fn flush_time_is_that_of_the_device() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    faults.on(Op::Sync).once().delay(Duration::from_millis(20));
    let began = Instant::now();
    wal.append_and_sync(b"slow").await.unwrap();
    let elapsed = began.elapsed();
    let time = wal.stats().sync_time;
    assert!(time.max >= Duration::from_millis(20) && time.max <= elapsed.mul_f64(1.01), "{time:?}");
    assert!(time.count >= 1);
}

#[tokio::test]
async fn waits_for_ring_space_are_counted() {
    let (wal, _memory, writes) = held().await;
    assert_eq!(wal.stats().queue_bytes, wal.stats().ring_bytes, "one record must fill the ring");
    // A refusal is not a wait.
    wal.try_enqueue(b"x").unwrap_err();
    assert_eq!(wal.stats().room_wait_count, 0);
    poll_and_drop(wal.append(b"dropped"), 1, |_| {});
    assert_eq!(wal.stats().room_wait_count, 1);
    let waits = tokio::spawn({
        let wal = wal.clone();
        async move { wal.append(b"waits").await }
    });
    while wal.stats().room_wait_count < 2 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    writes.open();
    within("append", waits).await.unwrap().unwrap();
    let stats = wal.stats();
    assert_eq!(stats.room_wait_count, 2);
    assert!(stats.room_wait_time >= Duration::from_millis(5), "{stats:?}");
}

/// The ring has space, but the next segment is missing.
#[tokio::test]
async fn waits_for_next_segment_are_counted() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    let creates = faults.on(Op::Create).gate();
    let waits = tokio::spawn({
        let wal = wal.clone();
        async move {
            for _ in 0..20 {
                wal.append(vec![3; RING_PAYLOAD_BYTES]).await.unwrap();
            }
        }
    });
    reached(&creates, 1).await;
    while wal.stats().room_wait_count == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    creates.open();
    within("appends", waits).await.unwrap();
}

#[tokio::test]
async fn poisoned_log_returns_statistics() {
    let stats = poisoned().await.stats();
    assert_eq!(
        (stats.sync_count, stats.sync_time.count),
        (0, 0),
        "a failed flush must not be counted"
    );
    assert_eq!(stats.records_per_sync.count, 0);
}
