//! Inline syncs: a commit's task flushes for itself and for all tasks that wait with it.

use std::{sync::Arc, time::Duration};

use highwater::{
    Error, InlineSyncs, Options,
    simulation::{Disk, Event, Faults, Op},
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    Watched, poll_times,
    support::{open_when_free, reached, records, small, within},
};

/// The error number of an I/O error.
const EIO: i32 = 5;

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn syncing() -> Options {
    small().inline_writes(4096).inline_syncs(InlineSyncs::Always)
}

#[test]
fn single_inline_commit_needs_no_other_thread() {
    let (storage, seen) = Watched::new(Faults::new().over(Disk::new(1)).on_pool());
    let flushed = Arc::clone(&storage.flushed);
    current_thread().block_on(async {
        let wal = syncing().open_with(storage).await.unwrap();
        let opened = flushed.lock().unwrap().len();
        seen.lock().unwrap().clear();
        for i in 0..20u8 {
            wal.append_and_sync(&[i; 8]).await.unwrap();
        }
        let here = std::thread::current().id();
        let flushed: Vec<_> = flushed.lock().unwrap().split_off(opened);
        assert_eq!(flushed, [here; 20]);
        assert!(seen.lock().unwrap().iter().all(|(thread, ..)| *thread == here), "{seen:?}");
        wal.close().await.unwrap();
    });
}

#[test]
fn tasks_of_one_thread_share_a_flush() {
    let (storage, _) = Watched::new(Faults::new().over(Disk::new(1)).on_pool());
    let flushed = Arc::clone(&storage.flushed);
    current_thread().block_on(async {
        let wal = syncing().open_with(storage).await.unwrap();
        let opened = flushed.lock().unwrap().len();
        let commits: Vec<_> = (0..10u8)
            .map(|i| {
                let wal = wal.clone();
                tokio::spawn(async move { wal.append_and_sync(&[i; 8]).await })
            })
            .collect();
        for commit in commits {
            commit.await.unwrap().unwrap();
        }
        assert_eq!(flushed.lock().unwrap().len(), opened + 1, "one flush for all ten commits");
        wal.close().await.unwrap();
    });
}

