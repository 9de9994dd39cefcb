//! Power cuts after each storage operation, also during recovery and after failed flushes. The
//! model is the oracle in `tests/contract`: each acknowledged record must be there, in order;
//! others may be there if they were appended.
//!
//! `HIGHWATER_SEEDS` multiplies the number of seeds; `HIGHWATER_SEED` replays one.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and the coverage is printed"
)]

mod contract;
mod support;

use std::{collections::BTreeMap, time::Duration};

use contract::{
    block_on,
    in_place::{configure_inline, prepared},
    open,
    random_faults::{random_faults, random_lies},
    read_all,
    sweep::{
        Depth, FULL, Tally, fail_syncs, fail_syncs_of, fill_disk, sweep, sweep_simulated,
        sweep_simulated_with_thread_settings,
    },
    with_compression, with_failing_waiters, with_retention,
    workload::{
        Action, Running, Script, displaced_script, random_script, slots_script, stalled_script,
    },
};
use highwater::{
    Lsn,
    simulation::{Disk, Faults, Op, Random, Survival, for_each_seed},
};
use support::reached;

/// Sweeps `count` seeds. `images_min` is far below the number of images that the seeds give.
/// `demanding_min` of the images must have acknowledged records.
fn sweep_seeds(
    count: u64,
    (images_min, demanding_min): (u64, u64),
    mut run: impl FnMut(u64, &mut Tally) -> Result<(), String>,
) {
    let mut tally = Tally::default();
    for_each_seed(count, |seed| {
        if let Err(what) = run(seed, &mut tally) {
            panic!("{what}");
        }
    });
    tally.assert_judged(images_min, demanding_min);
}

#[test]
fn random_workloads_survive_power_cuts() {
    sweep_seeds(28, (6_000, 5_000), |seed, tally| sweep(seed, &random_script(seed), FULL, tally));
}

#[test]
fn moving_slots_survive_power_cuts() {
    sweep_seeds(12, (4_000, 3_000), |seed, tally| sweep(seed, &slots_script(seed), FULL, tally));
    sweep_seeds(12, (4_000, 3_000), |seed, tally| {
        sweep_simulated_with_thread_settings(seed, &slots_script(seed), FULL, tally)
    });
}

/// The log drops its oldest segments by itself, beside the truncations of the script.
#[test]
fn retention_drops_no_record_that_it_keeps() {
    with_retention(|| {
        sweep_seeds(3, (1_500, 1_000), |seed, tally| sweep(seed, &slots_script(seed), FULL, tally));
        sweep_seeds(4, (1_500, 1_000), |seed, tally| {
            sweep_simulated_with_thread_settings(seed, &slots_script(seed), FULL, tally)
        });
        sweep_seeds(8, (1_500, 1_000), |seed, tally| sweep_simulated(seed, FULL, tally));
    });
}

/// The same in an order by seed, so that flushes overlap writes, appends and rotations.
#[test]
fn simulated_workloads_survive_power_cuts() {
    sweep_seeds(48, (9_000, 6_000), |seed, tally| sweep_simulated(seed, FULL, tally));
}

/// The log stops and keeps all acknowledged records, whether the power goes before or after it
/// notices.
#[test]
fn displaced_directories_keep_acknowledged_records() {
    sweep_seeds(8, (100, 50), |seed, tally| sweep(seed, &displaced_script(seed), FULL, tally));
}

/// The disk hangs until waiters fail, and the held operation lands late. A record whose commit is
/// unknown keeps its place, and a refused one is never read.
#[test]
fn hanging_disk_keeps_order_and_places() {
    let ((), failed_count) = with_failing_waiters(|| {
        sweep_seeds(40, (8_000, 4_000), |seed, tally| {
            sweep_simulated_with_thread_settings(seed, &stalled_script(seed), FULL, tally)
        });
    });
    println!("{failed_count} calls failed during stalls");
    assert!(failed_count >= 100 || std::env::var_os("HIGHWATER_SEED").is_some());
}

/// Compressed and plain records in one log. Each open has compression on or off.
#[test]
fn compressed_workloads_survive_power_cuts() {
    with_compression(|| {
        sweep_seeds(2, (600, 400), |seed, tally| sweep(seed, &random_script(seed), FULL, tally));
        sweep_seeds(2, (500, 300), |seed, tally| sweep_simulated(seed, FULL, tally));
        sweep_seeds(3, (75, 60), |seed, tally| fail_syncs(seed, Running::InPlace, tally));
    });
}

#[test]
fn failed_sync_reopen_and_power_cut_lose_nothing() {
    sweep_seeds(40, (800, 600), |seed, tally| fail_syncs(seed, Running::InPlace, tally));
}

#[test]
fn failed_sync_overlapping_work_loses_nothing() {
    sweep_seeds(40, (800, 600), |seed, tally| fail_syncs(seed, Running::Simulated, tally));
}

#[test]
fn full_disk_at_each_preparation_loses_nothing() {
    sweep_seeds(12, (30, 10), |seed, tally| fill_disk(seed, Running::InPlace, tally));
    sweep_seeds(12, (30, 10), |seed, tally| fill_disk(seed, Running::Simulated, tally));
}

#[test]
fn random_faults_keep_acknowledged_records() {
    sweep_seeds(400, (1_200, 500), random_faults);
}

#[test]
fn lying_disk_is_detected() {
    sweep_seeds(400, (1_200, 600), random_lies);
}

#[test]
fn scripted_workloads_survive_power_cuts() {
    use Action::{Append, AppendAndSync, Batch, Enqueue, Sync};
    let session = |actions: Vec<Action>, closes| (vec![actions], closes);
    // A segment holds 4096 bytes of frames. The sizes end on that limit, next to it, and above it.
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
            "no space for the mark",
            vec![
                session(vec![Append(2000), AppendAndSync(2048), AppendAndSync(8)], true),
                session(vec![Sync, AppendAndSync(10)], false),
            ],
        ),
        (
            "no space for the close",
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
            "reopened five times without a close",
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
    tally.assert_judged(800, 400);
}

/// ```text
/// syncer: takes [A] ---- fsync A ------------------------------- returns
/// writer:                       writes more to A, seals it, begins B
/// ```
///
/// The flush of A covers no bytes written during it, although A is sealed when it ends.
#[test]
fn flush_during_rotation_covers_only_earlier_writes() {
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
            // The first segment is flushed, but the sync has not returned. These records fill it
            // and the next.
            for i in 3..9u8 {
                wal.append(&[i; 1000]).await.unwrap();
            }
            assert!(wal.stats().rotation_count > 0, "the log must rotate");
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

/// Flushes overlap writes and rotations on real threads.
#[test]
fn power_cut_with_many_threads_keeps_acknowledged() {
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
    assert!(acknowledged_count >= 600, "too few records were acknowledged: {acknowledged_count}");
}

/// Appends from six tasks until the power goes. Returns the records acknowledged as synced.
async fn many_tasks(disk: Disk, seed: u64) -> Vec<(Lsn, Vec<u8>)> {
    let faults = Faults::with_seed(seed);
    faults.record(false);
    // The flush is done but has not returned: bytes written now are not covered.
    faults.on(Op::Sync).afterwards().delay(Duration::from_micros(500));
    configure_inline(seed);
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
                // Some tasks only append: they write and rotate during the flushes of the others.
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
