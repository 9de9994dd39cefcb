//! A reservation: positions of the log that must be published.

use crate::{
    error::Error,
    format::{
        control::Control,
        frame::{FrameHeader, Kind},
    },
    lsn::Lsn,
    pipeline::{
        core::Core,
        state::{
            epochs::Goal,
            ring::Reserved,
            unit::{Oversized, Span},
        },
    },
    sync::Ordering,
};

/// Reserved positions. If they are dropped unpublished, the log stops, because the writer can't
/// pass them. Only a panic drops them unpublished.
///
/// Between the reservation and the publication nothing waits and no user code runs.
pub(super) struct Reservation<'a> {
    core: &'a Core,
    /// `None` for an oversized unit, which never enters the ring.
    reserved: Option<Reserved<'a>>,
    lsn: Lsn,
    bytes: u64,
    is_published: bool,
}

impl<'a> Reservation<'a> {
    /// Creates the guard before the ring is called. That call checks its arguments after it has
    /// moved the tail.
    fn guard(core: &'a Core, bytes: u64) -> Self {
        Reservation { core, reserved: None, lsn: Lsn::ZERO, bytes, is_published: false }
    }

    fn set(&mut self, reserved: Reserved<'a>) {
        self.lsn = reserved.lsn();
        self.reserved = Some(reserved);
    }

    /// Reserves the next `bytes` bytes of the ring. The caller has forgotten its permits for them.
    #[inline]
    pub(super) fn next(core: &'a Core, bytes: u64) -> Self {
        let mut this = Self::guard(core, bytes);
        this.set(core.intake.ring.reserve(bytes));
        this
    }

    /// Takes over a range that the caller has reserved under its own [`PanicGuard`].
    ///
    /// [`PanicGuard`]: crate::pipeline::job::PanicGuard
    pub(super) fn of(core: &'a Core, reserved: Reserved<'a>) -> Self {
        let mut this = Self::guard(core, reserved.end().since(reserved.lsn()));
        this.set(reserved);
        this
    }

    /// Reserves `bytes` bytes of the ring if the next ones begin at `lsn`. The caller holds permits
    /// for these bytes, and forgets the permits if the bytes were reserved.
    pub(super) fn at(core: &'a Core, lsn: Lsn, bytes: u64) -> Option<Self> {
        let mut this = Self::guard(core, bytes);
        match core.intake.ring.reserve_at(lsn, bytes) {
            Some(reserved) => {
                this.set(reserved);
                Some(this)
            }
            None => {
                this.is_published = true;
                None
            }
        }
    }

    /// Reserves the positions of a unit that is larger than the ring. The caller has forgotten all
    /// permits.
    pub(super) fn oversized(core: &'a Core, bytes: u64) -> Self {
        let mut this = Self::guard(core, bytes);
        this.lsn = core.intake.ring.reserve_outside(bytes);
        this
    }

    /// As [`oversized`](Reservation::oversized), if the next position is `lsn`. The caller holds all
    /// permits, and forgets them if the positions were reserved.
    pub(super) fn oversized_at(core: &'a Core, lsn: Lsn, bytes: u64) -> Option<Self> {
        let mut this = Self::guard(core, bytes);
        this.lsn = lsn;
        this.is_published = !core.intake.ring.reserve_outside_at(lsn, bytes);
        (!this.is_published).then_some(this)
    }

    pub(super) fn lsn(&self) -> Lsn {
        self.lsn
    }

    pub(super) fn end(&self) -> Lsn {
        self.lsn.plus(self.bytes)
    }

    /// Returns the reserved positions, in the current epoch. No epoch begins while permits are
    /// taken.
    pub(super) fn span(&self) -> Span {
        let goal = Goal { end: self.end(), epoch: self.core.epochs().current() };
        Span { lsn: self.lsn, goal }
    }

    /// Publishes one unit. Its frames take exactly the reserved bytes.
    pub(super) fn publish<'p>(mut self, frames: impl Iterator<Item = (FrameHeader, &'p [u8])>) {
        if let Some(reserved) = &self.reserved {
            reserved.publish(frames);
            self.is_published = true;
        }
    }

    /// Publishes a control record.
    pub(super) fn publish_control(self, control: Control) {
        self.publish_control_payload(&control.payload());
    }

    /// As [`publish_control`](Reservation::publish_control), with the payload.
    pub(super) fn publish_control_payload(self, payload: &[u8]) {
        let payload_bytes = u32::try_from(payload.len()).unwrap_or_default();
        let crc = crc32c::crc32c(payload);
        let (synced, seed) = (self.core.synced().get(), self.core.epochs().seed());
        let header = FrameHeader::seal(seed, self.lsn, Kind::Control, payload_bytes, crc, synced);
        self.core.measures().counters.controls.fetch_add(1, Ordering::Relaxed);
        self.publish(std::iter::once((header, payload)));
    }

    /// Publishes a unit that is larger than the ring.
    pub(super) fn publish_oversized(mut self, unit: Oversized) {
        self.core.intake.oversized.put(self.lsn, unit);
        self.is_published = true;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.is_published {
            self.core.stop(Error::Panicked { context: "" }.into_poison());
        }
    }
}
