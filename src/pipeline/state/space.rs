//! Space for future reservations: the spare segment, and the limit that keeps appends within the
//! space.
//!
//! An append may reserve while the tail is at most `limit`. All reservations made after a check
//! passed are by holders of permits, so they exceed the limit by at most the ring's capacity R. A
//! segment has room for 2 R + C, where C is for the control records that end the log. Hence:
//!
//! - without a spare, `limit` = end of the active segment − R − C: everything fits into it;
//! - with one, `limit` = end of the active + capacity of the spare − 2 R − C. Bytes that don't fit
//!   go into the spare. At the end of the active segment, a large unit leaves fewer than R bytes
//!   unused.
//!
//! With a spare the limit is at least the end of the active segment. So a tail above it means that
//! something in flight will rotate, and a task that waits for room waits for that rotation.
//!
//! So a full device is found while preparing, before anything is reserved.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{
        frame::{CONTROL_FRAME_BYTES, FIRST_FRAME_BYTES},
        header::{SEGMENT_HEADER_BYTES, fits},
        slots::EMPTY_FRAME_BYTES,
    },
    lsn::{AtomicLsn, AtomicOptionLsn, Lsn},
    pipeline::state::wakers::Bell,
    segments::{SegmentFile, Sequence},
    sync::{LockAlways, Mutex, MutexGuard, Ordering},
};

/// The spare is prepared when 1 / `PREPARE_AT_PART` of the active segment is used. That is late
/// enough that a small log has none, and early enough that a rotation finds it ready.
const PREPARE_AT_PART: u64 = 8;

/// The largest record of slots that a full log takes, so that slots don't keep it full.
pub(crate) const SLOTS_ROOM_BYTES: u64 = 128;

/// Space kept free so that a full log can still be truncated once and closed: two records of the
/// beginning, a time mark, a close, and records of slots.
pub(crate) const CONTROL_ROOM_BYTES: u64 =
    3 * FIRST_FRAME_BYTES + CONTROL_FRAME_BYTES + SLOTS_ROOM_BYTES + EMPTY_FRAME_BYTES;

#[derive(Debug)]
pub(crate) struct Space {
    /// One past the highest tail at which an append may reserve; 0 if none may.
    limit: AtomicLsn,
    /// The written position at which the writer requests a spare; `None` once it did.
    prepare_at: AtomicOptionLsn,
    state: Mutex<SpaceState>,
    /// Held while a file is prepared.
    pub(crate) preparing: Mutex<()>,
    pub(crate) changed: Bell,
    ring_bytes: u64,
}

#[derive(Debug)]
struct SpaceState {
    active_end: Lsn,
    next_sequence: Sequence,
    spare: Option<Spare>,
    /// Counts the attempts to prepare a spare. An append waits for the attempt that it has
    /// requested, or a later one.
    attempt: u64,
    is_scheduled: bool,
    failure: Option<(u64, Error)>,
    slots_room: SlotsRoom,
}

/// The space that is kept for one slots record in each segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SlotsRoom {
    #[default]
    Free,
    /// A record is about to use it.
    Claimed,
    /// The end of the record that used it.
    Used(Lsn),
}

/// The next segment's file, prepared.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) file: Arc<SegmentFile>,
    /// The size of the file.
    pub(crate) bytes: u64,
}

impl Spare {
    fn capacity(&self) -> u64 {
        self.bytes.saturating_sub(SEGMENT_HEADER_BYTES)
    }
}

/// A spare that has to be made, or made larger.
pub(crate) struct Wanted {
    pub(crate) sequence: Sequence,
    /// The size of the file.
    pub(crate) bytes: u64,
    /// A spare that is too small. Its file is enlarged.
    pub(crate) small: Option<Spare>,
}

/// The result of a request for a spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpareRequest {
    /// There is a spare with enough room.
    Ready,
    /// An attempt is scheduled already.
    Scheduled(u64),
    /// The caller has to start this attempt.
    Claimed(u64),
}

/// Returns the size of a segment's file with room for a unit of `bytes`, which is at least
/// `segment_bytes`.
pub(crate) fn file_bytes_for(bytes: u64, segment_bytes: u64) -> u64 {
    bytes.saturating_add(SEGMENT_HEADER_BYTES).next_multiple_of(512).max(segment_bytes)
}

impl Space {
    pub(crate) fn new(ring_bytes: u64, next_sequence: Sequence) -> Self {
        let state = SpaceState {
            active_end: Lsn::ZERO,
            next_sequence,
            spare: None,
            attempt: 0,
            is_scheduled: false,
            failure: None,
            slots_room: SlotsRoom::default(),
        };
        Space {
            limit: AtomicLsn::new(Lsn::ZERO),
            prepare_at: AtomicOptionLsn::new(None),
            state: Mutex::new(state),
            preparing: Mutex::new(()),
            changed: Bell::default(),
            ring_bytes,
        }
    }

