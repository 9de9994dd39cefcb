//! What the log has done so far, as numbers.

use std::time::Duration;

use crate::{
    pipeline::{Core, Percentiles},
    sync::Ordering,
};

/// Counts since the log was opened, and how what it measures of itself was distributed.
///
/// Keeping them costs an append nothing: they are counted by the jobs that write and flush, and by
/// appends that have to wait anyway. Each number is exact by itself; taken while the log works,
/// they need not fit each other.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// # use highwater::{Wal, storage::MemoryStorage};
/// let wal = Wal::options().open_with(MemoryStorage::new()).await?;
/// wal.append_and_sync(b"record").await?;
/// let stats = wal.stats();
/// assert_eq!(stats.sync_count, 1);
/// assert_eq!(stats.records_per_sync.max, 1);
/// println!("99 % of the flushes took at most {:?}", stats.sync_time.p99);
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
    /// Segments removed, as the log begins later.
    pub removed_count: u64,
    /// Segments prepared in the file of one that was removed, instead of a new one: see
    /// [`recycle_segments`](crate::Options::recycle_segments).
    pub recycled_count: u64,
    /// Leases that hold segments back.
    pub lease_count: u64,
    /// How long flushes of a file took that succeeded.
    pub sync_time: Percentiles<Duration>,
    /// How many records one sync made durable: the sizes of the groups that shared a flush. A sync
    /// that only covered the log's own control records isn't counted.
    pub records_per_sync: Percentiles<u64>,
    /// Bytes of frames that are on their way to the file now: ordered and not written. At
    /// [`ring_bytes`](Stats::ring_bytes), appends wait.
    pub queue_bytes: u64,
    /// How many such bytes each sync counted in `records_per_sync` found when it began.
    pub queue_bytes_at_sync: Percentiles<u64>,
    /// The size of the ring in bytes, as it was rounded.
    pub ring_bytes: u64,
    /// How often an append had to wait for room: in the ring, or for the next segment to be
    /// prepared. One that waited for both counts twice. Waits that were given up count too.
    pub room_wait_count: u64,
    /// The time of all these waits together; those that go on are added when they end.
    pub room_wait_time: Duration,
}

impl Stats {
    pub(crate) fn of(core: &Core) -> Self {
        let counters = &core.counters;
        let measured = core.measures.look();
        // Read in this order: what is written meanwhile makes no queue out of nothing.
        let tail = core.ring.tail();
        let queue_bytes = tail.since(core.written.get().min(tail));
        Stats {
            frame_count: counters.frames.load(Ordering::Relaxed),
            written_bytes: counters.bytes.load(Ordering::Relaxed),
            write_count: counters.writes.load(Ordering::Relaxed),
            sync_count: counters.syncs.load(Ordering::Relaxed),
            rotation_count: counters.rotations.load(Ordering::Relaxed),
            segment_count: core.segments.count() as u64,
            removed_count: core.purge.removed_count(),
            recycled_count: core.recycled.reused_count(),
            lease_count: core.purge.lease_count(),
            sync_time: measured.sync_time,
            records_per_sync: measured.records_per_sync,
            queue_bytes,
            queue_bytes_at_sync: measured.queue_bytes_at_sync,
            ring_bytes: core.ring.capacity_bytes(),
            room_wait_count: measured.room_wait_count,
            room_wait_time: measured.room_wait_time,
        }
    }
}
