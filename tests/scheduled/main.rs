//! The whole pipeline under schedules that shuttle chooses, over files in memory:
//! `RUSTFLAGS="--cfg shuttle" cargo test --release --test scheduled`.
//!
//! Locks, atomics, storage calls and job starts are switch points. A lost wake-up appears as a
//! deadlock. All atomics are sequentially consistent here; the loom models in `src` check weaker
//! orderings.
//!
//! `HIGHWATER_SCHEDULES` sets the number of schedules of each kind. A failure prints a seed:
//! `SHUTTLE_RANDOM_SEED=… cargo test … <the test>` repeats it.

#![cfg(shuttle)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod budget;
mod disk;
mod load;
mod slots;

use disk::{Disk, Op};
use futures::StreamExt;
use highwater::{Error, Lsn, Wal};
use load::{Promise, look, open_when_free, records, small, verify, watch, work};
use shuttle::{
    Config, FailurePersistence, Runner,
    future::{block_on, spawn, yield_now},
    rand::{Rng, thread_rng},
    scheduler::{PctScheduler, RandomScheduler},
};

/// The number of schedules of each kind: a few seconds for each test.
const SCHEDULES: usize = 4000;

/// The depth of PCT: the number of changes of priority, plus one.
const PCT_DEPTH: usize = 4;

/// The size of the frame of a mark.
const MARK_BYTES: u64 = 24;

/// Prints the seed of the PCT schedules if a test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("run it again: SHUTTLE_RANDOM_SEED={} (PCT)", self.0);
        }
    }
}

/// Runs `test` under random schedules, and under PCT, which switches rarely.
fn check(test: fn()) {
    check_one_in(1, test);
}

/// As [`check`], with one in `divisor` of its schedules.
fn check_one_in(divisor: usize, test: fn()) {
    let count = std::env::var("HIGHWATER_SCHEDULES")
        .map_or(SCHEDULES, |count| count.parse().expect("HIGHWATER_SCHEDULES is a number"));
    let count = count / divisor;
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    // Seeds are shorter than schedules.
    config.failure_persistence = FailurePersistence::None;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    Runner::new(RandomScheduler::new(count), config.clone()).run(test);
    let seed = Seed(std::env::var("SHUTTLE_RANDOM_SEED").map_or_else(
        |_| {
            use std::hash::{BuildHasher, RandomState};
            RandomState::new().hash_one(0)
        },
        |seed| seed.parse().expect("SHUTTLE_RANDOM_SEED is a number"),
    ));
    Runner::new(PctScheduler::new_from_seed(seed.0, PCT_DEPTH, count), config).run(test);
}

fn none(_: &Error) -> bool {
    false
}

/// Every task ends, and so does `close`. Acknowledged records are there, also after a power cut.
#[test]
fn acknowledged_records_survive() {
    check(|| {
        block_on(async {
            let disk = Disk::new();
            let wal = small().open_with(disk.clone()).await.unwrap();
            let looking = [spawn(look(wal.clone(), 20)), spawn(watch(wal.clone()))];
            let tasks: Vec<_> =
                (0..3).map(|task| spawn(work(wal.clone(), task, 5, none))).collect();
            let mut attempts = Vec::new();
            for task in tasks {
                attempts.push(task.await.unwrap());
            }
            verify(&records(&disk_after(&disk).await).await, &attempts, Promise::Synced);
            wal.close().await.unwrap();
            for task in looking {
                task.await.unwrap();
            }
            for again in [open_when_free(&disk).await, disk_after(&disk).await] {
                assert!(again.recovery().was_closed);
                verify(&records(&again).await, &attempts, Promise::Ordered);
            }
        });
    });
}

async fn disk_after(disk: &Disk) -> Wal {
    small().open_with(disk.after_power_loss()).await.expect("a power cut must not corrupt the log")
}

