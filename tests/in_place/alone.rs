//! Commits that are alone: on a worker of a multi-thread runtime the task flushes by itself.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::ThreadId,
    time::Duration,
};

use futures::future::join_all;
use highwater::{
    InlineSyncs, OnStall, Options, Wal,
    simulation::{Disk, Faults, Op},
};
use tokio::{
    runtime::{Builder, Runtime},
    task::{JoinHandle, LocalSet},
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
            // A busy machine makes flushes slow, or the pool faster for a while.
            let mut here_count = 0;
            for _ in 0..100 {
                here_count += commit(&wal, &flushed, COMMITS).await;
                if here_count > 0 {
                    break;
                }
            }
            assert!(here_count > 0, "no flush was made by the task");
            wal.close().await.unwrap();
        });
        runtime.block_on(lone).unwrap();
    }
}

/// A task that commits until `is_over` is set. It notes its thread after each commit.
struct Committing {
    threads: Arc<Mutex<Vec<ThreadId>>>,
    is_over: Arc<AtomicBool>,
}

impl Committing {
    fn start(runtime: &Runtime, wal: &Wal) -> (Self, JoinHandle<()>) {
        let (threads, is_over) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let committing = Committing { threads: threads.clone(), is_over: is_over.clone() };
        let wal = wal.clone();
        let task = runtime.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                wal.append_and_sync(b"one after the other").await.unwrap();
                threads.lock().unwrap().push(std::thread::current().id());
            }
        });
        (committing, task)
    }

    fn count(&self) -> usize {
        self.threads.lock().unwrap().len()
    }

    /// Waits until `count` commits have returned.
    async fn reached(&self, count: usize) {
        let counted = async {
            while self.count() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within("commits", counted).await;
    }
}

/// A flush that hangs delays only its task: the other tasks of the worker run elsewhere.
#[test]
fn other_tasks_run_during_a_lone_flush() {
    let faults = Faults::new();
    let runtime = multi_thread(1);
    let (wal, flushed) = runtime.block_on(open(small(), &faults));
    let (committing, task) = Committing::start(&runtime, &wal);
    runtime.block_on(async {
        // The pool makes some of the flushes, so this is repeated until a held one was the task's.
        let mut held_here_count = 0;
        for _ in 0..50 {
            committing.reached(committing.count() + 10 * COMMITS).await;
            let gate = faults.on(Op::Sync).once().gate();
            reached(&gate, 1).await;
            let (held, flushing) = (committing.count(), *flushed.lock().unwrap().last().unwrap());
            // This needs the only worker, whether the gate holds a task or a job of the pool.
            let runs = tokio::spawn(async { tokio::task::yield_now().await });
            within("another task", runs).await.unwrap();
            gate.open();
            committing.reached(held + 1).await;
            held_here_count += usize::from(committing.threads.lock().unwrap()[held] == flushing);
            if held_here_count == 2 {
                break;
            }
        }
        committing.is_over.store(true, Ordering::Relaxed);
        task.await.unwrap();
        assert!(held_here_count >= 1, "no flush of the task was held");
        wal.close().await.unwrap();
    });
}

#[test]
fn commits_of_one_task_share_flushes() {
    let runtime = multi_thread(2);
    let joined = runtime.spawn(async move {
        let faults = Faults::new();
        let (wal, flushed) = open(small().ring_bytes(1 << 16), &faults).await;
        commit(&wal, &flushed, COMMITS).await;
        flushed.lock().unwrap().clear();
        // While one flush lasts, the task appends all its other records.
        faults.on(Op::Sync).delay(Duration::from_micros(300));
        for round in 0..20u8 {
            let commits = (0..10u8).map(|i| wal.append_and_sync(vec![round, i]));
            for committed in join_all(commits).await {
                committed.unwrap();
            }
        }
        let flush_count = flushed.lock().unwrap().len();
        assert!(flush_count < 100, "{flush_count} flushes for 20 rounds of 10 commits");
        wal.close().await.unwrap();
    });
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
    let handle = runtime.handle().clone();
    current.block_on(LocalSet::new().run_until(async {
        let entered = async move {
            let _entered = handle.enter();
            assert_pool_flushes(small(), &Faults::new()).await;
        };
        tokio::task::spawn_local(entered).await.unwrap();
    }));
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