    /// No user code and no I/O runs under this lock.
    fn state(&self) -> MutexGuard<'_, SpaceState> {
        self.state.lock_always()
    }

    /// Stores the new limit. The caller then wakes the tasks that wait for it, without the lock.
    fn publish_limit(&self, state: &SpaceState) {
        let (end, margin) = match &state.spare {
            None => (state.active_end, self.ring_bytes),
            Some(spare) => (state.active_end.plus(spare.capacity()), 2 * self.ring_bytes),
        };
        let limit = end.plus(1).as_u64().saturating_sub(margin + CONTROL_ROOM_BYTES);
        self.limit.store(Lsn::new(limit), Ordering::Release);
    }

    /// Notes a new active segment, from `base` to `end`.
    pub(crate) fn rotated(&self, base: Lsn, end: Lsn) {
        let mut state = self.state();
        state.active_end = end;
        // The new segment keeps such space again.
        if matches!(state.slots_room, SlotsRoom::Used(end) if end <= base) {
            state.slots_room = SlotsRoom::Free;
        }
        let at = base.plus(end.since(base) / PREPARE_AT_PART);
        self.prepare_at.store(Some(at), Ordering::Release);
        self.publish_limit(&state);
    }

    pub(crate) fn has_room(&self, tail: Lsn) -> bool {
        tail < self.limit.load(Ordering::Acquire)
    }

    /// Returns whether a unit of `bytes` at `tail` fits, if nothing else is in flight.
    pub(crate) fn has_room_for(&self, tail: Lsn, bytes: u64) -> bool {
        let state = self.state();
        let bytes = bytes.saturating_add(CONTROL_ROOM_BYTES);
        tail.plus(bytes) <= state.active_end
            || state.spare.as_ref().is_some_and(|spare| spare.capacity() >= bytes)
    }

    /// Returns the number of the next file to prepare.
    pub(crate) fn next_sequence(&self) -> Sequence {
        self.state().next_sequence
    }

    /// Claims the space that is kept for a slots record. Returns `false` if it is used already.
    /// The caller then calls [`use_slots_room`](Space::use_slots_room).
    pub(crate) fn claim_slots_room(&self) -> bool {
        let mut state = self.state();
        let is_free = state.slots_room == SlotsRoom::Free;
        if is_free {
            state.slots_room = SlotsRoom::Claimed;
        }
        is_free
    }

    /// Notes the end of the record that uses the claimed space; `None` if there is no record.
    pub(crate) fn use_slots_room(&self, end: Option<Lsn>) {
        self.state().slots_room = end.map_or(SlotsRoom::Free, SlotsRoom::Used);
    }

    /// Notes that the log has space again.
    pub(crate) fn note_room(&self) {
        self.state().slots_room = SlotsRoom::Free;
    }

    pub(crate) fn has_spare(&self) -> bool {
        self.state().spare.is_some()
    }

    pub(crate) fn has_spare_for(&self, bytes: u64) -> bool {
        self.state().spare.as_ref().is_some_and(|spare| spare.capacity() >= bytes)
    }

    /// Takes the spare, if it has room for a unit of `bytes`.
    pub(crate) fn take_spare(&self, bytes: u64) -> Option<Spare> {
        self.state().spare.take_if(|spare| spare.capacity() >= bytes)
    }

    /// Returns whether `written` has reached the position at which a spare is due. True once.
    pub(crate) fn is_spare_due(&self, written: Lsn) -> bool {
        let is_due = self.prepare_at.load(Ordering::Acquire).is_some_and(|at| written >= at);
        if is_due {
            self.prepare_at.store(None, Ordering::Release);
        }
        is_due
    }

    /// Requests a spare with room for a unit of `bytes`.
    pub(crate) fn request(&self, bytes: u64) -> SpareRequest {
        let mut state = self.state();
        if state.spare.as_ref().is_some_and(|spare| spare.capacity() >= bytes) {
            return SpareRequest::Ready;
        }
        if state.is_scheduled {
            return SpareRequest::Scheduled(state.attempt);
        }
        state.is_scheduled = true;
        state.attempt += 1;
        SpareRequest::Claimed(state.attempt)
    }

    /// Ends an attempt that was claimed. Returns whether the one before had failed.
    pub(crate) fn end_attempt(&self, attempt: u64, failure: Option<Error>) -> bool {
        let mut state = self.state();
        state.is_scheduled = false;
        let had_failed = state.failure.is_some();
        state.failure = failure.map(|error| (attempt, error));
        had_failed
    }

    /// Returns why the attempt `since`, or a later one, failed.
    pub(crate) fn failure_since(&self, since: u64) -> Option<Error> {
        let state = self.state();
        let failure = state.failure.as_ref().filter(|(attempt, _)| *attempt >= since);
        failure.map(|(_, error)| error.clone())
    }

    /// Returns why the last attempt failed, if there is no spare since.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let state = self.state();
        let failure = state.failure.as_ref().filter(|_| state.spare.is_none());
        failure.map(|(_, error)| error.clone())
    }

    /// Returns why the last attempt failed, if no other is scheduled.
    pub(crate) fn last_failure(&self) -> Option<Error> {
        let state = self.state();
        let failure = state.failure.as_ref().filter(|_| !state.is_scheduled);
        failure.map(|(_, error)| error.clone())
    }

    /// Returns the spare to prepare for a unit of `bytes`, of at least `segment_bytes`. `None` if
    /// there is one already. The caller holds `preparing`, and calls
    /// [`set_spare`](Space::set_spare) at the end.
    ///
    /// # Errors
    ///
    /// `LsnLimit` if the log has no positions left for it.
    pub(crate) fn begin_spare(&self, bytes: u64, segment_bytes: u64) -> Result<Option<Wanted>> {
        let file_bytes = file_bytes_for(bytes, segment_bytes);
        let mut state = self.state();
        if state.spare.as_ref().is_some_and(|spare| spare.capacity() >= bytes) {
            return Ok(None);
        }
        // The next segment begins at `active_end` at the latest.
        if !fits(state.active_end, file_bytes) {
            return Err(Error::LsnLimit { lsn: state.active_end });
        }
        let sequence = state.next_sequence;
        let small = state.spare.take();
        if small.is_none() {
            state.next_sequence = sequence.next();
        }
        self.publish_limit(&state);
        Ok(Some(Wanted { sequence, bytes: file_bytes, small }))
    }

    pub(crate) fn set_spare(&self, spare: Option<Spare>) {
        let mut state = self.state();
        state.spare = spare;
        self.publish_limit(&state);
    }

    pub(crate) fn wake_all(&self) {
        self.changed.ring();
    }
}
