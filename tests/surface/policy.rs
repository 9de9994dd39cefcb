//! `sync_every`: it syncs, it ends, and it claims nothing.

use std::time::{Duration, Instant};

use futures::StreamExt;
use highwater::{
    Error, Lsn, SyncEvery, Wal,
    simulation::{Disk, Simulation, Survival, for_each_seed},
    storage::MemoryStorage,
};
use tokio::runtime::Builder;

use crate::{
    closed, poisoned, runtimes,
    support::{PATIENCE, records, small, within},
};

async fn synced_by_itself(wal: &Wal, lsn: Lsn) {
    let synced = async {
        while wal.watermarks().synced <= lsn {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within("the policy's sync", synced).await;
}

const SHORT: Duration = Duration::from_millis(5);

#[test]
fn an_interval_syncs_what_nobody_asked_for_and_ends_with_its_guard() {
    for runtime in runtimes() {
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let wal = small().open(directory.path()).await.unwrap();
            let policy = wal.sync_every(SyncEvery::interval(SHORT)).unwrap();
            for i in 0..3u8 {
                let lsn = wal.append(vec![i; 100]).await.unwrap();
                synced_by_itself(&wal, lsn).await;
            }
            let before = wal.stats().sync_count;
            assert!(before >= 3);
            // Idle, it does nothing.
            tokio::time::sleep(SHORT * 6).await;
            assert_eq!(wal.stats().sync_count, before);
            drop(policy);
            tokio::time::sleep(SHORT * 2).await;
            let lsn = wal.append(b"unsynced").await.unwrap();
            tokio::time::sleep(SHORT * 6).await;
            assert!(wal.watermarks().synced <= lsn);
        });
    }
}

#[test]
fn it_needs_no_timer_of_the_runtime_and_no_runtime() {
    let without_time = Builder::new_current_thread().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let wal = without_time.block_on(small().open(directory.path())).unwrap();
    let in_memory = futures::executor::block_on(small().open_with(MemoryStorage::new())).unwrap();
    for wal in [wal, in_memory] {
        let _policy = wal.sync_every(SyncEvery::interval(SHORT)).unwrap();
        let lsn = futures::executor::block_on(wal.append(b"x")).unwrap();
        // Nobody drives the runtime here.
        let began = Instant::now();
        while wal.watermarks().synced <= lsn {
            assert!(began.elapsed() < PATIENCE, "never synced");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[tokio::test]
async fn so_many_records_are_a_flush_and_no_fewer() {
    let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
    wal.append(b"before").await.unwrap();
    let policy = wal.sync_every(SyncEvery::records(10)).unwrap();
    for _ in 1..9 {
        wal.append(b"one of ten").await.unwrap();
    }
    assert_eq!(wal.stats().sync_count, 0);
    wal.append(b"the tenth").await.unwrap();
    assert_eq!(wal.watermarks().synced, wal.watermarks().reserved);
    assert_eq!(wal.stats().sync_count, 1);
    // Somebody's own sync begins the count anew.
    wal.append_and_sync(b"synced").await.unwrap();
    for _ in 0..9 {
        wal.append(b"one of ten").await.unwrap();
    }
    assert_eq!(wal.stats().sync_count, 2);
    wal.append_batch([b"the tenth", b"and more "]).await.unwrap();
    assert_eq!(wal.stats().sync_count, 3);
    // The strictest counts, and only while it is in force.
    let strict = wal.sync_every(SyncEvery::records(1)).unwrap();
    wal.append(b"alone").await.unwrap();
    assert_eq!(wal.stats().sync_count, 4);
    drop(strict);
    wal.append(b"one of ten").await.unwrap();
    assert_eq!(wal.stats().sync_count, 4);
    drop(policy);
    for _ in 0..20 {
        wal.append(b"nobody asks").await.unwrap();
    }
    assert_eq!(wal.stats().sync_count, 4);
    // What stands there already counts for a new one.
    let _policy = wal.sync_every(SyncEvery::interval(PATIENCE * 9).or_records(20)).unwrap();
    assert_eq!(wal.stats().sync_count, 5);
}

/// The bound, in any order of things: with an order for ten, no more than nine and what was
/// written while a flush ran is lost. The writer waits for the flush here, so nine it is.
#[test]
fn a_loss_of_power_takes_fewer_than_the_policy_allows() {
    for_each_seed(20, |seed| {
        let disk = Disk::new(seed);
        let crashes = Simulation::new(seed).run(async {
            let wal = small().open_with(disk.clone()).await.unwrap();
            let _policy = wal.sync_every(SyncEvery::records(10)).unwrap();
            let mut crashes = Vec::new();
            for i in 1..=60usize {
                let lsn = wal.append(vec![1; 60]).await.unwrap();
                if i % 10 == 0 {
                    wal.wait_synced(lsn).await.unwrap();
                }
                crashes.push((i, disk.crash(Survival::Nothing)));
            }
            crashes
        });
        for (appended, crashed) in crashes {
            Simulation::new(seed).run(async {
                let wal = small().open_with(crashed).await.unwrap();
                let found = wal.replay(..).count().await;
                assert!(found <= appended && appended - found < 10, "{found} of {appended}");
            });
        }
    });
}

#[tokio::test]
async fn absurd_values_and_stopped_logs_are_refused() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let absurd = [
        SyncEvery::records(0),
        SyncEvery::interval(SHORT).or_records(0),
        SyncEvery::interval(Duration::ZERO),
        SyncEvery::interval(Duration::from_micros(999)),
        SyncEvery::interval(Duration::MAX),
    ];
    for policy in absurd {
        let error = wal.sync_every(policy).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { .. }), "{policy:?}: {error}");
    }
    for policy in [SyncEvery::records(1), SyncEvery::interval(SHORT)] {
        assert!(poisoned().await.sync_every(policy).unwrap_err().is_poisoned());
        assert!(closed().await.sync_every(policy).unwrap_err().is_closed());
    }
    Simulation::new(1).run(async {
        let wal = small().open_with(Disk::new(1)).await.unwrap();
        let error = wal.sync_every(SyncEvery::interval(SHORT)).unwrap_err();
        assert!(error.to_string().contains("no clock"), "{error}");
    });
}

#[tokio::test]
async fn a_policy_keeps_no_log_open() {
    let memory = MemoryStorage::new();
    let wal = small().open_with(memory.clone()).await.unwrap();
    let policy = wal.sync_every(SyncEvery::interval(SHORT).or_records(5)).unwrap();
    wal.append(b"kept").await.unwrap();
    drop(wal);
    let wal = crate::support::open_when_free(|| memory.clone()).await;
    assert_eq!(records(&wal).await.len(), 1);
    drop(policy);
    // A log that was closed under it.
    let _policy = wal.sync_every(SyncEvery::interval(SHORT)).unwrap();
    wal.close().await.unwrap();
    tokio::time::sleep(SHORT * 4).await;
    small().open_with(memory).await.unwrap();
}
