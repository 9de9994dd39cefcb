//! What the log has done so far, as numbers.

use std::sync::atomic::Ordering;

use crate::pipeline::Core;

/// Counts since the log was opened.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// # use highwater::{Wal, storage::MemoryStorage};
/// let wal = Wal::options().open_with(MemoryStorage::new()).await?;
/// wal.append_and_sync(b"record").await?;
/// assert_eq!(wal.stats().sync_count, 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Frames written: records, and the control records that the log writes for itself.
    pub frame_count: u64,
    /// Bytes of frames written, headers and padding included.
    pub written_bytes: u64,
    /// Write calls.
    pub write_count: u64,
    /// Flushes of a file: each answered everybody who was waiting when it began.
    pub sync_count: u64,
    /// Segments begun.
    pub rotation_count: u64,
    /// Segments that the log has now.
    pub segment_count: u64,
}

impl Stats {
    pub(crate) fn of(core: &Core) -> Self {
        let counters = &core.counters;
        Stats {
            frame_count: counters.frames.load(Ordering::Relaxed),
            written_bytes: counters.bytes.load(Ordering::Relaxed),
            write_count: counters.writes.load(Ordering::Relaxed),
            sync_count: counters.syncs.load(Ordering::Relaxed),
            rotation_count: counters.rotations.load(Ordering::Relaxed),
            segment_count: core.segments.count() as u64,
        }
    }
}
