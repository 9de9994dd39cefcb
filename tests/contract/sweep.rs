//! The sweeps: a power cut after each operation, with several survivals each, and the checks.

use std::{cell::RefCell, io::ErrorKind, rc::Rc};

use futures::TryStreamExt;
use highwater::{
    Lsn, Reader, Wal,
    simulation::{Disk, Event, Image, Op, Random, Simulation, Survival},
};

use super::{
    Found, block_on, configure_recycling,
    copies::check_copies,
    in_place::{configure_inline, prepared},
    open,
    oracle::Oracle,
    read_all,
    slots::{Handles, SlotAction, SlotNotes},
    workload::{Action, Running, Script, Session, random_script, run},
};

/// The numbers of what a sweep covered.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) cuts: u64,
    pub(crate) images: u64,
    pub(crate) recovery_cuts: u64,
    pub(crate) recovery_images: u64,
    /// Images of logs that had acknowledged records.
    pub(crate) demanding: u64,
}

impl Tally {
    /// Prints the numbers. Fails below these floors, because a sweep without images proves nothing.
    #[track_caller]
    #[allow(clippy::print_stdout, reason = "the coverage of a test is printed")]
    pub(crate) fn assert_judged(&self, images_min: u64, demanding_min: u64) {
        println!("{self}");
        // A single seed is a replay of a failure, so the floors do not apply.
        if std::env::var_os("HIGHWATER_SEED").is_some() {
            return;
        }
        assert!(
            self.images >= images_min && self.demanding >= demanding_min,
            "too few images: {self}; at least {images_min} images, {demanding_min} with \
             acknowledged records"
        );
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { cuts, images, recovery_cuts, recovery_images, demanding } = self;
        write!(
            f,
            "{cuts} cuts and failures, {images} images, {demanding} with acknowledged records; \
             {recovery_cuts} cuts of a recovery, {recovery_images} images"
        )
    }
}

/// The extent of the sweep of one seed.
#[derive(Clone, Copy)]
pub(crate) struct Depth {
    /// The number of random survivals of each cut.
    pub(crate) survivals: u64,
    /// One image in this many is also cut during its recovery.
    pub(crate) recovery_one_in: usize,
}

pub(crate) const FULL: Depth = Depth { survivals: 3, recovery_one_in: 25 };

/// Reads a log that is not open. Returns its records and its committed end.
async fn read_unopened(disk: &Disk) -> Result<(Found, Lsn), String> {
    let operation_count = disk.operation_count();
    let reader = Reader::options().written(true).open_with(disk.clone()).await;
    let reader = reader.map_err(|error| format!("a reader fails: {error}"))?;
    let records: Vec<_> = reader
        .replay(..)
        .map_ok(|record| (record.lsn, record.payload.to_vec()))
        .try_collect()
        .await
        .map_err(|error| format!("a reader's replay: {error}"))?;
    if disk.operation_count() != operation_count {
        return Err("a reader changed the disk".to_owned());
    }
    Ok((records, reader.committed()))
}

pub(crate) async fn open_checked(
    disk: &Disk,
    oracle: &Oracle,
    at: u64,
    process_only: bool,
) -> Result<(Wal, Oracle), String> {
    let wal = open(disk.clone()).await.map_err(|error| format!("opening fails: {error}"))?;
    let marks = wal.watermarks();
    if marks.synced != marks.written || marks.written != marks.reserved {
        return Err(format!("after opening: {marks:?}"));
    }
    if oracle.closed.contains(&at) && !wal.recovery().was_closed {
        return Err(format!("it was closed, but opens as: {}", wal.recovery()));
    }
    let found = read_all(&wal).await?;
    let end = wal.recovery().end;
    oracle
        .check(&found, (marks.first, end), at, process_only)
        .map_err(|what| format!("{what}; {}", wal.recovery()))?;
    oracle.check_claims(wal.recovery().committed, at)?;
    check_copies(disk, oracle, at).await?;
    let slots = wal.slots();
    oracle
        .check_slots(&slots, marks.first, at)
        .map_err(|what| format!("{what}; {}", wal.recovery()))?;
    let mut recovered = Oracle::recovered(found, marks.synced);
    let began = recovered.begin_truncate_before(marks.first, 0);
    recovered.end_truncate_before(began, Some(marks.first), 0);
    recovered.slots = SlotNotes::recovered(&slots);
    Ok((wal, recovered))
}

