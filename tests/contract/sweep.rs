//! The sweeps: a loss of power after every operation, with many survivals, and what follows.

use std::{cell::RefCell, rc::Rc};

use futures::TryStreamExt;
use highwater::{
    Lsn, Reader, Wal,
    simulation::{Disk, Event, Image, Op, Random, Simulation, Survival},
};

use super::{
    Found, block_on,
    copies::check_copies,
    in_place::{prepared, write_in_place_by},
    open,
    oracle::Oracle,
    read_all, recycle_by,
    workload::{Action, Running, Script, Session, random_script, run},
};

/// What was swept.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) cuts: u64,
    pub(crate) images: u64,
    pub(crate) recovery_cuts: u64,
    pub(crate) recovery_images: u64,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { cuts, images, recovery_cuts, recovery_images } = self;
        write!(
            f,
            "{cuts} cuts and failures, {images} images; \
             {recovery_cuts} cuts of a recovery, {recovery_images} images"
        )
    }
}

/// How far one seed is taken.
#[derive(Clone, Copy)]
pub(crate) struct Depth {
    /// Random survivals of each cut.
    pub(crate) survivals: u64,
    /// One in this many images is also cut during its recovery.
    pub(crate) recovery_one_in: usize,
}

pub(crate) const FULL: Depth = Depth { survivals: 3, recovery_one_in: 25 };

/// All that is intact to a reader of a log that nobody has opened yet, and what is committed to it.
async fn read_beside(disk: &Disk) -> Result<(Found, Lsn), String> {
    let operation_count = disk.operation_count();
    let reader = Reader::options().written(true).open_with(disk.clone()).await;
    let reader = reader.map_err(|error| format!("a reader refuses: {error}"))?;
    let records: Vec<_> = reader
        .replay(..)
        .map_ok(|record| (record.lsn, record.payload.to_vec()))
        .try_collect()
        .await
        .map_err(|error| format!("a reader's replay: {error}"))?;
    if disk.operation_count() != operation_count {
        return Err("a reader changed something".to_owned());
    }
    Ok((records, reader.committed()))
}

pub(crate) async fn open_checked(
    disk: &Disk,
    oracle: &Oracle,
    at: u64,
    process_only: bool,
) -> Result<(Wal, Oracle), String> {
    let wal = open(disk.clone()).await.map_err(|error| format!("opening refuses: {error}"))?;
    let marks = wal.watermarks();
    if marks.synced != marks.written || marks.written != marks.reserved {
        return Err(format!("after opening: {marks:?}"));
    }
    if oracle.closed.contains(&at) && !wal.recovery().was_closed {
        return Err(format!("it was closed: {}", wal.recovery()));
    }
    let found = read_all(&wal).await?;
    let end = wal.recovery().end;
    oracle
        .check(&found, end, at, process_only)
        .map_err(|what| format!("{what}; {}", wal.recovery()))?;
    check_copies(disk, oracle, at).await?;
    let recovered = Oracle::recovered(found, marks.synced);
    Ok((wal, recovered))
}

/// Opens, checks, appends more, cuts the power again, and checks again.
pub(crate) async fn live_on(
    disk: &Disk,
    oracle: &Oracle,
    at: u64,
    seed: u64,
    process_only: bool,
) -> Result<(), String> {
    let (shown, committed) = read_beside(disk).await?;
    let (wal, recovered) = open_checked(disk, oracle, at, process_only).await?;
    // What recovery keeps is what was intact to a reader; so what it showed as committed is there.
    if !recovered.holds_exactly(&shown) || committed > wal.recovery().end {
        let report = wal.recovery();
        return Err(format!("a reader showed other records, committed {committed}: {report}"));
    }
    let session = Session {
        wal,
        disk: disk.clone(),
        oracle: Rc::new(RefCell::new(recovered)),
        next_id: Rc::new(RefCell::new(seed << 32 | 1 << 30)),
    };
    let mut random = Random::new(seed);
    for _ in 0..random.below(4) {
        let action = match random.below(6) {
            5 => Action::TruncateAfter(random.below(1 << 20)),
            4 => Action::TruncateBefore(random.below(1 << 20)),
            0 => Action::Append(random.below(2000)),
            1 => Action::Batch(vec![30, 40]),
            2 => Action::Enqueue(random.below(100)),
            _ => Action::AppendAndSync(random.below(300)),
        };
        session.run(&action, Running::InPlace).await.map_err(|e| e.to_string())?;
    }
    let after = session.oracle.take();
    drop(session);
    for survival in [Survival::Nothing, Survival::Random(seed ^ 0xa5a5)] {
        let again = disk.crash(survival);
        let (wal, _) = open_checked(&again, &after, u64::MAX, false)
            .await
            .map_err(|what| format!("after a second crash ({survival:?}): {what}"))?;
        drop(wal);
    }
    Ok(())
}

