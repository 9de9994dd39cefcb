//! Power cuts: after every storage operation, with many survivals each, also during recovery, also
//! after a flush that failed. What was acknowledged must be there, in order, and nothing else.
//!
//! `HIGHWATER_SEEDS` multiplies the budget; `HIGHWATER_SEED` replays one seed.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and what it covered is said"
)]

mod contract;
mod support;

use std::{collections::BTreeMap, time::Duration};

use contract::{
    block_on,
    in_place::{prepared, write_in_place_by},
    open, read_all,
    storm::{storm, storm_of_lies},
    sweep::{Depth, FULL, Tally, fail_syncs, fail_syncs_of, sweep, sweep_simulated},
    with_compression,
    workload::{Action, Running, Script, random_script},
};
use highwater::{
    Lsn,
    simulation::{Disk, Faults, Op, Random, Survival, for_each_seed},
};
use support::reached;

fn sweep_seeds(count: u64, mut run: impl FnMut(u64, &mut Tally) -> Result<(), String>) {
    let mut tally = Tally::default();
    for_each_seed(count, |seed| {
        if let Err(what) = run(seed, &mut tally) {
            panic!("{what}");
        }
    });
    println!("{tally}");
    assert!(tally.images > 0, "the sweep swept something");
}

#[test]
fn random_workloads_survive_a_power_cut_after_every_operation() {
    sweep_seeds(28, |seed, tally| sweep(seed, &random_script(seed), FULL, tally));
}

/// The same with flushes that overlap writes, appends and rotations, in an order by seed.
#[test]
fn simulated_workloads_survive_a_power_cut_after_every_operation() {
    sweep_seeds(48, |seed, tally| sweep_simulated(seed, FULL, tally));
}

/// Compressed and plain records in one log, by logs opened with and without compression.
#[test]
fn compressed_workloads_survive_a_power_cut_after_every_operation() {
    with_compression(|| {
        sweep_seeds(2, |seed, tally| sweep(seed, &random_script(seed), FULL, tally));
        sweep_seeds(2, |seed, tally| sweep_simulated(seed, FULL, tally));
        sweep_seeds(3, |seed, tally| fail_syncs(seed, Running::InPlace, tally));
    });
}

#[test]
fn a_failed_sync_then_a_reopening_on_the_same_boot_then_a_power_cut_lose_nothing() {
    sweep_seeds(40, |seed, tally| fail_syncs(seed, Running::InPlace, tally));
}

#[test]
fn a_failed_sync_that_overlaps_other_work_loses_nothing() {
    sweep_seeds(40, |seed, tally| fail_syncs(seed, Running::Simulated, tally));
}

#[test]
fn storms_of_faults_lose_nothing_acknowledged() {
    sweep_seeds(400, storm);
}

#[test]
fn a_medium_that_lies_is_found_out() {
    sweep_seeds(400, storm_of_lies);
}

#[test]
fn scripted_workloads_survive_a_power_cut_after_every_operation() {
    use Action::{Append, AppendAndSync, Batch, Enqueue, Sync};
    let session = |actions: Vec<Action>, closes| (vec![actions], closes);
    // A segment has room for 4096 bytes of frames: sizes that end on it, next to it and past it.
    let scripts = [
        ("an empty log", vec![session(vec![], true), session(vec![], false)]),
        (
            "a segment filled to its last byte",
            vec![session(
                vec![Append(1000), Append(1000), Append(1000), AppendAndSync(1008), Append(8)],
                true,
            )],
        ),
        (
            "no room for the mark",
            vec![
                session(vec![Append(2000), AppendAndSync(2048), AppendAndSync(8)], true),
                session(vec![Sync, AppendAndSync(10)], false),
            ],
        ),
        (
            "no room for the close",
            vec![
                session(vec![Append(2000), Append(2048)], true),
                session(vec![AppendAndSync(10)], true),
            ],
        ),
        (
            "a unit larger than a segment between others",
            vec![session(
                vec![
                    AppendAndSync(100),
                    Append(20 << 10),
                    Enqueue(5),
                    Batch(vec![9000, 9000]),
                    Sync,
                ],
                false,
            )],
        ),
        (
            "three segments and no sync",
            vec![session((0..12).map(|_| Append(1000)).collect(), false)],
        ),
        (
            "reopened again and again without a close",
            vec![
                session(vec![Append(100)], false),
                session(vec![], false),
                session(vec![AppendAndSync(100), Append(10)], false),
                session(vec![Batch(vec![20, 30])], false),
                session(vec![], false),
            ],
        ),
    ];
    let mut tally = Tally::default();
    for (name, sessions) in scripts {
        let depth = Depth { survivals: 4, recovery_one_in: 12 };
        let script = Script { sessions };
        let swept = sweep(1, &script, depth, &mut tally)
            .and_then(|()| fail_syncs_of(&script, 1, Running::InPlace, &mut tally));
        if let Err(what) = swept {
            panic!("{name}: {what}");
        }
    }
    println!("{tally}");
}

