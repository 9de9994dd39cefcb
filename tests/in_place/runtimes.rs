//! Inline writes on real threads: beside all other calls, and while the pool's runtime shuts down.

use std::time::Duration;

use highwater::{
    Error, InlineSyncs, Wal,
    simulation::{Disk, Faults, Op},
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    Watched, here_count, promising,
    support::{open_when_free, reached, records, small, within},
};

fn runtime(thread_count: usize) -> Runtime {
    match thread_count {
        1 => Builder::new_current_thread().enable_time().build().unwrap(),
        count => Builder::new_multi_thread().worker_threads(count).enable_time().build().unwrap(),
    }
}

#[test]
fn append_on_one_thread_needs_no_other_thread() {
    let (storage, seen) = Watched::new(Faults::new().over(Disk::new(1)).on_pool());
    runtime(1).block_on(async {
        let wal = small().inline_writes(4096).open_with(storage).await.unwrap();
        for i in 0..20u8 {
            wal.append(&[i; 8]).await.unwrap();
        }
        assert!(here_count(&seen) >= 20, "each append must write inline: {seen:?}");
        wal.close().await.unwrap();
    });
}

/// The pool shuts down during appends: each append returns, and the log reports why it stopped.
#[test]
fn pool_shutdown_ends_every_append() {
    for (round, threads) in [1, 3, 3, 1, 3].into_iter().enumerate() {
        let (disk, faults) = promising();
        let pool = runtime(2);
        let options = small().inline_writes(if round % 2 == 0 { 4096 } else { 0 });
        let options = options.io_handle(pool.handle().clone());
        runtime(threads).block_on(async {
            let wal = options.open_with(faults.over(disk.clone()).on_pool()).await.unwrap();
            let tasks: Vec<_> = (0..6u8)
                .map(|task| {
                    let wal = wal.clone();
                    tokio::spawn(async move {
                        let mut count = 0u32;
                        loop {
                            match wal.append(&[task; 100]).await {
                                Ok(_) => count += 1,
                                Err(error) => break (count, error),
                            }
                            tokio::task::yield_now().await;
                        }
                    })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(3 * round as u64)).await;
            pool.shutdown_background();
            let mut acknowledged = 0;
            for task in tasks {
                let (count, error) = within("an append", task).await.unwrap();
                assert!(matches!(error, Error::Closed { .. }), "{error}");
                acknowledged += count;
            }
            drop(wal);
            let again = open_when_free(|| disk.clone()).await;
            let found = records(&again).await.len();
            assert!(found >= acknowledged as usize, "{found} of {acknowledged}");
        });
    }
}

/// The lock of a stopped log is freed after its last inline write has ended.
#[test]
fn lock_is_held_until_inline_write_ends() {
    let (faults, disk) = (Faults::new(), Disk::new(1));
    let pool = runtime(2);
    let options = small().inline_writes(4096).io_handle(pool.handle().clone());
    runtime(3).block_on(async {
        let wal = options.open_with(faults.over(disk.clone()).on_pool()).await.unwrap();
        wal.append(b"before").await.unwrap();
        let gate = faults.on(Op::Write).once().gate();
        let appending = tokio::spawn({
            let wal = wal.clone();
            async move { wal.append(b"on its way").await }
        });
        reached(&gate, 1).await;
        pool.shutdown_background();
        let stopped = within("sync", wal.sync()).await.unwrap_err();
        assert!(matches!(stopped, Error::Closed { .. }), "{stopped}");
        let refused = small().open_with(disk.clone()).await;
        assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
        gate.open();
        let _either = within("append", appending).await.unwrap();
        let again = open_when_free(|| disk.clone()).await;
        assert_eq!(
            records(&again).await.len(),
            2,
            "both records had been written before the lock was freed"
        );
    });
}

/// Runs 64 tasks with all calls, truncations of both ends, and finally a close.
async fn use_all_calls(wal: Wal) {
    let tasks: Vec<_> = (0..64u32)
        .map(|task| {
            let wal = wal.clone();
            tokio::spawn(async move {
                for i in 0..40u32 {
                    let payload = [task.to_le_bytes(), i.to_le_bytes()].concat();
                    let payload = payload.repeat(1 + (task + i) as usize % 20);
                    let result = match (task + i) % 16 {
                        0 => wal.append_and_sync(&payload).await.map(drop),
                        1 => wal.sync().await.map(drop),
                        2 => wal.append_batch([&payload, &payload]).await.map(drop),
                        3 if task == 7 => match wal.append(&payload).await {
                            Ok(lsn) => wal.truncate_before(lsn).await.map(drop),
                            Err(error) => Err(error),
                        },
                        5 if task == 9 => match wal.append(&payload).await {
                            Ok(lsn) => wal.truncate_after(lsn).await.map(drop),
                            Err(error) => Err(error),
                        },
                        6 => {
                            // Dropped at an arbitrary point.
                            let append = wal.append(&payload);
                            let _ = tokio::time::timeout(Duration::ZERO, append).await;
                            Ok(())
                        }
                        _ => wal.append(&payload).await.map(drop),
                    };
                    match result {
                        Ok(())
                        | Err(
                            Error::Truncated { .. }
                            | Error::BelowFirst { .. }
                            | Error::AboveEnd { .. }
                            | Error::NotABoundary { .. },
                        ) => {}
                        Err(Error::Closed { .. }) => return,
                        Err(error) => panic!("task {task}, {i}: {error}"),
                    }
                }
            })
        })
        .collect();
    let last = tokio::spawn({
        let wal = wal.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(40)).await;
            wal.close().await
        }
    });
    for task in tasks {
        within("a task", task).await.unwrap();
    }
    within("close", last).await.unwrap().unwrap();
}

#[test]
fn truncate_concurrent_with_all_operations() {
    for (threads, inline_bytes) in [(1, 0), (1, 4096), (3, 0), (3, 4096), (3, 200)] {
        let (disk, faults) = promising();
        faults.record(false);
        faults.on(Op::WriteNonblocking).one_in(5).short(24);
        faults.on(Op::WriteNonblocking).one_in(9).fail(std::io::ErrorKind::WouldBlock);
        runtime(threads).block_on(async {
            let storage = faults.over(disk.clone()).on_pool();
            let options = small().inline_writes(inline_bytes).recycle_segments(2);
            let options = options.inline_syncs(if inline_bytes == 4096 {
                InlineSyncs::Always
            } else {
                InlineSyncs::default()
            });
            use_all_calls(options.open_with(storage).await.unwrap()).await;
            let again = small().open_with(disk).await.unwrap();
            assert!(again.recovery().was_closed, "{}", again.recovery());
            let found = records(&again).await;
            let is_whole = |payload: &Vec<u8>| payload.chunks(8).all(|part| part == &payload[..8]);
            assert!(found.iter().all(|(_, payload)| is_whole(payload)));
            assert!(found.is_sorted_by(|a, b| a.0 < b.0));
        });
    }
}
