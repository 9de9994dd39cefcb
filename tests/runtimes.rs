//! A log and its tokio runtime: which runtime runs its jobs, and what happens when it shuts down.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod support;

use std::{
    collections::BTreeSet,
    sync::mpsc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use highwater::{
    Error, InlineSyncs, Options, Wal,
    simulation::{Disk, Faults, Op},
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

async fn use_each_call(wal: &Wal) {
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
fn log_works_on_both_runtime_flavors() {
    for runtime in [current_thread(), multi_thread()] {
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let wal = small().open(directory.path()).await.unwrap();
            use_each_call(&wal).await;
            within("close", wal.close()).await.unwrap();
            let again = small().open(directory.path()).await.unwrap();
            assert_eq!(records(&again).await.len(), 54);
        });
    }
}

/// The opening runtime no longer runs tasks, but its blocking pool is all that the log needs.
#[test]
fn log_outlives_block_on_that_opened_it() {
    for opener in [current_thread(), multi_thread()] {
        for user in [current_thread(), multi_thread()] {
            let directory = tempfile::tempdir().unwrap();
            let wal = opener.block_on(small().open(directory.path())).unwrap();
            user.block_on(async {
                use_each_call(&wal).await;
                within("close", wal.close()).await.unwrap();
            });
        }
        // The same without a runtime around the caller.
        let wal = opener.block_on(small().open_with(MemoryStorage::new())).unwrap();
        futures::executor::block_on(wal.append_and_sync(b"x")).unwrap();
        let storage = Faults::new().over(MemoryStorage::new()).on_pool();
        let wal = opener.block_on(small().open_with(storage)).unwrap();
        futures::executor::block_on(wal.append_and_sync(b"x")).unwrap();
        futures::executor::block_on(wal.close()).unwrap();
    }
}

#[test]
fn open_outside_runtime_is_refused() {
    let storage = Faults::new().over(MemoryStorage::new()).on_pool();
    let error = futures::executor::block_on(small().open_with(storage)).unwrap_err();
    assert!(error.is_closed(), "{error}");
    // A log in memory needs no runtime.
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
        use_each_call(&wal).await;
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

/// The thread that stays for the next lone commit leaves in time for the other work of its pool.
#[test]
fn lone_commits_leave_the_pool_to_others() {
    let pool = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    multi_thread().block_on(async {
        let options = small().io_handle(pool.handle().clone()).inline_syncs(InlineSyncs::Never);
        // Its flushes are fast, so the commits stay alone.
        let storage = Faults::new().over(Disk::new(1)).on_pool();
        let wal = options.open_with(storage).await.unwrap();
        let lsn = wal.append_and_sync(b"read meanwhile").await.unwrap();
        let other = wal.clone();
        let commits = tokio::spawn(async move {
            loop {
                other.append_and_sync(b"again and again").await.unwrap();
            }
        });
        within("commits", async {
            while wal.stats().sync_count < 100 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        for _ in 0..20 {
            let read = within("read beside commits", wal.read(lsn)).await.unwrap();
            assert_eq!(read.payload, "read meanwhile");
            within("a task of the user", pool.spawn_blocking(|| ())).await.unwrap();
        }
        commits.abort();
        assert!(commits.await.unwrap_err().is_cancelled());
        within("close", wal.close()).await.unwrap();
    });
}

/// The shared blocking pool is full of other work. A log with its own pool continues. A log that
/// uses the shared pool waits, which proves that the pool is full.
#[test]
fn busy_shared_pool_does_not_block_io_handle() {
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
            // Blocks until the sender is dropped.
            tokio::task::spawn_blocking(move || held.lock().unwrap().recv().is_ok())
        });
        let jobs: Vec<_> = jobs.collect();
        let appended = tokio::spawn(async move { sharing.append_and_sync(b"waits").await });
        for i in 0..50u8 {
            within("a commit", wal.append_and_sync(vec![i; 200])).await.unwrap();
        }
        assert_eq!(records(&wal).await.len(), 50);
        within("close", wal.close()).await.unwrap();
        assert!(!appended.is_finished(), "the shared pool must be full");
        drop(release);
        within("the append on the shared pool", appended).await.unwrap().unwrap();
        for job in jobs {
            within("the jobs", job).await.unwrap();
        }
    });
}

/// The log's runtime ends during a sync. Waiters on another runtime get a result.
#[test]
fn runtime_shutdown_wakes_waiters_and_frees_lock() {
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
        // The pool waits for the running job, and drops the queued ones.
        assert!(end.recv_timeout(Duration::from_millis(50)).is_err());
        gate.open();
        end.recv_timeout(Duration::from_secs(4)).expect("the runtime must stop");
        user.block_on(async {
            for result in within("waiters", join_all(waiters)).await {
                let result = result.unwrap();
                assert!(result.is_ok() || result.as_ref().unwrap_err().is_closed(), "{result:?}");
            }
            for result in [wal.append(b"x").await.map(drop), wal.sync().await.map(drop)] {
                // The sync may have nothing to do.
                assert!(result.is_ok() || result.unwrap_err().is_closed());
            }
            assert!(within("append", wal.append_and_sync(b"x")).await.unwrap_err().is_closed());
            // The old handle still exists, but holds no lock.
            let again = small().open(directory.path()).await.expect("the lock is free");
            assert_eq!(again.read(lsn).await.unwrap().payload, "acknowledged");
            use_each_call(&again).await;
        });
        drop(wal);
    }
}

