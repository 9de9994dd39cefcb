//! The state of the upkeep: limits and progress.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{lsn::Lsn, pipeline::Core, raft::upkeep::background::Background};

/// The limits and the progress of the upkeep.
pub(crate) struct Upkeep {
    pub(super) background: Arc<Background>,
    pub(super) checkpoint_bytes: u64,
    pub(super) rewrite_above_bytes: u64,
    /// The number of sealed segments at the last call of `start_upkeep_if_due`.
    pub(super) seen_rotations: AtomicU64,
    /// The LSN of the newest checkpoint.
    pub(super) newest: AtomicU64,
    /// The size of the newest checkpoint.
    pub(super) newest_bytes: AtomicU64,
    /// True if a checkpoint is due for any number of appended bytes.
    pub(super) is_checkpoint_due: AtomicBool,
    pub(crate) checkpoint_count: AtomicU64,
    pub(crate) copied_bytes: AtomicU64,
}

impl Upkeep {
    pub(crate) fn new(
        core: &Arc<Core>,
        checkpoint_bytes: Option<u64>,
        rewrite_above_bytes: Option<u64>,
    ) -> Self {
        let segment_bytes = core.config().segment_bytes;
        Upkeep {
            background: Background::new(Arc::clone(core)),
            checkpoint_bytes: checkpoint_bytes.unwrap_or(segment_bytes),
            rewrite_above_bytes: rewrite_above_bytes.unwrap_or(segment_bytes.saturating_mul(4)),
            seen_rotations: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            newest_bytes: AtomicU64::new(0),
            is_checkpoint_due: AtomicBool::new(false),
            checkpoint_count: AtomicU64::new(0),
            copied_bytes: AtomicU64::new(0),
        }
    }

    /// Records the checkpoint at which opening started, and whether the next one is due.
    pub(crate) fn start_at(&self, checkpoint: Lsn, end: Lsn) {
        let is_due = end.since(checkpoint) > self.checkpoint_bytes * 2;
        self.newest.store(checkpoint.as_u64(), Ordering::Relaxed);
        self.is_checkpoint_due.store(is_due, Ordering::Relaxed);
    }
}
