//! The log and the runtimes it lives on: which one runs its work, and what if that one goes away.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on panics"
)]

mod support;

use std::{
    collections::BTreeSet,
    sync::mpsc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use highwater::{
    Error, Options, Wal,
    simulation::{Faults, Op},
    storage::{FileStorage, MemoryStorage},
};
use support::{assert_ring_is_whole, reached, records, small, within};
use tokio::runtime::{Builder, Runtime};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn use_all_of(wal: &Wal) {
    let before = records(wal).await.len();
    let appended = join_all((0..50u8).map(|i| wal.append_and_sync(vec![i; 100])));
    for lsn in within("append_and_sync", appended).await {
        lsn.unwrap();
    }
    within("append", wal.append(b"x")).await.unwrap();
    let batch = within("append_batch", wal.append_batch([b"a", b"b"])).await.unwrap();
    let ticket = within("enqueue", wal.enqueue(b"y")).await.unwrap();
    within("written", ticket.written()).await.unwrap();
    within("sync", wal.sync()).await.unwrap();
    assert_eq!(within("read", wal.read(batch.start)).await.unwrap().payload, "a");
    assert_eq!(records(wal).await.len(), before + 54);
}

#[test]
fn both_kinds_of_runtimes_run_a_log() {
    for runtime in [current_thread(), multi_thread()] {
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let wal = small().open(directory.path()).await.unwrap();
            use_all_of(&wal).await;
            within("close", wal.close()).await.unwrap();
            let again = small().open(directory.path()).await.unwrap();
            assert_eq!(records(&again).await.len(), 54);
        });
    }
}

/// Opened where nobody drives the runtime any more: its pool is all that the log needs.
#[test]
fn a_log_outlives_the_block_on_that_opened_it() {
    for opener in [current_thread(), multi_thread()] {
        for user in [current_thread(), multi_thread()] {
            let directory = tempfile::tempdir().unwrap();
            let wal = opener.block_on(small().open(directory.path())).unwrap();
            user.block_on(async {
                use_all_of(&wal).await;
                within("close", wal.close()).await.unwrap();
            });
        }
        // And without any runtime around the caller.
        let wal = opener.block_on(small().open_with(MemoryStorage::new())).unwrap();
        futures::executor::block_on(wal.append_and_sync(b"x")).unwrap();
        let storage = Faults::new().over(MemoryStorage::new()).on_pool();
        let wal = opener.block_on(small().open_with(storage)).unwrap();
        futures::executor::block_on(wal.append_and_sync(b"x")).unwrap();
        futures::executor::block_on(wal.close()).unwrap();
    }
}

#[test]
fn opened_outside_of_a_runtime_a_log_says_so() {
    let storage = Faults::new().over(MemoryStorage::new()).on_pool();
    let error = futures::executor::block_on(small().open_with(storage)).unwrap_err();
    assert!(error.is_closed(), "{error}");
    // In memory it needs none.
    let wal = futures::executor::block_on(small().open_with(MemoryStorage::new())).unwrap();
    futures::executor::block_on(wal.append_and_sync(b"x")).unwrap();
}

#[test]
fn one_blocking_thread_is_enough() {
    let directory = tempfile::tempdir().unwrap();
    let pool = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    multi_thread().block_on(async {
        let options = || small().io_handle(pool.handle().clone());
        let wal = options().open(directory.path()).await.unwrap();
        use_all_of(&wal).await;
        let tasks = (0..100u8).map(|i| {
            let wal = wal.clone();
            tokio::spawn(async move {
                for _ in 0..5 {
                    let lsn = wal.append_and_sync(vec![i; 200]).await.unwrap();
                    wal.append(vec![i; 1500]).await.unwrap();
                    assert_eq!(wal.read(lsn).await.unwrap().payload, vec![i; 200]);
                }
            })
        });
        for task in within("tasks on one thread", join_all(tasks)).await {
            task.unwrap();
        }
        assert!(wal.stats().rotation_count > 5);
        within("close", wal.close()).await.unwrap();
        let again = options().open(directory.path()).await.unwrap();
        assert_eq!(records(&again).await.len(), 54 + 1000);
        within("close", again.close()).await.unwrap();
    });
}