/// ```text
/// syncer: takes [A] ---- fsync A ------------------------------- answers
/// writer:                       writes more to A, seals it, begins B
/// ```
///
/// The flush of A covers nothing that was written while it ran, though A is sealed when it ends.
#[test]
fn a_flush_that_overlaps_a_rotation_covers_only_what_was_written_before_it() {
    let disk = Disk::new(1);
    let faults = Faults::new();
    let storage = faults.over(disk.clone()).on_pool();
    let acknowledged = block_on(async {
        let wal = open(storage).await.unwrap();
        wal.append_and_sync(&[1; 100]).await.unwrap();
        let gate = faults.on(Op::Sync).afterwards().once().gate();
        let syncing = wal.enqueue(&[2; 100]).await.unwrap();
        let first = tokio::join!(syncing.synced(), async {
            reached(&gate, 1).await;
            // The flush of the first segment is over and not answered: these fill it and the next.
            for i in 3..9u8 {
                wal.append(&[i; 1000]).await.unwrap();
            }
            assert!(wal.stats().rotation_count > 0, "the log rotated meanwhile");
            gate.open();
        });
        first.0.unwrap();
        wal.sync().await.unwrap();
        wal.watermarks().synced
    });
    block_on(async {
        let wal = open(disk.crash(Survival::Nothing)).await.unwrap();
        assert!(
            wal.recovery().end >= acknowledged,
            "acknowledged up to {acknowledged}, {}",
            wal.recovery()
        );
        assert_eq!(read_all(&wal).await.unwrap().len(), 8);
    });
}

/// Flushes that overlap writes, rotations and each other's waiters, on real threads.
#[test]
fn many_threads_lose_nothing_acknowledged_when_the_power_goes() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let mut acknowledged_count = 0;
    for_each_seed(60, |seed| {
        let mut random = Random::new(seed);
        let disk = Disk::new(seed).cut_after(40 + random.below(1500) as u64);
        let tasks = many_tasks(disk.clone(), seed);
        let tasks = async { tokio::time::timeout(Duration::from_secs(30), tasks).await };
        let acknowledged = runtime.block_on(tasks).unwrap_or_else(|_| panic!("seed {seed} hangs"));
        acknowledged_count += acknowledged.len();
        for survival in [Survival::Nothing, Survival::Random(seed)] {
            let found = block_on(async {
                let wal = open(disk.crash(survival)).await.unwrap();
                read_all(&wal).await.unwrap()
            });
            let found: BTreeMap<_, _> = found.into_iter().collect();
            for (lsn, payload) in &acknowledged {
                let kept = found.get(lsn) == Some(payload);
                assert!(kept, "seed {seed}, {survival:?}: {lsn} was acknowledged");
            }
        }
    });
    println!("{acknowledged_count} acknowledged records");
    assert!(acknowledged_count > 0);
}

/// Appends from many tasks until the power goes, and says what was acknowledged as synced.
async fn many_tasks(disk: Disk, seed: u64) -> Vec<(Lsn, Vec<u8>)> {
    let faults = Faults::with_seed(seed);
    faults.record(false);
    // Its work is done and not yet known: what is written now is not covered.
    faults.on(Op::Sync).afterwards().delay(Duration::from_micros(500));
    write_in_place_by(seed);
    let Ok(wal) = open(faults.over(prepared(disk)).on_pool()).await else {
        return Vec::new();
    };
    let tasks = (0..6u64).map(|task| {
        let wal = wal.clone();
        tokio::spawn(async move {
            let mut random = Random::new(seed << 8 | task);
            let mut acknowledged = Vec::new();
            loop {
                let payload = vec![random.next_u64() as u8; random.below(600)];
                // Some only ever append: they write and rotate while the others' flush runs.
                if task % 2 == 0 || random.one_in(4) {
                    if wal.append(&payload).await.is_err() {
                        return acknowledged;
                    }
                    continue;
                }
                let Ok(lsn) = wal.append_and_sync(&payload).await else {
                    return acknowledged;
                };
                acknowledged.push((lsn, payload));
            }
        })
    });
    let mut acknowledged = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        acknowledged.extend(task.await.unwrap());
    }
    acknowledged
}
