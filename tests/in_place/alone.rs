//! Commits that are alone: on a worker of a multi-thread runtime the task flushes by itself.

use std::{sync::Arc, thread::ThreadId, time::Duration};

use futures::future::join_all;
use highwater::{
    InlineSyncs, OnStall, Options, Wal,
    simulation::{Disk, Faults, Op},
};
use tokio::{
    runtime::{Builder, Runtime},
    task::LocalSet,
};

use crate::{
    Flushed, Watched,
    support::{reached, records, small, within},
};

/// The first commits find out that they are alone. Later ones flush by themselves.
const COMMITS: usize = 200;

fn multi_thread(worker_count: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(worker_count).enable_time().build().unwrap()
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

async fn open(options: Options, faults: &Faults) -> (Wal, Flushed) {
    let (storage, _) = Watched::new(faults.over(Disk::new(1)).on_pool());
    let flushed = Arc::clone(&storage.flushed);
    (options.open_with(storage).await.unwrap(), flushed)
}

/// Commits `count` records. Returns how many flushes were made on the thread of the commit.
async fn commit(wal: &Wal, flushed: &Flushed, count: usize) -> usize {
    let mut here_count = 0;
    for i in 0..count {
        flushed.lock().unwrap().clear();
        wal.append_and_sync(&i.to_le_bytes()).await.unwrap();
        let here = std::thread::current().id();
        let is_here = |thread: &ThreadId| *thread == here;
        here_count += usize::from(flushed.lock().unwrap().iter().any(is_here));
    }
    here_count
}

#[test]
fn lone_commit_on_a_worker_flushes_there() {
    for worker_count in [1, 2] {
        let runtime = multi_thread(worker_count);
        let lone = runtime.spawn(async {
            let (wal, flushed) = open(small(), &Faults::new()).await;
            let here_count = commit(&wal, &flushed, COMMITS).await;
            assert!((1..COMMITS).contains(&here_count), "{here_count}: some, but not the first");
            wal.close().await.unwrap();
        });
        runtime.block_on(lone).unwrap();
    }
}

/// The task of a flush that hangs is alone with it: the other tasks of its worker run elsewhere.
#[test]
fn other_tasks_run_during_a_lone_flush() {
    let faults = Faults::new();
    let runtime = multi_thread(1);
    let (wal, flushed) = runtime.block_on(open(small(), &faults));
    let other = wal.clone();
    let commits = runtime.spawn(async move { commit(&other, &flushed, 10 * COMMITS).await });
    runtime.block_on(async {
        for _ in 0..20 {
            let gate = faults.on(Op::Sync).once().gate();
            reached(&gate, 1).await;
            // This needs the only worker, whether the gate holds a task or a job of the pool.
            let runs = tokio::spawn(async { tokio::task::yield_now().await });
            within("another task", runs).await.unwrap();
            gate.open();
        }
        assert!(commits.await.unwrap() >= 1);
        wal.close().await.unwrap();
    });
}

#[test]
fn commits_of_one_task_share_flushes() {
    let faults = Faults::new();
    let runtime = multi_thread(2);
    let joined = {
        let faults = faults.clone();
        runtime.spawn(async move {
            let (wal, flushed) = open(small().ring_bytes(1 << 16), &faults).await;
            commit(&wal, &flushed, COMMITS).await;
            flushed.lock().unwrap().clear();
            for round in 0..20u64 {
                let commits =
                    (0..10u64).map(|i| wal.append_and_sync(vec![i as u8 + 10 * round as u8]));
                for committed in join_all(commits).await {
                    committed.unwrap();
                }
            }
            let flush_count = flushed.lock().unwrap().len();
            assert!(flush_count < 30, "{flush_count} flushes for 20 rounds of 10 commits");
            wal.close().await.unwrap();
        })
    };
    runtime.block_on(joined).unwrap();
}

async fn assert_pool_flushes(options: Options, faults: &Faults) {
    let (wal, flushed) = open(options, faults).await;
    assert_eq!(commit(&wal, &flushed, COMMITS / 2).await, 0);
    assert_eq!(records(&wal).await.len(), COMMITS / 2);
    wal.close().await.unwrap();
}

#[test]
fn pool_flushes_where_a_task_may_not() {
    let runtime = multi_thread(2);
    let faults = Faults::new();
    runtime.block_on(assert_pool_flushes(small(), &faults));
    runtime.block_on(LocalSet::new().run_until(async {
        let local = async { assert_pool_flushes(small(), &Faults::new()).await };
        tokio::task::spawn_local(local).await.unwrap();
    }));
    let current = current_thread();
    current.block_on(assert_pool_flushes(small(), &faults));
    // Such a task looks like one on a worker, but `block_in_place` refuses it.
    let _entered = runtime.handle().enter();
    current.block_on(async {
        let entered = async { assert_pool_flushes(small(), &Faults::new()).await };
        LocalSet::new().run_until(async { tokio::task::spawn_local(entered).await }).await.unwrap();
    });
}

#[test]
fn pool_flushes_if_a_task_should_not() {
    let after = Duration::from_secs(3600);
    let runtime = multi_thread(2);
    for options in [
        small().inline_syncs(InlineSyncs::Never),
        // A task within its own flush could not return the error.
        small().on_stall(OnStall::FailWaiters { after }),
        small().on_stall(OnStall::Stop { after }),
    ] {
        let commits = async move { assert_pool_flushes(options, &Faults::new()).await };
        runtime.block_on(runtime.spawn(commits)).unwrap();
    }
    // A slow device: the trip to the pool does not matter.
    let slow = async {
        let faults = Faults::new();
        faults.on(Op::Sync).delay(Duration::from_millis(2));
        assert_pool_flushes(small(), &faults).await;
    };
    runtime.block_on(runtime.spawn(slow)).unwrap();
}