/// A server whose blocking pool is full of other work: a log with a pool of its own goes on, and one
/// that shares it waits, which shows that the pool is full.
#[test]
fn a_busy_shared_pool_does_not_stop_a_log_with_a_pool_of_its_own() {
    const JOBS: usize = 512;
    let directory = tempfile::tempdir().unwrap();
    let own = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let shared = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(JOBS)
        .thread_stack_size(128 << 10)
        .enable_all()
        .build()
        .unwrap();
    shared.block_on(async {
        let options = small().io_handle(own.handle().clone());
        let wal = options.open(directory.path().join("own")).await.unwrap();
        let sharing = small().open(directory.path().join("sharing")).await.unwrap();
        let (release, held) = mpsc::channel::<()>();
        let held = std::sync::Arc::new(std::sync::Mutex::new(held));
        let jobs = (0..JOBS).map(|_| {
            let held = std::sync::Arc::clone(&held);
            // Sleeps until the sender is gone.
            tokio::task::spawn_blocking(move || held.lock().unwrap().recv().is_ok())
        });
        let jobs: Vec<_> = jobs.collect();
        let appended = tokio::spawn(async move { sharing.append_and_sync(b"waits").await });
        for i in 0..50u8 {
            within("a commit", wal.append_and_sync(vec![i; 200])).await.unwrap();
        }
        assert_eq!(records(&wal).await.len(), 50);
        within("close", wal.close()).await.unwrap();
        assert!(!appended.is_finished(), "the shared pool is full");
        drop(release);
        within("its turn", appended).await.unwrap().unwrap();
        for job in jobs {
            within("the jobs", job).await.unwrap();
        }
    });
}

/// The log's runtime ends while a sync is under way. Whoever waits elsewhere is answered.
#[test]
fn a_runtime_that_goes_away_answers_everybody_and_frees_the_lock() {
    for opener in [current_thread(), multi_thread()] {
        let directory = tempfile::tempdir().unwrap();
        let faults = Faults::new();
        let storage = faults.over(FileStorage::create(directory.path()).unwrap());
        let wal = opener.block_on(small().open_with(storage)).unwrap();
        let user = multi_thread();
        let lsn = user.block_on(wal.append_and_sync(b"acknowledged")).unwrap();
        let gate = faults.on(Op::Sync).once().gate();
        let waiters: Vec<_> = (0..10u8)
            .map(|i| {
                let wal = wal.clone();
                user.spawn(async move {
                    match i % 4 {
                        0 => wal.append_and_sync(vec![i; 400]).await.map(drop),
                        1 => wal.append_batch(vec![vec![i; 200]; 2]).await.map(drop),
                        2 => wal.enqueue(vec![i; 400]).await?.synced().await,
                        _ => wal.append(vec![i; 3000]).await.map(drop),
                    }
                })
            })
            .collect();
        user.block_on(gate.reached(1));
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || {
            drop(opener);
            ended.send(()).unwrap();
        });
        // The pool waits for the job that runs, and drops those in its queue.
        assert!(end.recv_timeout(Duration::from_millis(50)).is_err());
        gate.open();
        end.recv_timeout(Duration::from_secs(4)).expect("the runtime can't stop");
        user.block_on(async {
            for answer in within("waiters", join_all(waiters)).await {
                let answer = answer.unwrap();
                assert!(answer.is_ok() || answer.as_ref().unwrap_err().is_closed(), "{answer:?}");
            }
            for answer in [wal.append(b"x").await.map(drop), wal.sync().await.map(drop)] {
                // A sync may have nothing to do.
                assert!(answer.is_ok() || answer.unwrap_err().is_closed());
            }
            assert!(within("append", wal.append_and_sync(b"x")).await.unwrap_err().is_closed());
            // The old handle is still there, and holds no lock.
            let again = small().open(directory.path()).await.expect("the lock is free");
            assert_eq!(again.read(lsn).await.unwrap().payload, "acknowledged");
            use_all_of(&again).await;
        });
        drop(wal);
    }
}

/// While an idle log is there, its runtime stops at once, and its pool goes back to nothing.
#[test]
fn an_idle_log_holds_no_thread() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .thread_name("highwater-idle")
        .thread_keep_alive(Duration::from_millis(20))
        .build()
        .unwrap();
    let wal = runtime.block_on(async {
        let wal = small().open(directory.path()).await.unwrap();
        use_all_of(&wal).await;
        wal
    });
    #[cfg(target_os = "linux")]
    {
        let count = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            let name = |task: std::io::Result<std::fs::DirEntry>| {
                std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default()
            };
            tasks.map(name).filter(|name| name.trim() == "highwater-idle").count()
        };
        let begun = Instant::now();
        while count() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(4), "an idle log holds a thread");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let begun = Instant::now();
    drop(runtime);
    assert!(begun.elapsed() < Duration::from_secs(1), "an idle log delays the shutdown");
    let error = futures::executor::block_on(wal.append(b"late")).unwrap_err();
    assert!(error.is_closed(), "{error}");
}