/// Opens and checks the log, appends more, cuts the power again, and checks again.
pub(crate) async fn check_and_append(
    disk: &Disk,
    oracle: &Oracle,
    at: u64,
    seed: u64,
    process_only: bool,
) -> Result<(), String> {
    let (shown, committed) = read_unopened(disk).await?;
    let (wal, recovered) = open_checked(disk, oracle, at, process_only).await?;
    // Recovery keeps all records that a reader found intact, so the committed ones are there.
    if !recovered.holds_exactly(&shown) || committed > wal.recovery().end {
        let report = wal.recovery();
        return Err(format!(
            "a reader showed other records than opening, committed {committed}: {report}"
        ));
    }
    let session = Session {
        wal,
        disk: disk.clone(),
        oracle: Rc::new(RefCell::new(recovered)),
        next_id: Rc::new(RefCell::new(seed << 32 | 1 << 30)),
        handles: Handles::default(),
    };
    let mut random = Random::new(seed);
    for _ in 0..random.below(4) {
        let action = match random.below(8) {
            6 | 7 => Action::Slot(random.below(3), SlotAction::of(random.below(8))),
            5 => Action::TruncateAfter(random.below(1 << 20)),
            4 => Action::TruncateBefore(random.below(1 << 20)),
            0 => Action::Append(random.below(2000)),
            1 => Action::Batch(vec![30, 40]),
            2 => Action::Enqueue(random.below(100)),
            _ => Action::AppendAndSync(random.below(300)),
        };
        session.run(&action, Running::InPlace).await.map_err(|e| format!("{e:#}"))?;
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

/// Cuts the power after each operation of opening `image`.
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

/// Checks every cut of the operations that `disk` recorded and `oracle` noted.
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
            // If everything survives, the end of the process alone leaves the same image.
            let process_only = cut.survival == Survival::Everything;
            tally.demanding += u64::from(oracle.demands(at, process_only));
            check_and_append(&disk, oracle, at, case_seed, process_only).await.map_err(case)?;
            if random.one_in(depth.recovery_one_in) {
                let survivals =
                    |cut| vec![Survival::Nothing, Survival::Everything, Survival::Random(cut)];
                cut_recovery(&image, survivals, oracle, at, tally).await.map_err(case)?;
            }
        }
        Ok(())
    })
}

/// Runs a script once, with the log's work in the calling task, then cuts the power after each
/// operation.
pub(crate) fn sweep(
    seed: u64,
    script: &Script,
    depth: Depth,
    tally: &mut Tally,
) -> Result<(), String> {
    configure_recycling(seed);
    sweep_with_thread_settings(seed, script, depth, tally)
}

/// Like [`sweep`], with the recycling that this thread has set.
pub(crate) fn sweep_with_thread_settings(
    seed: u64,
    script: &Script,
    depth: Depth,
    tally: &mut Tally,
) -> Result<(), String> {
    let disk = Disk::new(seed).recording();
    let oracle = block_on(run(script, &disk, seed, Running::InPlace));
    sweep_record(&disk, &oracle, seed, depth, tally)
}

/// Like [`sweep`], with the tasks and the log's jobs in an order that the seed decides.
pub(crate) fn sweep_simulated(seed: u64, depth: Depth, tally: &mut Tally) -> Result<(), String> {
    configure_recycling(seed);
    configure_inline(seed);
    sweep_simulated_with_thread_settings(seed, &random_script(seed), depth, tally)
}

/// Like [`sweep_simulated`], for a given script and with the recycling that this thread has set.
pub(crate) fn sweep_simulated_with_thread_settings(
    seed: u64,
    script: &Script,
    depth: Depth,
    tally: &mut Tally,
) -> Result<(), String> {
    let disk = prepared(Disk::new(seed).recording());
    let oracle = Simulation::new(seed).run(run(script, &disk, seed, Running::Simulated));
    sweep_record(&disk, &oracle, seed, depth, tally)
}

