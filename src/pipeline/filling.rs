//! Whether the next segment is worth filling with zeros.
//!
//! Zeros make each flush cheaper, as it has no metadata to commit, and cost a write of every byte.
//! Few flushes of much each don't earn that back: on ext4 the journal's part of a flush is some 50
//! to 100 µs, in which a device takes about as many KiB.

use crate::{
    options::Preallocation,
    pipeline::core::Core,
    sync::{AtomicU64, Ordering},
};

/// Where a flush covers so much on average, zeros cost more than they save.
const FLUSH_BYTES_MAX: u64 = 256 << 10;

/// What had been written and flushed when the last segment was prepared.
#[derive(Debug, Default)]
pub(super) struct Filling {
    bytes: AtomicU64,
    syncs: AtomicU64,
}

impl Core {
    /// How the segment is to be prepared that comes next. Called by one at a time.
    pub(crate) fn next_preallocation(&self) -> Preallocation {
        if self.config.preallocation != Preallocation::Adaptive {
            return self.config.preallocation;
        }
        let since = |now: &AtomicU64, before: &AtomicU64| {
            let now = now.load(Ordering::Relaxed);
            now.saturating_sub(before.swap(now, Ordering::Relaxed))
        };
        let bytes = since(&self.counters.bytes, &self.filling.bytes);
        let syncs = since(&self.counters.syncs, &self.filling.syncs);
        if bytes / syncs.max(1) >= FLUSH_BYTES_MAX {
            Preallocation::Reserve
        } else {
            Preallocation::ZeroFill
        }
    }
}
