//! Space for what will be reserved: the spare segment, and the gate that keeps appends within it.
//!
//! An append may reserve while the tail is at most `limit`. All reservations made after a check
//! passed are by holders of permits, so they exceed the limit by at most the ring's capacity R,
//! and 2 R + C fit into a segment, with C for the control records that end the log. Hence:
//!
//! - without a spare, `limit` = end of the active segment − R − C: everything fits into it;
//! - with one, `limit` = end of the active + capacity of the spare − 2 R − C: what doesn't fit, and
//!   the end of the active segment left unused because a unit didn't fit (< R), fits into the spare.
//!
//! With a spare the limit is at least the end of the active segment, so a tail above it means that
//! something in flight will rotate: who waits for room then waits for that rotation.
//!
//! So a full device is found here, while preparing, before anything is reserved.

use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

use tokio::sync::Notify;

use crate::{
    error::{Error, Result},
    format::header::SEGMENT_HEADER_BYTES,
    lsn::Lsn,
    pipeline::{
        core::{CONTROL_ROOM_BYTES, Core},
        job::Job,
    },
    segments::{SegmentFile, Sequence},
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
    turn::lock_over_io,
};

/// The spare is prepared when this part of the active segment is used: late enough that a small log
/// has none, early enough that rotation finds it ready.
const PREPARE_AT_PART: u64 = 8;

#[derive(Debug)]
pub(crate) struct Space {
    /// One past the highest tail that may be moved on; 0 if none may.
    limit: AtomicU64,
    /// Where the writer asks for the spare; `u64::MAX` once it did.
    prepare_at: AtomicU64,
    state: Mutex<State>,
    /// Held while a file is being prepared.
    preparing: Mutex<()>,
    changed: Notify,
    ring_bytes: u64,
}

#[derive(Debug)]
struct State {
    active_end: Lsn,
    next_sequence: Sequence,
    spare: Option<Spare>,
    /// Counts the attempts to prepare, so that an append waits for one that began after it came.
    attempt: u64,
    scheduled: bool,
    failure: Option<(u64, Error)>,
}

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

impl Space {
    pub(crate) fn new(ring_bytes: u64, next_sequence: Sequence) -> Self {
        let state = State {
            active_end: Lsn::ZERO,
            next_sequence,
            spare: None,
            attempt: 0,
            scheduled: false,
            failure: None,
        };
        Space {
            limit: AtomicU64::new(0),
            prepare_at: AtomicU64::new(u64::MAX),
            state: Mutex::new(state),
            preparing: Mutex::new(()),
            changed: Notify::new(),
            ring_bytes,
        }
    }