/// The task that continues first has nothing to flush, though a later record is wanted already.
#[test]
fn tasks_of_one_thread_share_every_flush() {
    let (storage, _) = Watched::new(Faults::new().over(Disk::new(1)).on_pool());
    let flushed = Arc::clone(&storage.flushed);
    current_thread().block_on(async {
        let wal = syncing().ring_bytes(1 << 12).open_with(storage).await.unwrap();
        let opened = flushed.lock().unwrap().len();
        let tasks: Vec<_> = (0..10u8)
            .map(|task| {
                let wal = wal.clone();
                tokio::spawn(async move {
                    for i in 0..20u8 {
                        wal.append_and_sync(&[task, i]).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let flush_count = flushed.lock().unwrap().len() - opened;
        assert!(flush_count <= 25, "{flush_count} flushes for 20 rounds of 10 commits");
        wal.close().await.unwrap();
    });
}

/// Without yields, a loop of commits would starve the other tasks of its thread.
#[test]
fn commit_loop_yields_to_other_tasks() {
    current_thread().block_on(async {
        let wal = syncing().open_with(Faults::new().over(Disk::new(1)).on_pool()).await.unwrap();
        let mut other = tokio::spawn(async { 7 });
        // The first commit yields in any case, later ones every fourth time.
        wal.append_and_sync(b"first").await.unwrap();
        assert!(matches!(futures::poll!(&mut other), std::task::Poll::Ready(Ok(7))));
        let mut other = tokio::spawn(async { 7 });
        for _ in 0..5 {
            wal.append_and_sync(b"again").await.unwrap();
        }
        assert!(matches!(futures::poll!(&mut other), std::task::Poll::Ready(Ok(7))));
    });
}

#[tokio::test]
async fn dropped_yielding_commit_is_still_synced() {
    let disk = Disk::new(1);
    let wal = syncing().open_with(Faults::new().over(disk.clone()).on_pool()).await.unwrap();
    let mut commit = Box::pin(wal.append_and_sync(b"kept"));
    poll_times(&mut commit, 1);
    assert_eq!(wal.watermarks().synced.as_u64(), 0, "the commit must yield");
    drop(commit);
    let synced = async {
        while wal.watermarks().synced.as_u64() == 0 {
            tokio::task::yield_now().await;
        }
    };
    within("the sync of the record", synced).await;
}

/// A commit that is not polled holds no role, so no call waits for it.
#[tokio::test]
async fn held_commit_does_not_block_other_calls() {
    let disk = Disk::new(1);
    let open =
        || async { syncing().open_with(Faults::new().over(disk.clone()).on_pool()).await.unwrap() };
    let wal = open().await;
    let mut held = Box::pin(wal.append_and_sync(b"held"));
    poll_times(&mut held, 1);
    within("another commit", wal.append_and_sync(b"another")).await.unwrap();
    within("the held one", held).await.unwrap();
    let mut held = Box::pin(wal.append_and_sync(b"held again"));
    poll_times(&mut held, 1);
    within("sync", wal.sync()).await.unwrap();
    drop(held);
    wal.close().await.unwrap();
    // The first commit of a log yields.
    let wal = open().await;
    let mut held = Box::pin(wal.append_and_sync(b"until the end"));
    poll_times(&mut held, 1);
    within("close", wal.close()).await.unwrap();
    drop(held);
    drop(wal);
    assert_eq!(records(&open().await).await.len(), 4);
}

#[tokio::test]
async fn commit_during_inline_flush_is_done_by_job() {
    let (faults, disk) = (Faults::new(), Disk::new(1));
    let wal = syncing().open_with(faults.over(disk).on_pool()).await.unwrap();
    let gate = faults.on(Op::Sync).once().gate();
    let committing = std::thread::spawn({
        let wal = wal.clone();
        move || current_thread().block_on(wal.append_and_sync(b"first"))
    });
    reached(&gate, 1).await;
    let mut second = Box::pin(wal.append_and_sync(b"second"));
    poll_times(&mut second, 2);
    gate.open();
    within("the second", second).await.unwrap();
    committing.join().unwrap().unwrap();
}

#[tokio::test]
async fn failed_inline_flush_poisons_log_for_all() {
    let (faults, disk) = (Faults::new(), Disk::new(1));
    let wal = syncing().open_with(faults.over(disk).on_pool()).await.unwrap();
    wal.append_and_sync(b"before").await.unwrap();
    faults.on(Op::Sync).once().fail_os(EIO);
    let other = tokio::spawn({
        let wal = wal.clone();
        async move { wal.append_and_sync(b"beside").await }
    });
    let error = within("commit", wal.append_and_sync(b"fails")).await.unwrap_err();
    assert!(error.is_poisoned(), "{error}");
    assert!(within("the other", other).await.unwrap().unwrap_err().is_poisoned());
    assert!(wal.append_and_sync(b"later").await.unwrap_err().is_poisoned());
    let flushes = |event: &Event| matches!(event, Event::SyncEnded { .. });
    let so_far = faults.count(flushes);
    assert!(wal.sync().await.unwrap_err().is_poisoned());
    assert_eq!(faults.count(flushes), so_far, "a failed flush must not be repeated");
}

/// The pool shuts down during commits: each returns, and acknowledged records are there.
#[test]
fn pool_shutdown_ends_every_commit() {
    for round in 0..4u64 {
        let disk = Disk::new(round);
        let pool = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let options = syncing().io_handle(pool.handle().clone());
        let runtime = Builder::new_multi_thread().worker_threads(3).enable_time().build().unwrap();
        runtime.block_on(async {
            let storage = Faults::new().over(disk.clone()).on_pool();
            let wal = options.open_with(storage).await.unwrap();
            let commits: Vec<_> = (0..6u8)
                .map(|task| {
                    let wal = wal.clone();
                    tokio::spawn(async move {
                        let mut count = 0usize;
                        loop {
                            match wal.append_and_sync(&[task; 100]).await {
                                Ok(_) => count += 1,
                                Err(error) => break (count, error),
                            }
                        }
                    })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(4 * round)).await;
            pool.shutdown_background();
            let mut acknowledged = 0;
            for commit in commits {
                let (count, error) = within("a commit", commit).await.unwrap();
                assert!(matches!(error, Error::Closed { .. }), "{error}");
                acknowledged += count;
            }
            drop(wal);
            let again = open_when_free(|| disk.clone()).await;
            let found = records(&again).await.len();
            assert!(found >= acknowledged, "{found} of {acknowledged}");
        });
    }
}
