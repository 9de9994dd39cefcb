//! [`Stats`]: counts and percentiles of a log.

use std::time::Duration;

use crate::{
    lsn::Lsn,
    pipeline::{Core, Percentiles},
    sync::Ordering,
};

/// Counts and percentiles since the log was opened.
///
/// Counting costs an append nothing. Only write and sync jobs count, and appends that wait anyway.
/// Each number is exact by itself. If the log works during the call, the numbers need not match
/// each other.
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// The number of written frames: records, and the control records of the log itself.
    pub frame_count: u64,
    /// The number of bytes of written frames, including headers and padding.
    pub written_bytes: u64,
    /// The number of write calls.
    pub write_count: u64,
    /// The number of flushes of a file. Each serves all tasks that waited when it began.
    pub sync_count: u64,
    /// The number of segments that were begun.
    pub rotation_count: u64,
    /// The number of segments that the log has now.
    pub segment_count: u64,
    /// The number of segments that were removed after truncations of the beginning.
    pub removed_count: u64,
    /// The number of segments that were prepared in the file of a removed one.
    ///
    /// See [`recycle_segments`](crate::Options::recycle_segments).
    pub recycled_count: u64,
    /// The number of leases that keep segments.
    ///
    /// Those are the leases of [`Wal::retain`](crate::Wal::retain), of
    /// [`Wal::sealed_segments`](crate::Wal::sealed_segments) and its items, and of running copies.
    pub lease_count: u64,
    /// The lowest LSN of a lease; `None` if there is no lease.
    ///
    /// If it does not rise while the log grows, a lease was probably forgotten.
    pub oldest_lease: Option<Lsn>,
    /// The number of bytes on the disk that only leases keep.
    ///
    /// These bytes begin in the segment of [`oldest_lease`](Stats::oldest_lease) and end in the
    /// segment in which the log begins.
    pub leased_bytes: u64,
    /// The number of slots.
    pub slot_count: u64,
    /// The lease or slot with the lowest position, which keeps the most; `None` if nothing keeps
    /// segments.
    pub oldest_holder: Option<Holder>,
    /// The number of bytes from the segment that `oldest_holder` needs up to the synced mark.
    pub held_bytes: u64,
    /// The times of the flushes of a file that succeeded.
    pub sync_time: Percentiles<Duration>,
    /// The numbers of records that one sync made durable: the sizes of the groups.
    ///
    /// A sync that covered only control records of the log is not counted.
    pub records_per_sync: Percentiles<u64>,
    /// The bytes of frames that have an LSN and are not written yet.
    ///
    /// Appends wait when this reaches [`ring_bytes`](Stats::ring_bytes).
    pub queue_bytes: u64,
    /// The values of `queue_bytes` at the beginnings of the syncs that `records_per_sync` counts.
    pub queue_bytes_at_sync: Percentiles<u64>,
    /// The size of the ring in bytes, after rounding.
    pub ring_bytes: u64,
    /// The number of waits of appends for room in the ring or for a segment.
    ///
    /// An append that waited for both counts twice. Abandoned waits count, too.
    pub room_wait_count: u64,
    /// The total time of these waits. Running waits are added when they end.
    pub room_wait_time: Duration,
    /// The number of stalls: periods in which an I/O call had been in flight for
    /// [`stall_after`](crate::Options::stall_after) or longer.
    pub stall_count: u64,
    /// The total time of these stalls. A running stall counts up to the last check.
    pub stalled_time: Duration,
    /// The number of failed attempts to prepare the next segment, for lack of space or budget or
    /// for another reason.
    ///
    /// Appends that needed it were refused, or waited. The next such append tried again.
    pub refusal_count: u64,
}

/// A holder of segments on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Holder {
    /// A lease, such as that of [`Wal::retain`](crate::Wal::retain).
    Lease {
        /// Its position.
        lsn: Lsn,
    },
    /// A slot.
    Slot {
        /// Its name.
        name: String,
        /// Its durable position.
        lsn: Lsn,
    },
}

impl Stats {
    pub(crate) fn of(core: &Core) -> Self {
        let counters = &core.measures().counters;
        let measured = core.measures().look();
        // Read in this order, so that a concurrent write does not make the queue seem longer.
        let tail = core.tail();
        let queue_bytes = tail.since(core.written().get().min(tail));
        let lease = core.beginning().oldest_lease();
        let (stall_count, stalled_time) = core.vitals().stalls().totals();
        let oldest_holder = oldest_holder(core, lease.map(|(oldest, _)| oldest));
        Stats {
            frame_count: counters.frames.load(Ordering::Relaxed),
            written_bytes: counters.bytes.load(Ordering::Relaxed),
            write_count: counters.writes.load(Ordering::Relaxed),
            sync_count: counters.syncs.load(Ordering::Relaxed),
            rotation_count: counters.rotations.load(Ordering::Relaxed),
            segment_count: core.segments().count() as u64,
            removed_count: core.beginning().removed_count(),
            recycled_count: core.recycled_count(),
            lease_count: core.beginning().lease_count(),
            oldest_lease: lease.map(|(oldest, _)| oldest),
            leased_bytes: lease.map_or(0, |(oldest, first)| core.leased_bytes(oldest, first)),
            slot_count: core.slots().list().len() as u64,
            held_bytes: oldest_holder.as_ref().map_or(0, |holder| match holder {
                Holder::Lease { lsn } | Holder::Slot { lsn, .. } => core.held_bytes(*lsn),
            }),
            oldest_holder,
            sync_time: measured.sync_time,
            records_per_sync: measured.records_per_sync,
            queue_bytes,
            queue_bytes_at_sync: measured.queue_bytes_at_sync,
            ring_bytes: core.ring_bytes(),
            room_wait_count: measured.room_wait_count,
            room_wait_time: measured.room_wait_time,
            stall_count,
            stalled_time,
            refusal_count: counters.refusals.load(Ordering::Relaxed),
        }
    }
}

fn oldest_holder(core: &Core, lease: Option<Lsn>) -> Option<Holder> {
    let slot = core.beginning().oldest_slot(core.synced().get());
    let slot = slot.filter(|(_, position)| lease.is_none_or(|lease| *position < lease));
    let named = slot
        .and_then(|(id, lsn)| Some(Holder::Slot { name: core.slots().name(id)?.to_string(), lsn }));
    named.or(lease.map(|lsn| Holder::Lease { lsn }))
}
