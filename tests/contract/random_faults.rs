//! Random faults: every legal fault of a disk under a workload whose order a seed decides, then the
//! end of the process or a power cut.

use std::{io::ErrorKind, time::Duration};

use futures::StreamExt;
use highwater::{
    Lsn, Wal,
    simulation::{Disk, Op, Random, Simulation, Survival},
};

use super::{
    Found, block_on, configure_recycling,
    in_place::{configure_inline, prepared},
    open,
    oracle::Oracle,
    sweep::{Tally, check_and_append},
    workload::{Running, random_script, run, run_noting, turnover_script},
};

/// Adds short, interrupted and slow operations. None is a failure, so no call may return an error.
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

/// Adds one failure, or fills the disk.
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

/// Checks that legal faults of a disk lose no acknowledged record.
pub(crate) fn random_faults(seed: u64, tally: &mut Tally) -> Result<(), String> {
    let mut random = Random::new(seed ^ 0x570a);
    configure_inline(seed);
    // Every other seed that recycles runs the turnover script, because that one recycles most.
    configure_recycling(seed);
    let script = if seed % 6 == 1 { turnover_script(seed) } else { random_script(seed) };
    let disk = prepared(Disk::new(seed));
    plan(&disk, &mut random);
    let mut oracle = Simulation::new(seed).run(run(&script, &disk, seed, Running::Simulated));
    oracle.forget_groups();
    disk.faults().land();
    disk.faults().heal();
    disk.set_capacity_bytes(u64::MAX);
    tally.cuts += 1;
    block_on(async {
        for survival in [Survival::Nothing, Survival::Everything, Survival::Random(seed)] {
            tally.images += 1;
            tally.demanding += u64::from(oracle.demands(u64::MAX, false));
            check_and_append(&disk.crash(survival), &oracle, u64::MAX, seed, false)
                .await
                .map_err(|what| format!("seed {seed}, {survival:?}: {what}"))?;
        }
        check_and_append(&disk, &oracle, u64::MAX, seed, true)
            .await
            .map_err(|what| format!("seed {seed}, on the same boot: {what}"))
    })
}

/// Adds lies of the disk: later reads differ from the written bytes.
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

/// Checks that a lie of the disk is detected, or that it destroyed nothing that surviving bytes
/// commit to. Every record that is read was appended.
pub(crate) fn random_lies(seed: u64, tally: &mut Tally) -> Result<(), String> {
    let mut random = Random::new(seed ^ 0x11e5);
    configure_recycling(seed);
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
            tally.demanding += u64::from(oracle.demands(u64::MAX, false));
            let Ok(wal) = open(disk.crash(survival)).await else {
                // The lie was detected.
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

/// Returns the records up to the first damage, and whether there was no damage.
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
