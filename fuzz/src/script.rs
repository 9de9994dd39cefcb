//! Scripts that write valid logs, which mutations then change.

use std::{sync::atomic::Ordering, time::Duration};

use arbitrary::Arbitrary;
use highwater::{Lsn, Wal};

use crate::{
    directory::Directory,
    opening::now,
    repeatable::Repeatable,
    sizes::{RING_BYTES, SEGMENT_BYTES},
};

/// A payload that is small, or almost as large as a ring or a segment.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Payload {
    class: u8,
    bytes: u8,
    fill: u8,
}

impl Payload {
    pub fn bytes(self) -> Vec<u8> {
        let near = |boundary: usize| (boundary + usize::from(self.bytes % 64)).saturating_sub(48);
        let count = match self.class % 8 {
            0..=3 => usize::from(self.bytes),
            4 => near(RING_BYTES as usize / 2),
            5 => near(RING_BYTES as usize),
            6 => near(SEGMENT_BYTES as usize - 4096),
            _ => usize::from(self.bytes) * 40,
        };
        vec![self.fill; count]
    }
}

#[derive(Arbitrary, Clone, Debug)]
pub enum ScriptStep {
    Append(Payload),
    Batch(Vec<Payload>),
    Sync,
    /// The process ends, and another process opens the log.
    Reopen,
    /// The process ends. The next one ends after this many changes to files, and a third opens the
    /// log.
    ReopenInPart(u8),
    CloseAndReopen,
}

/// A step that concerns slots, or moves the beginning or the end of the log.
#[derive(Arbitrary, Clone, Debug)]
pub enum SlotStep {
    /// Moves a slot to a record, and creates it if it is missing.
    Move {
        slot: u8,
        record: u8,
    },
    Remove {
        slot: u8,
    },
    TruncateBefore {
        record: u8,
    },
    TruncateAfter {
        record: u8,
    },
    /// The process ends after this many changes to files of a truncation. If `stays`, no other
    /// process opens the log.
    TruncateAfterInPart {
        record: u8,
        changes: u8,
        stays: bool,
    },
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Script {
    steps: Vec<ScriptStep>,
    closes: bool,
}

/// Returns the names of the slots. The last one is as long as a name may be.
fn slot_name(slot: u8) -> String {
    ["a", "indexer", &"n".repeat(64)][usize::from(slot % 3)].to_owned()
}

/// A log that a script writes.
struct Running {
    storage: Repeatable,
    has_time_marks: bool,
    wal: Option<Wal>,
    /// The positions of records.
    lsns: Vec<Lsn>,
}

impl Running {
    fn new(salt: u64, has_time_marks: bool) -> Self {
        let storage = Repeatable::new(salt);
        let mut log = Running { storage, has_time_marks, wal: None, lsns: Vec::new() };
        log.reopen();
        log
    }

    fn wal(&self) -> &Wal {
        self.wal.as_ref().unwrap()
    }

    async fn open(&self) -> highwater::Result<Wal> {
        let interval = self.has_time_marks.then_some(Duration::from_secs(1));
        let options = Wal::options().segment_bytes(SEGMENT_BYTES).ring_bytes(RING_BYTES);
        options.time_marks(interval).open_with(self.storage.clone()).await
    }

    fn reopen(&mut self) {
        self.wal = None;
        self.wal = Some(now(self.open()).unwrap());
    }

    fn run(&mut self, step: &ScriptStep) {
        match step {
            ScriptStep::Append(payload) => {
                let lsn = now(self.wal().append(payload.bytes())).unwrap();
                self.lsns.push(lsn);
            }
            ScriptStep::Batch(payloads) => {
                let payloads: Vec<_> =
                    payloads.iter().take(5).map(|payload| payload.bytes()).collect();
                drop(now(self.wal().append_batch(&payloads)).unwrap());
            }
            ScriptStep::Sync => drop(now(self.wal().sync()).unwrap()),
            ScriptStep::Reopen => self.reopen(),
            ScriptStep::ReopenInPart(changes) => {
                self.wal = None;
                self.storage.changes_left.store(u64::from(changes % 24), Ordering::Relaxed);
                drop(now(self.open()));
                self.storage.changes_left.store(u64::MAX, Ordering::Relaxed);
                self.reopen();
            }
            ScriptStep::CloseAndReopen => {
                now(self.wal().close()).unwrap();
                self.reopen();
            }
        }
    }

    /// Runs a step. Returns `false` if the script ends here.
    fn run_slot_step(&mut self, step: &SlotStep) -> bool {
        let lsns = &self.lsns;
        let lsn = |record: u8| {
            lsns.get(usize::from(record) % lsns.len().max(1)).copied().unwrap_or(Lsn::ZERO)
        };
        let wal = self.wal();
        // Slots and records may be gone.
        match *step {
            SlotStep::Move { slot, record } => {
                let slot = now(wal.slot(&slot_name(slot)));
                drop(slot.map(|slot| slot.advance(lsn(record))));
            }
            SlotStep::Remove { slot } => {
                drop(now(wal.slot(&slot_name(slot))).map(|slot| now(slot.remove())));
            }
            SlotStep::TruncateBefore { record } => drop(now(wal.truncate_before(lsn(record)))),
            SlotStep::TruncateAfter { record } => drop(now(wal.truncate_after(lsn(record)))),
            SlotStep::TruncateAfterInPart { record, changes, stays } => {
                self.storage.changes_left.store(u64::from(changes % 12), Ordering::Relaxed);
                drop(now(wal.truncate_after(lsn(record))));
                self.wal = None;
                self.storage.changes_left.store(u64::MAX, Ordering::Relaxed);
                if stays {
                    return false;
                }
                self.reopen();
            }
        }
        true
    }
}

impl Script {
    /// Returns the directory after the script. Logs with different `salt` have different IDs.
    ///
    /// Each number in `slot_steps` is that of the step which the slot step follows.
    pub fn run(&self, salt: u64, slot_steps: &[(u8, SlotStep)]) -> Directory {
        let mut log = Running::new(salt, !slot_steps.is_empty());
        let steps = &self.steps[..self.steps.len().min(30)];
        for at in 0..=steps.len() {
            let here = slot_steps.iter().filter(|(after, _)| usize::from(*after % 31) == at);
            for (_, step) in here.take(8) {
                if !log.run_slot_step(step) {
                    return log.storage.directory();
                }
            }
            steps.get(at).into_iter().for_each(|step| log.run(step));
        }
        if self.closes {
            now(log.wal().close()).unwrap();
        }
        log.wal = None;
        // If the last step is an interrupted open, the directory stays in the interrupted state.
        if let (Some(ScriptStep::ReopenInPart(changes)), false) = (self.steps.last(), self.closes) {
            log.storage.changes_left.store(u64::from(changes % 24), Ordering::Relaxed);
            drop(now(log.open()));
        }
        log.storage.directory()
    }
}
