//! Valid logs, to begin with: tiny segments, so that each has several.

use std::sync::atomic::Ordering;

use arbitrary::Arbitrary;
use highwater::Wal;

use crate::{directory::Directory, opening::now, repeatable::Repeatable};

pub const SEGMENT_BYTES: u64 = 8 << 10;
pub const RING_BYTES: u64 = 2 << 10;

/// A payload whose size is small, or near to what fits into a ring or a segment.
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
pub enum Step {
    Append(Payload),
    Batch(Vec<Payload>),
    Sync,
    /// The process ends, and another opens the log.
    Reopen,
    /// The same, and after so many changes to files it ends too.
    ReopenInPart(u8),
    CloseAndReopen,
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Script {
    steps: Vec<Step>,
    closes: bool,
}

async fn open(storage: &Repeatable) -> highwater::Result<Wal> {
    let options = Wal::options().segment_bytes(SEGMENT_BYTES).ring_bytes(RING_BYTES);
    options.open_with(storage.clone()).await
}

impl Script {
    /// What is on the disk after it. `salt` tells logs apart.
    pub fn run(&self, salt: u64) -> Directory {
        let storage = Repeatable::new(salt);
        let mut wal = now(open(&storage)).unwrap();
        for step in self.steps.iter().take(30) {
            match step {
                Step::Append(payload) => drop(now(wal.append(payload.bytes())).unwrap()),
                Step::Batch(payloads) => {
                    let payloads: Vec<_> =
                        payloads.iter().take(5).map(|payload| payload.bytes()).collect();
                    drop(now(wal.append_batch(&payloads)).unwrap());
                }
                Step::Sync => drop(now(wal.sync()).unwrap()),
                Step::Reopen => {
                    drop(wal);
                    wal = now(open(&storage)).unwrap();
                }
                Step::ReopenInPart(changes) => {
                    drop(wal);
                    storage.changes_left.store(u64::from(changes % 24), Ordering::Relaxed);
                    drop(now(open(&storage)));
                    storage.changes_left.store(u64::MAX, Ordering::Relaxed);
                    wal = now(open(&storage)).unwrap();
                }
                Step::CloseAndReopen => {
                    now(wal.close()).unwrap();
                    drop(wal);
                    wal = now(open(&storage)).unwrap();
                }
            }
        }
        if self.closes {
            now(wal.close()).unwrap();
        }
        drop(wal);
        // The last step may be an opening that ended early, too.
        if let (Some(Step::ReopenInPart(changes)), false) = (self.steps.last(), self.closes) {
            storage.changes_left.store(u64::from(changes % 24), Ordering::Relaxed);
            drop(now(open(&storage)));
        }
        storage.directory()
    }
}