    /// No user code and no I/O runs under this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_limit(&self, state: &State) {
        let (end, margin) = match &state.spare {
            None => (state.active_end, self.ring_bytes),
            Some(spare) => (state.active_end.plus(spare.capacity()), 2 * self.ring_bytes),
        };
        let limit = end.plus(1).as_u64().saturating_sub(margin + CONTROL_ROOM_BYTES);
        self.limit.store(limit, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// A new active segment, from `base` to `end`.
    pub(crate) fn rotated(&self, base: Lsn, end: Lsn) {
        let mut state = self.state();
        state.active_end = end;
        let at = base.plus(end.since(base) / PREPARE_AT_PART);
        self.prepare_at.store(at.as_u64(), Ordering::Release);
        self.publish_limit(&state);
    }

    pub(crate) fn has_room(&self, tail: Lsn) -> bool {
        tail.as_u64() < self.limit.load(Ordering::Acquire)
    }

    /// Whether a unit of `bytes` at `tail`, with nothing else in flight, has its place for sure.
    fn has_room_for(&self, tail: Lsn, bytes: u64) -> bool {
        let state = self.state();
        let bytes = bytes.saturating_add(CONTROL_ROOM_BYTES);
        tail.plus(bytes) <= state.active_end
            || state.spare.as_ref().is_some_and(|spare| spare.capacity() >= bytes)
    }

    /// The spare, if it has room for a unit of `bytes`.
    pub(crate) fn take_spare(&self, bytes: u64) -> Option<Spare> {
        let mut state = self.state();
        state.spare.take_if(|spare| spare.capacity() >= bytes)
    }

    /// Why the last attempt to prepare a spare failed, if it did.
    pub(super) fn last_failure(&self) -> Option<Error> {
        let state = self.state();
        let failure = state.failure.as_ref().filter(|_| !state.scheduled);
        failure.map(|(_, error)| error.clone())
    }

    /// Takes the spare away for good, when the log is closed; waits for one being prepared.
    pub(super) fn discard_spare(&self) -> Option<Spare> {
        let _prepared = lock_over_io(&self.preparing).unwrap_or_else(PoisonError::into_inner);
        self.take_spare(0)
    }

    pub(crate) fn wake_all(&self) {
        self.changed.notify_waiters();
    }
}

impl Core {
    /// Waits until the tail may move on.
    ///
    /// # Errors
    ///
    /// `NoSpace` if an attempt to prepare a segment that ended after this call began found none.
    pub(crate) async fn wait_for_room(self: &Arc<Self>, unit_bytes: Option<u64>) -> Result<()> {
        let bytes = unit_bytes.map_or(0, |bytes| bytes.saturating_add(CONTROL_ROOM_BYTES));
        let is_there = || match unit_bytes {
            None => self.space.has_room(self.ring.tail()),
            Some(bytes) => self.space.has_room_for(self.ring.tail(), bytes),
        };
        self.wait_for_space(bytes, is_there).await
    }

    /// Waits until the next segment's file is prepared.
    ///
    /// # Errors
    ///
    /// As [`Core::wait_for_room`].
    pub(super) async fn wait_for_spare(self: &Arc<Self>) -> Result<()> {
        self.wait_for_space(0, || self.space.state().spare.is_some()).await
    }

    /// Has a spare for a unit of `bytes` prepared, and waits until there is what is waited for.
    async fn wait_for_space(
        self: &Arc<Self>,
        bytes: u64,
        is_there: impl Fn() -> bool,
    ) -> Result<()> {
        let mut awaited = None;
        let mut wait = None;
        loop {
            if is_there() {
                return Ok(());
            }
            let changed = self.space.changed.notified();
            futures::pin_mut!(changed);
            // Registered before the state is read again, so that no change is missed.
            changed.as_mut().enable();
            self.status.check()?;
            if is_there() {
                return Ok(());
            }
            if let (Some(awaited), Some((attempt, error))) = (awaited, &self.space.state().failure)
            {
                if *attempt >= awaited {
                    return Err(error.clone());
                }
            }
            match self.request_spare(bytes) {
                // Run in place, it may be over already.
                Some(attempt) if awaited.is_none() => awaited = Some(attempt),
                _ => {
                    wait.get_or_insert_with(|| self.measures.room_wait());
                    changed.await;
                }
            }
        }
    }

    /// Has a spare with room for a unit of `bytes` prepared in the background, and says by which
    /// attempt; `None` if there is one.
    pub(super) fn request_spare(self: &Arc<Self>, bytes: u64) -> Option<u64> {
        let attempt = {
            let mut state = self.space.state();
            if state.spare.as_ref().is_some_and(|spare| spare.capacity() >= bytes) {
                return None;
            }
            if state.scheduled {
                return Some(state.attempt);
            }
            state.scheduled = true;
            state.attempt += 1;
            state.attempt
        };
        let job = Job::new(Arc::clone(self), move |core| {
            if core.status.check().is_err() {
                return;
            }
            let prepared = core.prepare_spare(bytes);
            let had_stopped = core.status.check().is_err();
            let failure = prepared.err().map(|error| core.judge(error));
            let mut state = core.space.state();
            state.scheduled = false;
            let had_failed = state.failure.is_some();
            state.failure = failure.clone().map(|error| (attempt, error));
            drop(state);
            let log = core.storage.location();
            match failure {
                Some(error @ Error::NoSpace { .. }) => {
                    tracing::warn!(log, %error, "appends that need the next segment are refused");
                    core.space.wake_all();
                }
                Some(_) if had_stopped => {}
                // Said aloud, and everybody woken, once the lock is free.
                Some(error) => core.stop(error),
                None => {
                    if had_failed {
                        tracing::info!(log, "there is space again: appends go on");
                    }
                    core.space.wake_all();
                    // The mark of an idle log may have waited for this room.
                    core.leave_mark();
                }
            }
        });
        job.spawn();
        Some(attempt)
    }