/// Fails each flush of a script in turn, reopens the log on the same boot, and then cuts the power.
pub(crate) fn fail_syncs(seed: u64, running: Running, tally: &mut Tally) -> Result<(), String> {
    configure_recycling(seed);
    configure_inline(seed);
    fail_syncs_of(&random_script(seed), seed, running, tally)
}

pub(crate) fn fail_syncs_of(
    script: &Script,
    seed: u64,
    running: Running,
    tally: &mut Tally,
) -> Result<(), String> {
    // A durable write that fails is a failed flush.
    for op in [Op::Sync, Op::WriteDurably] {
        fail_each(op, script, seed, running, tally)?;
    }
    Ok(())
}

fn fail_each(
    op: Op,
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
        disk.faults().on(op).skip(index).once().fail_os(5);
        let disk = prepared(disk);
        disk.faults().record(true);
        let oracle = run_on(&disk);
        let failed =
            |event: &Event| matches!(event, Event::Failed { op: failed, .. } if *failed == op);
        if disk.faults().count(failed) == 0 {
            break;
        }
        disk.faults().record(false);
        tally.cuts += 1;
        let case = |what: String| format!("seed {seed}, {op:?} {index} fails: {what}");
        block_on(async {
            // The power goes at once, or after the log was reopened on the same boot.
            for survival in [Survival::Nothing, Survival::Random(seed ^ index)] {
                tally.images += 1;
                tally.demanding += u64::from(oracle.demands(u64::MAX, false));
                check_and_append(&disk.crash(survival), &oracle, u64::MAX, index, false).await?;
            }
            let survivals = |cut| vec![Survival::Nothing, Survival::Random(cut)];
            cut_recovery(&disk.image(), survivals, &oracle, u64::MAX, tally).await?;
            check_and_append(&disk, &oracle, u64::MAX, index, true)
                .await
                .map_err(|what| format!("on the same boot: {what}"))
        })
        .map_err(case)?;
    }
    Ok(())
}

/// Fills the disk at each creation, and at each allocation, of a segment. The disk stays full. Then
/// the process ends and the log is opened on the full disk, or the power is cut.
pub(crate) fn fill_disk(seed: u64, running: Running, tally: &mut Tally) -> Result<(), String> {
    configure_recycling(seed);
    configure_inline(seed);
    let script = random_script(seed);
    for op in [Op::Create, Op::Resize] {
        // The first operation of this kind creates the log.
        for index in 1.. {
            let disk = prepared(Disk::new(seed));
            let fill = |disk: &Disk, skip| {
                disk.faults().on(op).skip(skip).fail(ErrorKind::StorageFull);
            };
            fill(&disk, index);
            disk.faults().record(true);
            let mut oracle = match running {
                Running::InPlace => block_on(run(&script, &disk, seed, running)),
                Running::Simulated => Simulation::new(seed).run(run(&script, &disk, seed, running)),
            };
            let is_full =
                |event: &Event| matches!(event, Event::Failed { op: failed, .. } if *failed == op);
            if disk.faults().count(is_full) == 0 {
                break;
            }
            disk.faults().record(false);
            oracle.forget_groups();
            tally.cuts += 1;
            let case = |what: String| format!("seed {seed}, {op:?} {index} finds no space: {what}");
            block_on(async {
                // The process has ended: its writes are there, so opening needs no space.
                let killed = Disk::with_image(disk.image().crash(Survival::Everything), seed);
                fill(&killed, 0);
                tally.images += 1;
                tally.demanding += u64::from(oracle.demands(u64::MAX, true));
                drop(open_checked(&killed, &oracle, u64::MAX, true).await?);
                for survival in [Survival::Nothing, Survival::Random(seed ^ index)] {
                    tally.images += 1;
                    tally.demanding += u64::from(oracle.demands(u64::MAX, false));
                    check_and_append(&disk.crash(survival), &oracle, u64::MAX, index, false)
                        .await?;
                }
                Ok(())
            })
            .map_err(case)?;
        }
    }
    Ok(())
}