/// Cuts the power after each operation of an opening of `image`.
async fn cut_recovery(
    image: &Image,
    survivals: fn(u64) -> Vec<Survival>,
    oracle: &Oracle,
    at: u64,
    tally: &mut Tally,
) -> Result<(), String> {
    let whole = Disk::with_image(image.clone(), 5);
    drop(open(whole.clone()).await);
    for cut in 0..=whole.operation_count() {
        let disk = Disk::with_image(image.clone(), 5).cut_after(cut);
        drop(open(disk.clone()).await);
        tally.recovery_cuts += 1;
        for survival in survivals(cut) {
            tally.recovery_images += 1;
            let (wal, _) = open_checked(&disk.crash(survival), oracle, at, false)
                .await
                .map_err(|what| format!("recovery cut after {cut} ({survival:?}): {what}"))?;
            drop(wal);
        }
    }
    Ok(())
}

/// Every cut of what `disk` recorded while `oracle` noted.
pub(crate) fn sweep_record(
    disk: &Disk,
    oracle: &Oracle,
    seed: u64,
    depth: Depth,
    tally: &mut Tally,
) -> Result<(), String> {
    let mut random = Random::new(seed ^ 0xc0ffee);
    block_on(async {
        for cut in disk.power_cuts(depth.survivals) {
            tally.images += 1;
            tally.cuts += u64::from(cut.survival == Survival::Nothing);
            let case = |what: String| format!("seed {seed}, {cut}: {what}");
            let (image, at, case_seed) = (cut.image(), cut.operation, random.next_u64() >> 40);
            let disk = Disk::with_image(image.clone(), case_seed);
            // If everything survives, the end of the process alone would have left the same.
            let process_only = cut.survival == Survival::Everything;
            live_on(&disk, oracle, at, case_seed, process_only).await.map_err(case)?;
            if random.one_in(depth.recovery_one_in) {
                let survivals =
                    |cut| vec![Survival::Nothing, Survival::Everything, Survival::Random(cut)];
                cut_recovery(&image, survivals, oracle, at, tally).await.map_err(case)?;
            }
        }
        Ok(())
    })
}

/// One seed: runs the script once, in place, then cuts the power after each operation of it.
pub(crate) fn sweep(
    seed: u64,
    script: &Script,
    depth: Depth,
    tally: &mut Tally,
) -> Result<(), String> {
    recycle_by(seed);
    sweep_as_it_is(seed, script, depth, tally)
}

/// As [`sweep`], with logs that recycle as this thread has been told.
pub(crate) fn sweep_as_it_is(
    seed: u64,
    script: &Script,
    depth: Depth,
    tally: &mut Tally,
) -> Result<(), String> {
    let disk = Disk::new(seed).recording();
    let oracle = block_on(run(script, &disk, seed, Running::InPlace));
    sweep_record(&disk, &oracle, seed, depth, tally)
}

/// As [`sweep`], with tasks and the log's work in an order that the seed decides.
pub(crate) fn sweep_simulated(seed: u64, depth: Depth, tally: &mut Tally) -> Result<(), String> {
    recycle_by(seed);
    write_in_place_by(seed);
    sweep_simulated_as_it_is(seed, &random_script(seed), depth, tally)
}

/// As [`sweep_simulated`], of a script, with logs that recycle as this thread has been told.
pub(crate) fn sweep_simulated_as_it_is(
    seed: u64,
    script: &Script,
    depth: Depth,
    tally: &mut Tally,
) -> Result<(), String> {
    let disk = prepared(Disk::new(seed).recording());
    let oracle = Simulation::new(seed).run(run(script, &disk, seed, Running::Simulated));
    sweep_record(&disk, &oracle, seed, depth, tally)
}

/// Fails each flush of a script in turn, reopens on the same boot and then cuts the power.
pub(crate) fn fail_syncs(seed: u64, running: Running, tally: &mut Tally) -> Result<(), String> {
    recycle_by(seed);
    write_in_place_by(seed);
    fail_syncs_of(&random_script(seed), seed, running, tally)
}

pub(crate) fn fail_syncs_of(
    script: &Script,
    seed: u64,
    running: Running,
    tally: &mut Tally,
) -> Result<(), String> {
    let run_on = |disk: &Disk| match running {
        Running::InPlace => block_on(run(script, disk, seed, running)),
        Running::Simulated => Simulation::new(seed).run(run(script, disk, seed, running)),
    };
    for index in 0.. {
        let disk = Disk::new(seed);
        disk.faults().on(Op::Sync).skip(index).once().fail_os(5);
        let disk = prepared(disk);
        disk.faults().record(true);
        let oracle = run_on(&disk);
        let failed = |event: &Event| matches!(event, Event::Failed { op: Op::Sync, .. });
        if disk.faults().count(failed) == 0 {
            break;
        }
        disk.faults().record(false);
        tally.cuts += 1;
        let case = |what: String| format!("seed {seed}, flush {index} fails: {what}");
        block_on(async {
            // The power goes at once, or after the log was opened again on the same boot.
            for survival in [Survival::Nothing, Survival::Random(seed ^ index)] {
                tally.images += 1;
                live_on(&disk.crash(survival), &oracle, u64::MAX, index, false).await?;
            }
            let survivals = |cut| vec![Survival::Nothing, Survival::Random(cut)];
            cut_recovery(&disk.image(), survivals, &oracle, u64::MAX, tally).await?;
            live_on(&disk, &oracle, u64::MAX, index, true)
                .await
                .map_err(|what| format!("on the same boot: {what}"))
        })
        .map_err(case)?;
    }
    Ok(())
}