#[test]
fn dropping_the_last_handle_writes_what_was_ordered_and_frees_the_lock() {
    for runtime in [current_thread(), multi_thread()] {
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let faults = Faults::new();
            let storage = faults.over(FileStorage::create(directory.path()).unwrap());
            let wal = small().open_with(storage).await.unwrap();
            let gate = faults.on(Op::Write).once().gate();
            let mut expected = Vec::new();
            for i in 0..8u8 {
                let ticket = wal.try_enqueue(vec![i; 60]).unwrap();
                expected.push((ticket.lsn(), vec![i; 60]));
            }
            reached(&gate, 1).await;
            drop(wal);
            // The job in flight has the lock.
            let early = small().open(directory.path()).await;
            assert!(matches!(early, Err(Error::Locked { .. })), "{early:?}");
            gate.open();
            let opened = async {
                loop {
                    match small().open(directory.path()).await {
                        Err(Error::Locked { .. }) => tokio::task::yield_now().await,
                        opened => break opened.unwrap(),
                    }
                }
            };
            let again = within("the lock", opened).await;
            assert_eq!(records(&again).await, expected);
        });
    }
}

#[test]
fn a_closed_log_reopens_at_once_every_time() {
    for runtime in [current_thread(), multi_thread()] {
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let options =
                || small().segment_bytes(8 << 10).preallocation(highwater::Preallocation::Reserve);
            for round in 0..200usize {
                let wal = within("open", options().open(directory.path())).await.unwrap();
                assert_eq!(wal.recovery().was_closed, round > 0, "{}", wal.recovery());
                assert!(wal.recovery().warnings.is_empty(), "{}", wal.recovery());
                wal.append(round.to_le_bytes().to_vec()).await.unwrap();
                if round % 3 == 0 {
                    wal.append_and_sync(&[1; 100]).await.unwrap();
                }
                within("close", wal.close()).await.unwrap();
            }
            let wal = options().open(directory.path()).await.unwrap();
            assert_eq!(records(&wal).await.len(), 200 + 67);
        });
    }
}

#[test]
fn a_thousand_tasks_append_a_kibibyte_each() {
    async fn crowd(options: Options, storage: MemoryStorage, faults: &Faults) {
        let wal = options.open_with(faults.over(storage).on_pool()).await.unwrap();
        let tasks = (0..1000u32).map(|i| {
            let wal = wal.clone();
            tokio::spawn(async move {
                let mut payload = vec![0xaa; 1024];
                payload[..4].copy_from_slice(&i.to_le_bytes());
                match i % 3 {
                    0 => wal.append_and_sync(&payload).await.unwrap(),
                    1 => wal.append(&payload).await.unwrap(),
                    _ => {
                        let ticket = wal.enqueue(&payload).await.unwrap();
                        ticket.synced().await.unwrap();
                        ticket.lsn()
                    }
                }
            })
        });
        let lsns: BTreeSet<_> = within("a thousand tasks", join_all(tasks))
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(lsns.len(), 1000);
        let found = records(&wal).await;
        assert!(found.iter().map(|(lsn, _)| lsn).eq(&lsns));
        let who: BTreeSet<_> = found.iter().map(|(_, payload)| payload[..4].to_vec()).collect();
        assert_eq!(who.len(), 1000);
        within("close", wal.close()).await.unwrap();
    }
    for runtime in [current_thread(), multi_thread()] {
        // A ring of 64 records, and one that none of them fits into.
        let roomy = Wal::options().segment_bytes(1 << 20).ring_bytes(64 << 10);
        runtime.block_on(crowd(roomy, MemoryStorage::new(), &Faults::new()));
        let tight = small().segment_bytes(64 << 10);
        runtime.block_on(crowd(tight, MemoryStorage::new(), &Faults::new()));
    }
}

/// A log in memory runs its I/O on the callers: none of them may be kept at it for ever, or sink
/// ever deeper into its stack.
#[test]
fn threads_that_share_a_log_in_memory_all_come_to_an_end() {
    let wal = futures::executor::block_on(small().open_with(MemoryStorage::new())).unwrap();
    let (done, all) = mpsc::channel();
    for thread in 0..4u8 {
        let (wal, done) = (wal.clone(), done.clone());
        let work = move || {
            for i in 0..4000u32 {
                if i % 2 == u32::from(thread % 2) {
                    futures::executor::block_on(wal.append(&[thread; 40])).unwrap();
                } else {
                    futures::executor::block_on(wal.append_and_sync(&[thread; 40])).unwrap();
                }
            }
            done.send(()).unwrap();
        };
        let small_stack = std::thread::Builder::new().stack_size(256 << 10);
        small_stack.spawn(work).unwrap();
    }
    for _ in 0..4 {
        all.recv_timeout(Duration::from_secs(4)).expect("a thread is kept for ever");
    }
    current_thread().block_on(async {
        assert_eq!(records(&wal).await.len(), 16_000);
        assert_ring_is_whole(&wal).await;
    });
}
