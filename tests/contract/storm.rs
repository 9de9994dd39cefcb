//! Storms: every fault that a disk may honestly have, by chance and by number, under a workload in
//! an order that the seed decides; then the end of the process, or a loss of power.

use std::{io::ErrorKind, time::Duration};

use futures::StreamExt;
use highwater::{
    Lsn, Wal,
    simulation::{Disk, Op, Random, Simulation, Survival},
};

use super::{
    Found, block_on,
    in_place::{prepared, write_in_place_by},
    open,
    oracle::Oracle,
    recycle_by,
    sweep::{Tally, live_on},
    workload::{Running, random_script, run, run_noting, turnover_script},
};

/// Transfers that come short or are interrupted, and operations that take long: none of them is a
/// failure, and nobody may notice.
fn plan_nuisances(disk: &Disk, random: &mut Random) {
    let faults = disk.faults();
    let one_in = 2 + random.below(20);
    faults.on(Op::Write).one_in(one_in).short(1 + random.below(700));
    faults.on(Op::Read).one_in(one_in).short(1 + random.below(700));
    for op in [Op::Write, Op::Read, Op::Sync, Op::SyncDir] {
        faults.on(op).one_in(one_in * 3).fail(ErrorKind::Interrupted);
        faults.on(op).one_in(one_in * 2).delay(Duration::from_millis(1));
    }
    faults.on(Op::WriteNonblocking).one_in(one_in * 2).delay(Duration::from_millis(1));
}

/// One failure, or a disk that is full.
fn plan_failure(disk: &Disk, random: &mut Random) {
    let faults = disk.faults();
    let skip = random.below(60) as u64;
    match random.below(8) {
        0 => faults.on(Op::Write).skip(skip).once().fail_os(5),
        1 => faults.on(Op::Sync).skip(skip / 2).once().fail_os(5),
        2 => faults.on(Op::SyncDir).skip(skip / 8).once().fail_os(5),
        3 => faults.on(Op::Create).skip(skip / 12).fail(ErrorKind::StorageFull),
        4 => disk.set_capacity_bytes((8 + random.below(60)) as u64 * 1024),
        5 => faults.on(Op::Write).skip(skip).once().land_late(1 + random.below(60) as u64),
        6 => faults.on(Op::Resize).skip(skip / 12).once().fail_os(5),
        _ => faults.on(Op::Write).one_in(30).fail_os(5),
    }
}

pub(crate) fn plan(disk: &Disk, random: &mut Random) {
    plan_nuisances(disk, random);
    if !random.one_in(4) {
        plan_failure(disk, random);
    }
}

/// What the disk honestly fails at loses nothing that was acknowledged.
pub(crate) fn storm(seed: u64, tally: &mut Tally) -> Result<(), String> {
    let mut random = Random::new(seed ^ 0x570a);
    write_in_place_by(seed);
    // The turnover is where files are used again: every other seed of those that recycle.
    recycle_by(seed);
    let script = if seed % 6 == 1 { turnover_script(seed) } else { random_script(seed) };
    let disk = prepared(Disk::new(seed));
    plan(&disk, &mut random);
    let oracle = Simulation::new(seed).run(run(&script, &disk, seed, Running::Simulated));
    disk.faults().land();
    disk.faults().heal();
    disk.set_capacity_bytes(u64::MAX);
    tally.cuts += 1;
    block_on(async {
        for survival in [Survival::Nothing, Survival::Everything, Survival::Random(seed)] {
            tally.images += 1;
            live_on(&disk.crash(survival), &oracle, u64::MAX, seed, false)
                .await
                .map_err(|what| format!("seed {seed}, {survival:?}: {what}"))?;
        }
        live_on(&disk, &oracle, u64::MAX, seed, true)
            .await
            .map_err(|what| format!("seed {seed}, on the same boot: {what}"))
    })
}

/// One or more lies of the medium: what it said was written is not what can be read.
fn plan_lies(disk: &Disk, random: &mut Random) {
    let faults = disk.faults();
    let (skip, times) = (random.below(60) as u64, 1 + random.below(3) as u64);
    match random.below(4) {
        0 => faults.on(Op::Write).skip(skip).times(times).flip_bit(),
        1 => faults.on(Op::Write).skip(skip).times(times).stale(),
        2 => faults.on(Op::Write).skip(skip).times(times).misdirect(),
        _ => faults.on(Op::Read).skip(skip).times(times).flip_bit(),
    }
}

/// A medium that lies is found out, or it took nothing away that anything surviving commits. What
/// is read is always what was appended.
pub(crate) fn storm_of_lies(seed: u64, tally: &mut Tally) -> Result<(), String> {
    let mut random = Random::new(seed ^ 0x11e5);
    recycle_by(seed);
    let script = if seed % 6 == 1 { turnover_script(seed) } else { random_script(seed) };
    let disk = Disk::new(seed);
    plan_lies(&disk, &mut random);
    let mut oracle = Oracle::default();
    oracle.is_lied_to = true;
    let oracle = block_on(run_noting(oracle, &script, &disk, seed, Running::InPlace));
    disk.faults().heal();
    tally.cuts += 1;
    block_on(async {
        for survival in [Survival::Nothing, Survival::Everything, Survival::Random(seed)] {
            tally.images += 1;
            let Ok(wal) = open(disk.crash(survival)).await else {
                // It was found out.
                continue;
            };
            let found = read_some(&wal).await;
            let committed = wal.recovery().committed;
            let (found, is_whole) = found;
            oracle
                .check_genuine(&found, if is_whole { committed } else { Lsn::ZERO })
                .map_err(|what| format!("seed {seed}, {survival:?}: {what}; {}", wal.recovery()))?;
        }
        Ok(())
    })
}

/// All records up to the first damage, and whether there was none.
async fn read_some(wal: &Wal) -> (Found, bool) {
    let mut found = Found::new();
    let mut replay = wal.replay(..);
    while let Some(item) = replay.next().await {
        match item {
            Ok(record) => found.push((record.lsn, record.payload.to_vec())),
            Err(_) => return (found, false),
        }
    }
    (found, true)
}
