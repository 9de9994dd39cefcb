//! Conditional appends: of several that expect the same end, exactly one gets its place.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod support;

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream::FuturesUnordered};
use highwater::{
    Error, Lsn, Record, Result, Wal,
    sabotage::{Sabotage, with},
    simulation::{Disk, Faults, Op, Simulation, Survival},
    storage::{MemoryStorage, Storage},
};
use support::{poll_and_drop, small, tiny};

fn end_of_conflict(result: Result<Lsn>) -> Option<Lsn> {
    match result {
        Err(Error::Conflict { end, .. }) => Some(end),
        _ => None,
    }
}

async fn all(wal: &Wal) -> Vec<Record> {
    wal.replay(..).try_collect().await.unwrap()
}

#[tokio::test]
async fn append_if_succeeds_only_at_the_end() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let first = wal.append_if(Lsn::ZERO, "first").await.unwrap();
    let end = wal.watermarks().reserved;
    assert_eq!(end_of_conflict(wal.append_if(Lsn::ZERO, "late").await), Some(end));
    assert_eq!(end_of_conflict(wal.append_if(first, "late").await), Some(end));
    let inside = Lsn::new(first.as_u64() + 8);
    assert_eq!(end_of_conflict(wal.append_if(inside, "no boundary").await), Some(end));
    let above = Lsn::new(end.as_u64() + 800);
    assert_eq!(end_of_conflict(wal.append_if(above, "early").await), Some(end));
    let error = wal.append_if(Lsn::ZERO, "late").await.unwrap_err().to_string();
    assert!(error.contains(&format!("ends at LSN {end}, not at 0")), "{error}");

    let ticket = wal.enqueue_if(end, "second").await.unwrap();
    ticket.synced().await.unwrap();
    let range = wal.append_batch_if(ticket.end(), ["third", "fourth"]).await.unwrap();
    let empty = wal.append_batch_if(range.end, Vec::<&str>::new()).await.unwrap();
    assert!(empty.is_empty());
    let refused = wal.append_batch_if(range.start, Vec::<&str>::new()).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })));
    let payloads: Vec<_> = all(&wal).await.into_iter().map(|record| record.payload).collect();
    assert_eq!(payloads, ["first", "second", "third", "fourth"]);
}

/// Marks, closes and truncations write control records behind the last record.
#[tokio::test]
async fn control_records_are_no_growth() {
    let storage = MemoryStorage::new();
    let mut wal = tiny().open_with(storage.clone()).await.unwrap();
    let mut end = Lsn::ZERO;
    for round in 0..60_usize {
        let payload = vec![b'x'; round * 53 % 600];
        let ticket = wal.enqueue_if(end, payload).await.unwrap_or_else(|e| panic!("{round}: {e}"));
        ticket.synced().await.unwrap();
        let known = end;
        end = ticket.end();
        match round % 6 {
            1 => {
                wal.close().await.unwrap();
                wal = tiny().open_with(storage.clone()).await.unwrap();
            }
            3 => {
                wal.truncate_before(wal.watermarks().reserved).await.unwrap();
            }
            4 => {
                wal.truncate_before(ticket.lsn()).await.unwrap();
                wal.truncate_before(wal.watermarks().reserved).await.unwrap();
            }
            5 => {
                // The log ends earlier again. Then the same positions are used once more.
                let other = wal.append_and_sync("cut").await.unwrap();
                assert!(end_of_conflict(wal.append_if(end, "late").await).is_some());
                let last = ticket.lsn();
                assert!(other > last);
                if wal.watermarks().first <= last {
                    assert_eq!(wal.truncate_after(last).await.unwrap(), end);
                } else {
                    end = wal.truncate_after(None).await.unwrap();
                }
            }
            _ => {}
        }
        let refused = end_of_conflict(wal.append_if(known, "late").await);
        assert!(refused.is_some_and(|now| now >= end), "{round}: {refused:?}");
    }
    assert!(wal.segments()[0].start > Lsn::ZERO, "the log has rotated");
}

/// Control records follow the last record, and one of them can't be read. It may be a record, so
/// the append fails with the place, and not with `Conflict`.
#[tokio::test]
async fn unreadable_frame_is_no_conflict() {
    for (damages, reads) in [(false, true), (true, true), (false, false)] {
        let faults = Faults::new();
        let storage = MemoryStorage::new();
        let wal = small().open_with(faults.over(storage.clone())).await.unwrap();
        let end = wal.enqueue("the last record").await.unwrap().end();
        wal.truncate_before(end).await.unwrap();
        let control_end = wal.watermarks().reserved;
        assert!(control_end > end);
        if damages {
            let file = storage.open("00000000000000000001.wal").unwrap();
            let at = 4096 + end.as_u64();
            file.write_at(&[0xff], at + 3).unwrap();
        }
        if !reads {
            faults.on(Op::Read).fail(std::io::ErrorKind::Other);
        }
        let refused = wal.append_if(end, "next").await;
        match (damages, reads) {
            (false, true) => assert!(refused.unwrap() >= control_end),
            (true, _) => match refused.unwrap_err() {
                Error::Corrupt { directory, segment, offset, lsn, .. } => {
                    assert_eq!((segment.as_str(), lsn), ("00000000000000000001.wal", end));
                    assert_eq!((directory.is_empty(), offset), (false, 4096 + end.as_u64()));
                }
                error => panic!("{error}"),
            },
            (false, false) => match refused.unwrap_err() {
                Error::Io { path, offset, .. } => {
                    assert_eq!(
                        (path.as_str(), offset.is_some()),
                        ("00000000000000000001.wal", true)
                    );
                }
                error => panic!("{error}"),
            },
        }
        faults.heal();
        if !damages {
            assert_eq!(all(&wal).await.len(), usize::from(reads), "a refused append left a record");
        }
    }
}

