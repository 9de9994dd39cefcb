//! The choice whether the next segment is filled with zeros.
//!
//! In a file of zeros each flush is cheaper, because it commits no metadata. The price is a write
//! of every byte. A few large flushes save less than that. On ext4 the journal's part of a flush
//! takes 50 to 100 µs; in this time a device writes 50 to 100 KiB.

use crate::{
    options::Preallocation,
    sync::{AtomicU64, Ordering},
};

/// From this average size of a flush on, zeros cost more than they save.
const FLUSH_BYTES_MAX: u64 = 256 << 10;

/// The bytes written and the flushes made when the last segment was prepared.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    bytes: AtomicU64,
    syncs: AtomicU64,
}

impl Filling {
    /// Chooses how the next segment is prepared, from the totals so far. Only one job calls it at a
    /// time.
    pub(crate) fn choose(&self, bytes: u64, syncs: u64) -> Preallocation {
        let since =
            |now: u64, before: &AtomicU64| now.saturating_sub(before.swap(now, Ordering::Relaxed));
        let (bytes, syncs) = (since(bytes, &self.bytes), since(syncs, &self.syncs));
        match bytes / syncs.max(1) >= FLUSH_BYTES_MAX {
            true => Preallocation::Reserve,
            false => Preallocation::ZeroFill,
        }
    }
}