/// An idle log uses no thread, and does not delay the shutdown of its runtime.
#[test]
fn idle_log_holds_no_thread() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .thread_name("highwater-idle")
        .thread_keep_alive(Duration::from_millis(20))
        .build()
        .unwrap();
    let wal = runtime.block_on(async {
        let wal = small().open(directory.path()).await.unwrap();
        use_each_call(&wal).await;
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
fn last_drop_writes_enqueued_and_frees_lock() {
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
            // The running job holds the lock.
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
            let again = within("the freed lock", opened).await;
            assert_eq!(records(&again).await, expected);
        });
    }
}

#[test]
fn closed_log_reopens_at_once() {
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
fn thousand_tasks_append_1_kib_each() {
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
        let tasks: BTreeSet<_> = found.iter().map(|(_, payload)| payload[..4].to_vec()).collect();
        assert_eq!(tasks.len(), 1000);
        within("close", wal.close()).await.unwrap();
    }
    for runtime in [current_thread(), multi_thread()] {
        // One ring holds 64 records; the other holds none, so that records bypass it.
        let roomy = Wal::options().segment_bytes(1 << 20).ring_bytes(64 << 10);
        runtime.block_on(crowd(roomy, MemoryStorage::new(), &Faults::new()));
        let tight = small().segment_bytes(64 << 10);
        runtime.block_on(crowd(tight, MemoryStorage::new(), &Faults::new()));
    }
}

/// A log in memory does its I/O in the callers. No caller may be kept busy forever, and the stack
/// must not grow.
#[test]
fn threads_sharing_memory_log_all_finish() {
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
        all.recv_timeout(Duration::from_secs(4)).expect("each thread must end");
    }
    current_thread().block_on(async {
        assert_eq!(records(&wal).await.len(), 16_000);
        assert_ring_is_whole(&wal).await;
    });
}

/// Appends that write inline need no job, but get the same error as the others.
#[test]
fn append_without_runtime_is_closed_in_each_mode() {
    for inline_bytes in [0, 64, 1 << 20] {
        for payload_bytes in [8, 600] {
            let directory = tempfile::tempdir().unwrap();
            let (other, own) = (multi_thread(), multi_thread());
            let options = small().inline_writes(inline_bytes).inline_syncs(if inline_bytes > 64 {
                InlineSyncs::Always
            } else {
                InlineSyncs::default()
            });
            let wal = own.block_on(async {
                let wal = options.open(directory.path()).await.unwrap();
                wal.append_and_sync("first").await.unwrap();
                wal
            });
            drop(own);
            let what = format!("inline up to {inline_bytes}, {payload_bytes} bytes");
            other.block_on(async {
                let payload = vec![1; payload_bytes];
                let appended = within(&what, wal.append(payload.clone())).await;
                assert!(appended.unwrap_err().is_closed(), "append, {what}");
                let committed = within(&what, wal.append_and_sync(payload.clone())).await;
                assert!(committed.unwrap_err().is_closed(), "append_and_sync, {what}");
                assert!(within(&what, wal.sync()).await.unwrap_err().is_closed(), "sync, {what}");
                assert!(wal.try_enqueue(payload).is_err(), "try_enqueue, {what}");
                assert!(within(&what, wal.watch().wait_for(|_| false)).await.is_err(), "{what}");
            });
        }
    }
}

/// A closed or dropped log leaves no task in its runtime.
#[test]
fn closed_log_leaves_no_task_in_its_runtime() {
    let own = multi_thread();
    let before = own.metrics().num_alive_tasks();
    own.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let wal = small().open(directory.path()).await.unwrap();
        wal.append_and_sync("x").await.unwrap();
        wal.close().await.unwrap();
        drop(wal);
        let gone = async {
            while own.metrics().num_alive_tasks() > before {
                tokio::task::yield_now().await;
            }
        };
        within("the end of the log's task", gone).await;
    });
}

/// All blocking threads wait for the log, whose jobs need such a thread. With its own pool the log
/// works.
#[test]
fn blocked_pool_needs_an_io_handle() {
    let io = multi_thread();
    let callers = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    callers.block_on(async {
        let options = small().io_handle(io.handle().clone());
        let wal = options.open(directory.path()).await.unwrap();
        let blocked: Vec<_> = (0..8u8)
            .map(|number| {
                let (wal, handle) = (wal.clone(), tokio::runtime::Handle::current());
                tokio::task::spawn_blocking(move || {
                    handle.block_on(wal.append_and_sync(vec![number; 700]))
                })
            })
            .collect();
        for task in blocked {
            within("a blocking thread", task).await.unwrap().unwrap();
        }
        within("close", wal.close()).await.unwrap();
    });
}
