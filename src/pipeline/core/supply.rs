//! The supply of files: the log's segments, the next one, and the recycled ones.

use crate::{
    lsn::{AtomicOptionLsn, Lsn},
    pipeline::state::{beginning::Beginning, filling::Filling, recycled::Recycled, space::Space},
    segments::SegmentSet,
    sync::Ordering,
};

/// The files of the log, and its first position.
#[derive(Debug)]
pub(in crate::pipeline) struct Supply {
    pub(in crate::pipeline) segments: SegmentSet,
    pub(in crate::pipeline) beginning: Beginning,
    pub(in crate::pipeline) space: Space,
    pub(in crate::pipeline) filling: Filling,
    pub(in crate::pipeline) recycled: Recycled,
    /// The position to store in the next segment's header. A user then finds it without reading the
    /// log.
    hint: AtomicOptionLsn,
    /// The hint in the latest header.
    recorded_hint: AtomicOptionLsn,
}

impl Supply {
    pub(super) fn new(
        segments: SegmentSet,
        beginning: Beginning,
        hint: Option<Lsn>,
        space: Space,
        recycled: Recycled,
    ) -> Self {
        let (hint, recorded_hint) = (AtomicOptionLsn::new(hint), AtomicOptionLsn::new(hint));
        let filling = Filling::default();
        Supply { segments, beginning, space, filling, recycled, hint, recorded_hint }
    }

    /// Returns the hint for the next segment's header.
    pub(in crate::pipeline) fn hint(&self) -> Option<Lsn> {
        self.hint.load(Ordering::Acquire)
    }

    pub(in crate::pipeline) fn set_hint(&self, hint: Lsn) {
        self.hint.store(Some(hint), Ordering::Release);
    }

    /// Notes that a header with this hint was written.
    pub(in crate::pipeline) fn hint_recorded(&self, hint: Option<Lsn>) {
        self.recorded_hint.store(hint, Ordering::Release);
    }

    /// Returns the hint in the latest header. The hint is durable once any record reserved after
    /// this call is.
    pub(in crate::pipeline) fn recorded_hint(&self) -> Option<Lsn> {
        self.recorded_hint.load(Ordering::Acquire)
    }
}