/// No later call does their work.
#[test]
fn each_kind_of_append_ends_alone() {
    check(|| {
        block_on(async {
            let wal = small().open_with(Disk::new()).await.unwrap();
            let tasks: Vec<_> = (0..4u8)
                .map(|task| {
                    let wal = wal.clone();
                    spawn(async move {
                        match task {
                            0 => drop(wal.append_and_sync(&[task]).await.unwrap()),
                            1 => drop(wal.append(&[task]).await.unwrap()),
                            2 => wal.enqueue(&[task]).await.unwrap().written().await.unwrap(),
                            _ => wal.enqueue(&[task]).await.unwrap().synced().await.unwrap(),
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
}

/// Of several appends that expect the same end exactly one succeeds, beside syncs and marks.
#[test]
fn one_conditional_append_wins() {
    check(|| {
        block_on(async {
            let wal = small().open_with(Disk::new()).await.unwrap();
            wal.append_and_sync(&[0]).await.unwrap();
            let end = wal.watermarks().reserved;
            let tasks: Vec<_> = (1..4u8)
                .map(|task| {
                    let wal = wal.clone();
                    spawn(async move {
                        match wal.enqueue_if(end, &[task]).await {
                            Ok(ticket) => ticket.synced().await.map(|()| 1).unwrap(),
                            Err(Error::Conflict { .. }) => 0,
                            Err(error) => panic!("{error}"),
                        }
                    })
                })
                .collect();
            let mut winner_count = 0;
            for task in tasks {
                winner_count += task.await.unwrap();
            }
            assert_eq!(winner_count, 1);
            wal.close().await.unwrap();
        });
    });
}

/// When the last job has ended, a frame on disk claims the last group. So opening writes nothing
/// again but the mark. The large record exceeds the ring and takes all of its space.
#[test]
fn idle_log_claims_its_last_group() {
    check(|| {
        block_on(async {
            let disk = Disk::new();
            let wal = small().open_with(disk.clone()).await.unwrap();
            let tasks: Vec<_> = [[900, 1], [1, 2000]]
                .map(|sizes| {
                    let wal = wal.clone();
                    spawn(async move {
                        for bytes in sizes {
                            wal.append_and_sync(vec![7; bytes]).await.unwrap();
                        }
                    })
                })
                .into();
            for task in tasks {
                task.await.unwrap();
            }
            drop(wal);
            let rewritten_bytes = open_when_free(&disk).await.recovery().rewritten_bytes;
            assert!(rewritten_bytes <= MARK_BYTES, "{rewritten_bytes} bytes have no claim");
        });
    });
}

/// Appends before `close` are kept, later ones are refused, and the lock is freed.
#[test]
fn close_beside_appends() {
    check(|| {
        block_on(async {
            let disk = Disk::new();
            let wal = small().open_with(disk.clone()).await.unwrap();
            let watching = spawn(watch(wal.clone()));
            let tasks: Vec<_> =
                (0..3).map(|task| spawn(work(wal.clone(), task, 3, Error::is_closed))).collect();
            let waiting = spawn({
                let wal = wal.clone();
                // At the latest, the close frame is synced before the log is closed.
                async move { wal.wait_synced(wal.watermarks().first).await }
            });
            for _ in 0..thread_rng().gen_range(0..20) {
                yield_now().await;
            }
            let second = spawn({
                let wal = wal.clone();
                async move { wal.close().await }
            });
            wal.close().await.unwrap();
            // Other handles still exist, but hold no lock.
            let again = small().open_with(disk.clone()).await.expect("close frees the lock");
            let report = again.recovery();
            assert!(report.was_closed, "{report:?}");
            second.await.unwrap().unwrap();
            let mut attempts = Vec::new();
            for task in tasks {
                attempts.push(task.await.unwrap());
            }
            let waited = waiting.await.unwrap();
            assert!(waited.as_ref().map_or_else(Error::is_closed, |()| true), "{waited:?}");
            watching.await.unwrap();
            verify(&records(&again).await, &attempts, Promise::Ordered);
            verify(&records(&disk_after(&disk).await).await, &attempts, Promise::Ordered);
        });
    });
}

/// A record as small as the close frame fits into the space reserved for it. Still no frame may
/// follow the close frame.
#[test]
fn smallest_appends_beside_close() {
    check(|| {
        block_on(async {
            let disk = Disk::new();
            let wal = small().open_with(disk.clone()).await.unwrap();
            // Takes the whole ring, so that the appends wait for space, some until after `close`.
            wal.enqueue(&[0; (1 << 10) - 16]).await.unwrap();
            for task in 0..3u8 {
                let wal = wal.clone();
                drop(spawn(async move { wal.enqueue(&[task]).await.map(drop) }));
            }
            wal.close().await.unwrap();
            let again = small().open_with(disk).await.expect("close frees the lock");
            assert!(again.recovery().was_closed, "{:?}", again.recovery());
        });
    });
}

/// The same for a truncated log, whose beginning is recorded right before the close frame.
#[test]
fn smallest_appends_beside_close_of_truncated_log() {
    check(|| {
        block_on(async {
            let disk = Disk::new();
            let wal = small().open_with(disk.clone()).await.unwrap();
            wal.append(&[1; 8]).await.unwrap();
            let kept = wal.append(&[2; 8]).await.unwrap();
            wal.truncate_before(kept).await.unwrap();
            wal.enqueue(&[0; (1 << 10) - 16]).await.unwrap();
            for task in 0..3u8 {
                let wal = wal.clone();
                drop(spawn(async move { wal.enqueue(&[task]).await.map(drop) }));
            }
            wal.close().await.unwrap();
            let again = small().open_with(disk).await.expect("close frees the lock");
            let report = again.recovery();
            assert!(report.was_closed && report.first == kept, "{report:?}");
        });
    });
}

/// The last handle is dropped while jobs run: enqueued records are written, and the lock is freed.
#[test]
fn last_handle_dropped_under_load() {
    check(|| {
        block_on(async {
            let disk = Disk::new();
            let wal = small().open_with(disk.clone()).await.unwrap();
            let tasks: Vec<_> =
                (0..3).map(|task| spawn(work(wal.clone(), task, 3, none))).collect();
            drop(wal);
            let mut attempts = Vec::new();
            for task in tasks {
                attempts.push(task.await.unwrap());
            }
            let again = open_when_free(&disk).await;
            verify(&records(&again).await, &attempts, Promise::Ordered);
            drop(again);
            verify(&records(&disk_after(&disk).await).await, &attempts, Promise::Synced);
        });
    });
}

/// Returns whether the log is poisoned, or could not prepare the next segment.
fn is_failure(error: &Error) -> bool {
    error.is_poisoned() || matches!(error, Error::Io { .. })
}

/// Every call returns, and no lost record is reported as durable.
fn check_failure(op: Op) {
    block_on(async move {
        let disk = Disk::new();
        let wal = small().open_with(disk.clone()).await.unwrap();
        disk.fail(op, thread_rng().gen_range(0..6));
        let looking = [spawn(look(wal.clone(), 20)), spawn(watch(wal.clone()))];
        let tasks: Vec<_> =
            (0..3).map(|task| spawn(work(wal.clone(), task, 4, is_failure))).collect();
        let mut attempts = Vec::new();
        for task in tasks {
            attempts.push(task.await.unwrap());
        }
        let closed = wal.close().await;
        assert!(closed.is_ok() || closed.is_err_and(|error| error.is_poisoned()));
        for task in looking {
            task.await.unwrap();
        }
        disk.heal();
        // Before the next open, which rewrites bytes that only the page cache holds.
        verify(&records(&disk_after(&disk).await).await, &attempts, Promise::Synced);
        let again = open_when_free(&disk).await;
        verify(&records(&again).await, &attempts, Promise::Written);
        verify(&records(&disk_after(&disk).await).await, &attempts, Promise::Written);
    });
}

#[test]
fn failed_sync_ends_all_waiters() {
    check(|| check_failure(Op::Sync));
}

#[test]
fn failed_write_ends_all_waiters() {
    check(|| check_failure(Op::Write));
}

/// The time of an append relative to the truncation.
#[derive(Clone, Copy, PartialEq)]
enum When {
    Before,
    Beside,
    After,
}

/// Records acknowledged before a truncation of the end are gone, those begun after it are there,
/// and every call returns.
#[test]
fn truncate_after_beside_appends() {
    use std::sync::atomic::{AtomicU8, Ordering};
    check(|| {
        block_on(async {
            let disk = Disk::new();
            let wal = small().open_with(disk.clone()).await.unwrap();
            let kept = wal.append(&[0; 8]).await.unwrap();
            // 0: not begun, 1: begun, 2: returned. A std atomic, so that shuttle does not switch
            // here.
            let phase = std::sync::Arc::new(AtomicU8::new(0));
            let appenders: Vec<_> = (1..3u8)
                .map(|task| {
                    let (wal, phase) = (wal.clone(), phase.clone());
                    spawn(async move {
                        let mut results = Vec::new();
                        for i in 0..4u8 {
                            let phase_before = phase.load(Ordering::SeqCst);
                            let payload = [task, i, 1, 1, 1, 1, 1, 1];
                            match wal.append_and_sync(&payload).await {
                                Ok(lsn) => {
                                    let when = match (phase_before, phase.load(Ordering::SeqCst)) {
                                        (2, _) => When::After,
                                        (_, 0) => When::Before,
                                        _ => When::Beside,
                                    };
                                    results.push((lsn, payload, when));
                                }
                                Err(Error::Truncated { .. }) => {}
                                Err(error) => panic!("{error}"),
                            }
                        }
                        results
                    })
                })
                .collect();
            // Larger than the ring.
            let large = spawn({
                let wal = wal.clone();
                async move { wal.append(&[9; 2000]).await.map(drop) }
            });
            let syncing = spawn({
                let wal = wal.clone();
                async move {
                    for _ in 0..4 {
                        match wal.sync().await {
                            Ok(_) | Err(Error::Truncated { .. }) => yield_now().await,
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
            let following = spawn({
                let mut follower = wal.follow(Lsn::ZERO);
                async move {
                    let mut seen: Vec<(Lsn, Vec<u8>)> = Vec::new();
                    while let Some(item) = follower.next().await {
                        match item {
                            Ok(record) => seen.push((record.lsn, record.payload.to_vec())),
                            Err(Error::Truncated { to }) => seen.retain(|(lsn, _)| *lsn < to),
                            Err(error) => panic!("{error}"),
                        }
                    }
                    seen
                }
            });
            for _ in 0..thread_rng().gen_range(0..20) {
                yield_now().await;
            }
            phase.store(1, Ordering::SeqCst);
            let end = wal.truncate_after(kept).await.unwrap();
            phase.store(2, Ordering::SeqCst);
            let mut results = Vec::new();
            for appender in appenders {
                results.extend(appender.await.unwrap());
            }
            let found = records(&disk_after(&disk).await).await;
            for (lsn, payload, when) in results {
                let is_there = found.iter().any(|(at, it)| *at == lsn && *it == payload);
                match when {
                    When::Before => assert!(lsn < end || !is_there, "{lsn} is back"),
                    When::After => assert!(is_there, "{lsn} is lost"),
                    When::Beside => {}
                }
            }
            let result = large.await.unwrap();
            assert!(result.is_ok() || matches!(result, Err(Error::Truncated { .. })), "{result:?}");
            syncing.await.unwrap();
            let expected = records(&wal).await;
            wal.close().await.unwrap();
            assert_eq!(
                following.await.unwrap(),
                expected,
                "records seen and not truncated must equal the log"
            );
        });
    });
}

/// Inline writes, a write job, a sync and a truncation: every call returns, and no record is
/// duplicate.
#[test]
fn inline_writes_beside_sync_job_and_truncation() {
    check(|| {
        block_on(async {
            let disk = Disk::new();
            let wal = small().open_with(disk.clone()).await.unwrap();
            let kept = wal.append(&[0; 8]).await.unwrap();
            let tasks: Vec<_> = (1..6u8)
                .map(|task| {
                    let wal = wal.clone();
                    spawn(async move {
                        for i in 0..3u8 {
                            let payload = [task, i, 1, 1, 1, 1, 1, 1];
                            let result = match task {
                                1 => wal.append_and_sync(&payload).await.map(drop),
                                2 => match wal.enqueue(&payload).await {
                                    Ok(ticket) => ticket.written().await.map(drop),
                                    Err(error) => Err(error),
                                },
                                _ => wal.append(&payload).await.map(drop),
                            };
                            match result {
                                Ok(()) | Err(Error::Truncated { .. }) => {}
                                Err(error) => panic!("{error}"),
                            }
                        }
                    })
                })
                .collect();
            for _ in 0..thread_rng().gen_range(0..12) {
                yield_now().await;
            }
            wal.truncate_after(kept).await.unwrap();
            for task in tasks {
                task.await.unwrap();
            }
            let shown = records(&wal).await;
            wal.close().await.unwrap();
            let found = records(&disk_after(&disk).await).await;
            assert_eq!(found, shown);
            let mut payloads: Vec<_> = found.iter().map(|(_, payload)| payload).collect();
            payloads.sort();
            payloads.dedup();
            assert_eq!(payloads.len(), found.len(), "a record came twice");
        });
    });
}

/// An append is polled once, then not until all other tasks have ended. No call may wait for it.
/// The ring has space for all records.
#[test]
fn yielding_append_blocks_no_other_task() {
    check(|| {
        block_on(async {
            let disk = Disk::new();
            let wal = small().open_with(disk.clone()).await.unwrap();
            let others: Vec<_> = (0..4u8)
                .map(|task| {
                    let wal = wal.clone();
                    spawn(async move {
                        match task {
                            0 => drop(wal.append(&[task]).await.unwrap()),
                            1 => drop(wal.append_and_sync(&[task]).await.unwrap()),
                            2 => wal.enqueue(&[task]).await.unwrap().written().await.unwrap(),
                            _ => drop(wal.append_batch([&[task], &[9]]).await.unwrap()),
                        }
                    })
                })
                .collect();
            for _ in 0..thread_rng().gen_range(0..4) {
                yield_now().await;
            }
            let mut append = Box::pin(wal.append(&[9]));
            let polled = futures::poll!(append.as_mut());
            if thread_rng().gen_range(0..2) == 0 {
                for other in others {
                    other.await.unwrap();
                }
                wal.close().await.unwrap();
                return;
            }
            for other in others {
                other.await.unwrap();
            }
            if polled.is_pending() {
                append.await.unwrap();
            }
        });
    });
}