    /// What those who wait for a spare are told of a failure to prepare one: all but a full device
    /// stops the log, and it has stopped before anybody can read why.
    fn judge(&self, error: Error) -> Error {
        if matches!(error, Error::NoSpace { .. }) {
            return error;
        }
        self.set_stopped(error.into_poison());
        self.why_stopped()
    }

    /// Asks for the spare once the active segment is used far enough.
    pub(crate) fn prepare_ahead(self: &Arc<Self>, written: Lsn) {
        let at = &self.space.prepare_at;
        if written.as_u64() >= at.load(Ordering::Acquire) {
            at.store(u64::MAX, Ordering::Release);
            self.request_spare(0);
        }
    }

    /// The next segment's file, with so many bytes.
    fn make_room(
        &self,
        small: Option<&Spare>,
        sequence: Sequence,
        file_bytes: u64,
    ) -> Result<Arc<SegmentFile>> {
        let Some(spare) = small else {
            return self.next_file(sequence, file_bytes).map(Arc::new);
        };
        // A unit larger than a segment: the spare grows to be its own, in its place.
        let grown = spare.file.reserve(file_bytes).and_then(|()| spare.file.sync_all());
        match grown {
            Ok(()) => Ok(Arc::clone(&spare.file)),
            Err(error) => Err(error.or_no_space(spare.file.name(), file_bytes)),
        }
    }

    /// Prepares a spare with room for a unit of `bytes`, unless there is one. Blocks.
    pub(crate) fn prepare_spare(&self, bytes: u64) -> Result<()> {
        let _one_at_a_time =
            lock_over_io(&self.space.preparing).unwrap_or_else(PoisonError::into_inner);
        // A log that is closed gets no new files.
        self.status.check()?;
        let began = Instant::now();
        let needed = bytes.saturating_add(SEGMENT_HEADER_BYTES).next_multiple_of(512);
        let file_bytes = needed.max(self.config.segment_bytes);
        let (small, sequence) = {
            let mut state = self.space.state();
            if state.spare.as_ref().is_some_and(|spare| spare.capacity() >= bytes) {
                return Ok(());
            }
            let sequence = state.next_sequence;
            let small = state.spare.take();
            if small.is_none() {
                state.next_sequence = sequence.next();
            }
            self.space.publish_limit(&state);
            (small, sequence)
        };
        let mut prepared = self.make_room(small.as_ref(), sequence, file_bytes);
        if matches!(prepared, Err(Error::NoSpace { .. })) && self.give_back_recycled() {
            prepared = self.make_room(small.as_ref(), sequence, file_bytes);
        }
        if let Ok(file) = &prepared {
            let (segment, time) = (file.name(), began.elapsed());
            tracing::debug!(segment, bytes = file_bytes, ?time, "prepared the next segment");
        }
        let mut state = self.space.state();
        let (spare, result) = match prepared {
            Ok(file) => (Some(Spare { file, bytes: file_bytes }), Ok(())),
            Err(error) => (small, Err(error)),
        };
        state.spare = spare;
        self.space.publish_limit(&state);
        result
    }
}
