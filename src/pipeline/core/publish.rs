//! Publishes the log's counters and gauges. Nothing is published without the feature `metrics`.

use super::Core;
use crate::{
    health::Health,
    lsn::Lsn,
    pipeline::state::metrics::{Flow, Holdings, SlotValues},
    sync::Ordering,
};

impl Core {
    /// Publishes the values that change with each flush. Call it without any lock held, because a
    /// recorder is user code.
    #[inline]
    pub(in crate::pipeline) fn publish_flow(&self) {
        self.measures().instruments.publish_flow(|| self.flow());
    }

    /// Publishes all counters and gauges. Call it without any lock held.
    pub(crate) fn publish_metrics(&self) {
        self.publish_flow();
        self.measures().instruments.publish_holdings(|| self.holdings());
    }

    /// Publishes the gauges of all slots. Separate, because a log may have thousands. Call it
    /// without any lock held.
    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "only a user's call does it"))]
    pub(crate) fn publish_slots(&self) {
        self.measures().instruments.publish_slots(|| {
            let synced = self.synced().get();
            let values = self.slots().list().into_iter().map(|slot| {
                let from = slot.durable.unwrap_or(slot.position);
                let lag_bytes = synced.since(from.min(synced));
                SlotValues { name: slot.name, lag_bytes, held_bytes: self.held_bytes(from) }
            });
            values.collect()
        });
    }

    fn flow(&self) -> Flow {
        let counters = &self.measures().counters;
        // Read in this order, so that a concurrent write does not make the queue seem longer.
        let tail = self.tail();
        let ring_used_bytes = tail.since(self.written().get().min(tail));
        Flow {
            marks: self.watermarks(),
            record_count: counters.written_record_count(),
            payload_bytes: counters.payload.get(),
            written_bytes: counters.bytes.load(Ordering::Relaxed),
            write_count: counters.writes.load(Ordering::Relaxed),
            flush_count: counters.syncs.load(Ordering::Relaxed),
            // A unit that is larger than the ring takes all of it.
            ring_used_bytes: ring_used_bytes.min(self.ring_bytes()),
        }
    }

    fn holdings(&self) -> Holdings {
        let lease = self.beginning().oldest_lease();
        let (stall_count, _) = self.vitals().stalls().totals();
        Holdings {
            rotation_count: self.measures().counters.rotations.load(Ordering::Relaxed),
            removed_count: self.beginning().removed_count(),
            recycled_count: self.recycled_count(),
            stall_count,
            refusal_count: self.measures().counters.refusals.load(Ordering::Relaxed),
            segment_count: self.segments().count() as u64,
            disk_bytes: self.segments().file_bytes(),
            ring_bytes: self.ring_bytes(),
            lease_count: self.beginning().lease_count(),
            leased_bytes: lease.map_or(0, |(oldest, first)| self.leased_bytes(oldest, first)),
            health: self.health(),
        }
    }

    fn health(&self) -> Health {
        let watched = self.vitals().watched();
        match watched.ended() {
            Some(error) => Health::Stopped { error },
            None => watched.newest().0,
        }
    }

    /// Returns the bytes from the segment that holds `lsn` up to the synced mark.
    pub(crate) fn held_bytes(&self, lsn: Lsn) -> u64 {
        let base = self.segments().find(lsn).map_or(lsn, |(info, _)| info.base);
        self.synced().get().since(base.min(self.synced().get()))
    }

    /// Returns the bytes of the segments that a lease from `oldest` on keeps, below `first`.
    pub(crate) fn leased_bytes(&self, oldest: Lsn, first: Lsn) -> u64 {
        let base = |lsn| self.segments().find(lsn).map(|(info, _)| info.base);
        match (base(oldest), base(first)) {
            (Some(oldest), Some(first)) => first.since(oldest),
            _ => 0,
        }
    }
}
