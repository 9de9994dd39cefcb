//! The state behind the writer's lock: the drainer, the active segment, the sealed one before it.

use std::sync::Arc;

use crate::{
    format::header::{Link, SEGMENT_HEADER_BYTES},
    lsn::Lsn,
    pipeline::state::{
        measures::FlushReport,
        ring::{Drainer, Taken},
        unit::Oversized,
    },
    segments::{SegmentFile, Sequence},
};

/// The segment that is appended to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) link: Link,
    /// The size of the file.
    pub(crate) bytes: u64,
}

impl Active {
    pub(crate) fn base(&self) -> Lsn {
        self.link.base
    }

    /// Returns one past the last LSN that fits.
    pub(crate) fn end(&self) -> Lsn {
        self.link.base.plus(self.bytes.saturating_sub(SEGMENT_HEADER_BYTES))
    }

    pub(crate) fn offset(&self, lsn: Lsn) -> u64 {
        lsn.since(self.link.base) + SEGMENT_HEADER_BYTES
    }
}

/// The state of the writer, behind its lock.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) drainer: Drainer,
    pub(crate) active: Active,
    /// Sealed and not synced yet. At most one, because the next rotation waits for it.
    pub(crate) sealed: Option<Arc<SegmentFile>>,
    /// The highest position that a written frame or header claims to be synced. Only the last frame
    /// of each write is looked at.
    pub(crate) claimed: Lsn,
}

/// The files that a flush has to cover.
pub(crate) struct Unsynced {
    pub(crate) end: Lsn,
    pub(crate) sealed: Option<Arc<SegmentFile>>,
    pub(crate) active: Arc<SegmentFile>,
}

/// The result of one write.
pub(crate) struct Step {
    pub(crate) end: Lsn,
    /// Bytes of the ring to give back.
    pub(crate) room_bytes: u64,
    pub(crate) rotated: Option<Rotated>,
    /// An oversized unit. Its buffers may be the caller's, so they are dropped without the lock.
    pub(crate) _written: Option<Oversized>,
}

/// A rotation, to be reported without the writer's lock.
pub(crate) struct Rotated {
    pub(crate) sealed: String,
    pub(crate) segment: String,
    pub(crate) base: Lsn,
    /// The flush of the segment before the sealed one.
    pub(crate) flush: Option<FlushReport>,
}

impl Writing {
    pub(crate) fn new(drainer: Drainer, active: Active) -> Self {
        Writing { drainer, active, sealed: None, claimed: Lsn::ZERO }
    }

    /// Returns the written end, and the files that may hold unsynced bytes below it.
    pub(crate) fn unsynced(&self) -> Unsynced {
        Unsynced {
            end: self.drainer.at(),
            sealed: self.sealed.clone(),
            active: Arc::clone(&self.active.file),
        }
    }

    /// Notes that a flush has covered `file`, which was sealed when the flush began. A file that
    /// was active then and is sealed now stays unsynced, because it may have been written to
    /// meanwhile.
    pub(crate) fn sealed_is_synced(&mut self, file: &Arc<SegmentFile>) {
        self.sealed.take_if(|sealed| Arc::ptr_eq(sealed, file));
    }

    pub(crate) fn active_sequence(&self) -> Sequence {
        self.active.file.sequence()
    }

    /// Returns the next LSN to write.
    pub(crate) fn at(&self) -> Lsn {
        self.drainer.at()
    }

    /// Returns the free bytes of the active segment.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.active.end().since(self.drainer.at())
    }

    pub(crate) fn take(&mut self, wanted_bytes: u64, room_bytes: u64) -> Taken {
        self.drainer.take(wanted_bytes, room_bytes)
    }
}