#[tokio::test]
async fn units_larger_than_the_ring_are_conditional() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let large = vec![7; 5000];
    let lsn = wal.append_if(Lsn::ZERO, &large).await.unwrap();
    assert!(end_of_conflict(wal.append_if(Lsn::ZERO, &large).await).is_some());
    let end = wal.read(lsn).await.unwrap().end;
    let batch = wal.append_batch_if(end, vec![&large[..], &large[..]]).await.unwrap();
    assert!(wal.append_batch_if(end, vec![&large[..]]).await.is_err());
    wal.append_if(batch.end, "small").await.unwrap();
    assert_eq!(all(&wal).await.len(), 4);
}

/// Each record holds the end that its append expected. Returns the first record that another record
/// precedes behind that end.
fn misplaced(records: &[Record]) -> Option<Lsn> {
    let mut before = Lsn::ZERO;
    for record in records {
        let bytes = record.payload.first_chunk::<8>().copied();
        let expected = bytes.map(|bytes| Lsn::new(u64::from_le_bytes(bytes)));
        if expected.is_some_and(|expected| expected < before || expected > record.lsn) {
            return Some(record.lsn);
        }
        before = record.end;
    }
    None
}

/// Appends `count` records, each behind the newest end that the task has seen. Returns how often
/// another task came first.
async fn compete(wal: &Wal, task: u8, count: usize) -> usize {
    let (mut end, mut conflict_count, mut appended_count) = (Lsn::ZERO, 0, 0);
    while appended_count < count {
        let mut payload = end.as_u64().to_le_bytes().to_vec();
        payload.resize(9 + usize::from(task) * 11, task);
        match wal.enqueue_if(end, payload).await {
            Ok(ticket) => {
                end = ticket.end();
                appended_count += 1;
                if task % 3 == 0 {
                    ticket.synced().await.unwrap();
                }
            }
            Err(Error::Conflict { end: now, .. }) => {
                conflict_count += 1;
                end = now;
            }
            Err(error) => panic!("{error}"),
        }
    }
    conflict_count
}

#[test]
fn one_of_several_competing_appends_wins() {
    for worker_count in [0, 4] {
        let runtime = match worker_count {
            0 => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            _ => tokio::runtime::Builder::new_multi_thread()
                .worker_threads(worker_count)
                .enable_all()
                .build()
                .unwrap(),
        };
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let wal = Arc::new(small().open(directory.path()).await.unwrap());
            let tasks: Vec<_> = (0..8)
                .map(|task| {
                    let wal = Arc::clone(&wal);
                    tokio::spawn(async move { compete(&wal, task, 40).await })
                })
                .collect();
            let mut conflict_count = 0;
            for task in tasks {
                conflict_count += tokio::time::timeout(std::time::Duration::from_secs(60), task)
                    .await
                    .expect("the tasks make progress")
                    .unwrap();
            }
            let records = all(&wal).await;
            assert_eq!(records.len(), 8 * 40);
            assert_eq!(misplaced(&records), None);
            assert!(conflict_count > 0);
        });
    }
}

/// Competes on a simulated disk, beside appends without a condition, and cuts the power at the end.
fn competed(seed: u64) -> (Option<Lsn>, usize) {
    let disk = Disk::new(seed);
    let (found, crashed) = Simulation::new(seed).run(async {
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let tasks: FuturesUnordered<_> = (1..5).map(|task| compete(&wal, task, 6)).collect();
        let others = async {
            for _ in 0..6 {
                wal.append("short").await.unwrap();
            }
        };
        futures::join!(tasks.collect::<Vec<_>>(), others);
        (all(&wal).await, disk.crash(Survival::Nothing))
    });
    let recovered = Simulation::new(seed).run(async {
        let wal = tiny().open_with(crashed).await.unwrap();
        all(&wal).await
    });
    assert_eq!(recovered, found[..recovered.len()]);
    (misplaced(&found), found.len())
}

#[test]
fn competing_appends_keep_their_condition() {
    for seed in 0..100 {
        let (misplaced, count) = competed(seed);
        assert_eq!((misplaced, count), (None, 30), "seed {seed}");
    }
}

/// Four threads compete, each with this mistake. Returns the first misplaced record.
fn competed_by_threads(mistake: Option<Sabotage>) -> Option<Lsn> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let wal = runtime.block_on(small().open_with(MemoryStorage::new())).unwrap();
    std::thread::scope(|scope| {
        for task in 1..5 {
            let (wal, handle) = (&wal, runtime.handle());
            scope.spawn(move || {
                let run = || handle.block_on(compete(wal, task, 50));
                mistake.map_or_else(run, |mistake| with(mistake, run))
            });
        }
    });
    misplaced(&runtime.block_on(all(&wal)))
}

/// Negative control: an append that checks the end and then takes the next place.
#[test]
fn append_that_forgets_its_condition_is_caught() {
    assert_eq!(competed_by_threads(None), None);
    assert!((0..10).any(|_| competed_by_threads(Some(Sabotage::ForgetConflict)).is_some()));
}

#[tokio::test]
async fn dropped_conditional_append_leaves_nothing_or_all() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let mut end = Lsn::ZERO;
    for _ in 0..50 {
        poll_and_drop(wal.append_if(end, "dropped"), 1, |_| ());
        let records = all(&wal).await;
        end = records.last().map_or(Lsn::ZERO, |record| record.end);
        assert!(
            records.iter().all(|record| record.payload == "dropped" || record.payload == "kept")
        );
        wal.append_if(end, "kept").await.unwrap();
        end = all(&wal).await.last().unwrap().end;
    }
}
