//! `sync_every`: it syncs by time or by records, ends with its guard, and keeps no log open.

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

async fn wait_for_policy_sync(wal: &Wal, lsn: Lsn) {
    let synced = async {
        while wal.watermarks().synced <= lsn {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within("the policy's sync", synced).await;
}

const SHORT: Duration = Duration::from_millis(5);

#[test]
fn interval_policy_syncs_until_guard_is_dropped() {
    for runtime in runtimes() {
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let wal = small().open(directory.path()).await.unwrap();
            let policy = wal.sync_every(SyncEvery::interval(SHORT)).unwrap();
            for i in 0..3u8 {
                let lsn = wal.append(vec![i; 100]).await.unwrap();
                wait_for_policy_sync(&wal, lsn).await;
            }
            let before = wal.stats().sync_count;
            assert!(before >= 3);
            // While idle, the policy does nothing.
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
fn interval_policy_needs_no_runtime() {
    let without_time = Builder::new_current_thread().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let wal = without_time.block_on(small().open(directory.path())).unwrap();
    let in_memory = futures::executor::block_on(small().open_with(MemoryStorage::new())).unwrap();
    for wal in [wal, in_memory] {
        let _policy = wal.sync_every(SyncEvery::interval(SHORT)).unwrap();
        let lsn = futures::executor::block_on(wal.append(b"x")).unwrap();
        // The runtime is not driven here.
        let began = Instant::now();
        while wal.watermarks().synced <= lsn {
            assert!(began.elapsed() < PATIENCE, "the policy must sync");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[tokio::test]
async fn record_policy_syncs_at_its_count() {
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
    // Another sync restarts the count.
    wal.append_and_sync(b"synced").await.unwrap();
    for _ in 0..9 {
        wal.append(b"one of ten").await.unwrap();
    }
    assert_eq!(wal.stats().sync_count, 2);
    wal.append_batch([b"the tenth", b"and more "]).await.unwrap();
    assert_eq!(wal.stats().sync_count, 3);
    // The strictest policy applies, while its guard lives.
    let strict = wal.sync_every(SyncEvery::records(1)).unwrap();
    wal.append(b"alone").await.unwrap();
    assert_eq!(wal.stats().sync_count, 4);
    drop(strict);
    wal.append(b"one of ten").await.unwrap();
    assert_eq!(wal.stats().sync_count, 4);
    drop(policy);
    for _ in 0..20 {
        wal.append(b"no policy").await.unwrap();
    }
    assert_eq!(wal.stats().sync_count, 4);
    // Records already in the log count for a new policy.
    let _policy = wal.sync_every(SyncEvery::interval(PATIENCE * 9).or_records(20)).unwrap();
    assert_eq!(wal.stats().sync_count, 5);
}

/// With a policy of 10 records, a power cut loses at most 9 and those written during a flush. The
/// writer waits for each flush here, so at most 9.
#[test]
fn power_cut_loses_fewer_records_than_policy() {
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
async fn policy_refuses_bad_values_and_stopped_logs() {
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
async fn policy_does_not_keep_log_open() {
    let memory = MemoryStorage::new();
    let wal = small().open_with(memory.clone()).await.unwrap();
    let policy = wal.sync_every(SyncEvery::interval(SHORT).or_records(5)).unwrap();
    wal.append(b"kept").await.unwrap();
    drop(wal);
    let wal = crate::support::open_when_free(|| memory.clone()).await;
    assert_eq!(records(&wal).await.len(), 1);
    drop(policy);
    // The log is closed while the policy lives.
    let _policy = wal.sync_every(SyncEvery::interval(SHORT)).unwrap();
    wal.close().await.unwrap();
    tokio::time::sleep(SHORT * 4).await;
    small().open_with(memory).await.unwrap();
}

/// On tokio's paused clock, which moves only when all tasks wait for it.
#[tokio::test(start_paused = true)]
async fn interval_with_runtime_clock_obeys_paused_time() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let hour = Duration::from_secs(3600);
    let policy = SyncEvery::interval(hour).runtime_clock(true);
    let policy = wal.sync_every(policy).unwrap();
    let began = Instant::now();
    for round in 1..4u32 {
        let lsn = wal.append("x").await.unwrap();
        tokio::time::sleep(hour / 2).await;
        assert!(wal.watermarks().synced <= lsn, "round {round}: too early");
        let synced = tokio::time::timeout(hour, async {
            wal.wait_synced(lsn).await.unwrap();
        });
        synced.await.expect("within an hour of the clock");
        // Moves to the middle of an interval.
        tokio::time::sleep(hour).await;
        tokio::time::sleep(hour / 2).await;
    }
    drop(policy);
    let lsn = wal.append("after it").await.unwrap();
    tokio::time::sleep(3 * hour).await;
    assert!(wal.watermarks().synced <= lsn, "it ends with its guard");
    assert!(began.elapsed() < PATIENCE, "real time");
}

#[test]
fn runtime_clock_outside_runtime_is_refused() {
    let wal = Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(async { small().open_with(MemoryStorage::new()).await.unwrap() });
    let policy = SyncEvery::interval(SHORT).runtime_clock(true);
    let error = wal.sync_every(policy).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    // Its own thread needs no runtime.
    drop(wal.sync_every(SyncEvery::interval(SHORT)).unwrap());
}
