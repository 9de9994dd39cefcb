//! Runs the log on a simulated disk, and records the steps that its caller sees.

use futures::TryStreamExt;
use highwater::{
    Wal,
    simulation::{Disk, Op, Random, Simulation, Survival},
};

/// Records span sectors, so that one may be torn or survive without the one before.
const RECORD_BYTES: usize = 700;

/// The model notes ids as bits, and follows each outcome of each unsynced record.
const RECORDS_MAX: u8 = 12;
const UNSYNCED_MAX: usize = 4;

/// A step of a log, as its caller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A record was appended. Records have the ids 0, 1, 2 and so on.
    Append,
    /// A sync has returned: all records are acknowledged.
    Sync,
    /// The process ended; the page cache stays.
    Kill,
    LosePower,
    /// The power was lost while the log was opened.
    LosePowerInOpen,
    /// The log was opened, and has records with these ids.
    Open(Vec<u8>),
    /// The log was refused as damaged.
    Refuse,
}

/// A fault of the disk, which no model of an honest disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    IgnoreFlushes,
}

/// Runs a log over some crashes. The seed decides everything.
pub(super) fn run(seed: u64, fault: Fault) -> Vec<Step> {
    let mut run = Run { random: Random::new(seed), steps: Vec::new(), appended: 0 };
    let mut disk = Disk::new(seed);
    for life in 0..4 {
        // The model has no creation of a log.
        if life > 0 && run.random.one_in(3) {
            disk = run.interrupt(disk);
        }
        if fault == Fault::IgnoreFlushes {
            disk.faults().on(Op::Sync).ignore();
        }
        Simulation::new(seed).run(run.live(&disk, life > 0));
        disk = run.crash(disk);
    }
    run.steps
}

struct Run {
    random: Random,
    steps: Vec<Step>,
    appended: u8,
}

impl Run {
    /// Opens the log, and cuts the power on the way if an opening takes that long.
    fn interrupt(&mut self, disk: Disk) -> Disk {
        let count = disk.operation_count() + self.random.below(8) as u64;
        let cut = disk.cut_after(count);
        let opened = Simulation::new(count).run(open(&cut));
        self.steps.extend(opened.map(|(_, ids)| Step::Open(ids)));
        // The handle is gone, so the log has ended. All later operations of this disk fail.
        let is_open = matches!(self.steps.last(), Some(Step::Open(_)));
        self.steps.push(if is_open { Step::LosePower } else { Step::LosePowerInOpen });
        cut.crash(Survival::Random(self.random.next_u64()))
    }

    /// Opens the log, and appends and syncs.
    async fn live(&mut self, disk: &Disk, is_noted: bool) {
        let Some((wal, ids)) = open(disk).await else {
            self.steps.push(Step::Refuse);
            return;
        };
        if is_noted {
            self.steps.push(Step::Open(ids));
        }
        let mut unsynced_count = 0;
        for _ in 0..self.random.below(6) {
            let may_append = self.appended < RECORDS_MAX && unsynced_count < UNSYNCED_MAX;
            if may_append && !self.random.one_in(3) {
                let mut record = [0; RECORD_BYTES];
                record[0] = self.appended;
                wal.append(&record).await.unwrap();
                self.steps.push(Step::Append);
                self.appended += 1;
                unsynced_count += 1;
            } else {
                wal.sync().await.unwrap();
                self.steps.push(Step::Sync);
                unsynced_count = 0;
            }
        }
    }

    fn crash(&mut self, disk: Disk) -> Disk {
        if self.random.one_in(3) {
            self.steps.push(Step::Kill);
            return disk;
        }
        self.steps.push(Step::LosePower);
        let random = Survival::Random(self.random.next_u64());
        let survivals = [Survival::Nothing, Survival::Everything];
        disk.crash(survivals.get(self.random.below(6)).copied().unwrap_or(random))
    }
}

/// Opens the log and reads the ids of its records.
async fn open(disk: &Disk) -> Option<(Wal, Vec<u8>)> {
    let options = Wal::options().segment_bytes(64 << 10).ring_bytes(16 << 10);
    let wal = options.open_with(disk.clone()).await.ok()?;
    let records: Vec<_> = wal.replay(..).try_collect().await.ok()?;
    let ids = records.iter().filter_map(|record| record.payload.first().copied()).collect();
    Some((wal, ids))
}
