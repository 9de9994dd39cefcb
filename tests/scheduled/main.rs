//! The whole pipeline under schedules of shuttle's choosing, over files in memory:
//! `RUSTFLAGS="--cfg shuttle" cargo test --release --test scheduled`.
//!
//! Locks, atomics, storage calls and the starting of jobs are where it may switch. It finds a waiter
//! that nobody wakes as a deadlock. All orderings count as sequentially consistent here; what weaker
//! ones allow is for the models under loom, beside the types that they model.
//!
//! `HIGHWATER_SCHEDULES` says how many schedules of each kind a test runs. A failure names a seed:
//! `SHUTTLE_RANDOM_SEED=… cargo test … <the test>` runs it again.

#![cfg(shuttle)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on panics"
)]

mod disk;
mod load;

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

/// Takes a few seconds for each test.
const SCHEDULES: usize = 4000;

/// How many changes of priority a PCT schedule has, and one.
const PCT_DEPTH: usize = 4;

/// Names the seed of the schedules that were being run if one of them fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("run it again: SHUTTLE_RANDOM_SEED={} (PCT)", self.0);
        }
    }
}

/// Runs `test` under random schedules, and under those of PCT, which switches rarely.
fn check(test: fn()) {
    let count = std::env::var("HIGHWATER_SCHEDULES")
        .map_or(SCHEDULES, |count| count.parse().expect("HIGHWATER_SCHEDULES is a number"));
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    // Seeds are shorter.
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

/// Every task ends, and so does `close`; what was acknowledged is there, also after a power loss.
#[test]
fn what_is_acknowledged_is_there() {
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
    small().open_with(disk.after_power_loss()).await.expect("a power loss is no corruption")
}

/// Nobody comes after them whose work would carry theirs along.
#[test]
fn each_of_a_few_ends_by_itself() {
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

/// Those before `close` are kept, those after it are refused, and it frees the lock.
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
                // The close frame, if nothing else: it is synced before the log is closed.
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
            // Other handles are there, and hold no lock.
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

/// One that is as small as the close frame, and had been let in, fits into the room which that gives
/// back: nothing stands behind the close frame all the same.
#[test]
fn the_smallest_appends_beside_close() {
    check(|| {
        block_on(async {
            let disk = Disk::new();
            let wal = small().open_with(disk.clone()).await.unwrap();
            // All of the ring, so that they have to wait for room; behind `close`, if they are late.
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

/// The same of a log that begins later, which is noted right before the close: nobody comes between.
#[test]
fn the_smallest_appends_beside_the_close_of_a_truncated_log() {
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

/// The last handle goes while jobs run: what has its place is written, and the lock is freed.
#[test]
fn the_last_handle_is_dropped_under_load() {
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

/// Everybody is answered; nobody is told that what the failure took is there.
fn a_failure(op: Op) {
    block_on(async move {
        let disk = Disk::new();
        let wal = small().open_with(disk.clone()).await.unwrap();
        disk.fail(op, thread_rng().gen_range(0..6));
        let looking = [spawn(look(wal.clone(), 20)), spawn(watch(wal.clone()))];
        let tasks: Vec<_> =
            (0..3).map(|task| spawn(work(wal.clone(), task, 4, Error::is_poisoned))).collect();
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
        // Before the other, which writes anew what only the page cache shows.
        verify(&records(&disk_after(&disk).await).await, &attempts, Promise::Synced);
        let again = open_when_free(&disk).await;
        verify(&records(&again).await, &attempts, Promise::Written);
        verify(&records(&disk_after(&disk).await).await, &attempts, Promise::Written);
    });
}

#[test]
fn a_sync_that_fails_beside_those_who_wait() {
    check(|| a_failure(Op::Sync));
}

#[test]
fn a_write_that_fails_beside_those_who_wait() {
    check(|| a_failure(Op::Write));
}

/// When an append was asked for and answered, with respect to the truncation.
#[derive(Clone, Copy, PartialEq)]
enum When {
    Before,
    Beside,
    After,
}

/// What was answered before a truncation of the end is gone, what was asked for after it is there,
/// and everybody is answered.
#[test]
fn a_truncation_of_the_end_beside_appends() {
    use std::sync::atomic::{AtomicU8, Ordering};
    check(|| {
        block_on(async {
            let disk = Disk::new();
            let wal = small().open_with(disk.clone()).await.unwrap();
            let kept = wal.append(&[0; 8]).await.unwrap();
            // 0: not asked for, 1: asked for, 2: answered. Not one of shuttle's: it orders nothing.
            let phase = std::sync::Arc::new(AtomicU8::new(0));
            let appenders: Vec<_> = (1..3u8)
                .map(|task| {
                    let (wal, phase) = (wal.clone(), phase.clone());
                    spawn(async move {
                        let mut answers = Vec::new();
                        for i in 0..4u8 {
                            let asked = phase.load(Ordering::SeqCst);
                            let payload = [task, i, 1, 1, 1, 1, 1, 1];
                            match wal.append_and_sync(&payload).await {
                                Ok(lsn) => {
                                    let when = match (asked, phase.load(Ordering::SeqCst)) {
                                        (2, _) => When::After,
                                        (_, 0) => When::Before,
                                        _ => When::Beside,
                                    };
                                    answers.push((lsn, payload, when));
                                }
                                Err(Error::Truncated { .. }) => {}
                                Err(error) => panic!("{error}"),
                            }
                        }
                        answers
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
            let mut answers = Vec::new();
            for appender in appenders {
                answers.extend(appender.await.unwrap());
            }
            let found = records(&disk_after(&disk).await).await;
            for (lsn, payload, when) in answers {
                let is_there = found.iter().any(|(at, it)| *at == lsn && *it == payload);
                match when {
                    When::Before => assert!(lsn < end || !is_there, "{lsn} is back"),
                    When::After => assert!(is_there, "{lsn} is lost"),
                    When::Beside => {}
                }
            }
            let answer = large.await.unwrap();
            assert!(answer.is_ok() || matches!(answer, Err(Error::Truncated { .. })), "{answer:?}");
            syncing.await.unwrap();
            let expected = records(&wal).await;
            wal.close().await.unwrap();
            assert_eq!(following.await.unwrap(), expected, "what it saw, less what was taken back");
        });
    });
}

/// Appends that write themselves, one that is written by a job, one that is synced, and a cut: all
/// are answered, and what is left was appended once.
#[test]
fn writers_in_place_beside_a_sync_a_write_job_and_a_cut() {
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
                            let answer = match task {
                                1 => wal.append_and_sync(&payload).await.map(drop),
                                2 => match wal.enqueue(&payload).await {
                                    Ok(ticket) => ticket.written().await.map(drop),
                                    Err(error) => Err(error),
                                },
                                _ => wal.append(&payload).await.map(drop),
                            };
                            match answer {
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
            assert_eq!(payloads.len(), found.len(), "a record is there twice");
        });
    });
}

/// An append is polled once, and again only when everybody else is done: nobody waits for it. (The ring
/// has room for all. One that has to wait for room may be given some while nobody polls it, and keeps
/// it until it is polled: so are the semaphores that it waits with.)
#[test]
fn nobody_waits_for_an_append_that_lets_others_go_first() {
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
            let answer = futures::poll!(append.as_mut());
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
            if answer.is_pending() {
                append.await.unwrap();
            }
        });
    });
}
