//! Writing in place: an append that would wait for its write does it itself, on its own thread, if
//! that can't block for long.
//!
//! A trip to the pool costs some 30 µs, a small write into the page cache one. It is done by the same
//! role as a write job's, under the same lock, and given over to a job whenever it can't be done
//! here: the role is busy, a segment begins, the unit is large, the kernel would have to wait.
//! What the kernel took before it gave up is written again by that job, the same bytes to the same
//! place.

use std::sync::{Arc, TryLockError};

use crate::{
    error::Result,
    pipeline::{
        core::Core,
        job::{Job, PanicGuard},
        ring::Taken,
        writer::{Step, Writer},
    },
    sync::{AtomicBool, Ordering},
};

/// What is written by a call that the kernel promises not to block for.
const NONBLOCKING_BYTES_MAX: u64 = 64 << 10;

/// After so many writes, a task that writes for others too gives it over to a job.
const WRITES_IN_PLACE: u32 = 4;

/// What may be written in place.
#[derive(Debug)]
pub(super) struct InPlace {
    /// By a plain call, which may wait for the device: as the user allows.
    bytes_max: u64,
    /// Whether the storage can promise not to wait, as far as is known.
    is_nonblocking: AtomicBool,
}

/// What became of a write in place.
enum Wrote {
    Step(Step),
    /// Nothing is published.
    Nothing,
    /// It has to be done by a job.
    Refused,
}

impl InPlace {
    pub(super) fn new(bytes_max: u64) -> Self {
        InPlace { bytes_max, is_nonblocking: AtomicBool::new(true) }
    }

    fn bytes_max(&self) -> u64 {
        let is_nonblocking = self.is_nonblocking.load(Ordering::Relaxed);
        self.bytes_max.max(if is_nonblocking { NONBLOCKING_BYTES_MAX } else { 0 })
    }
}

impl Core {
    /// Has what is published written, for somebody who waits for it: here if that can be, or by a
    /// job. The caller published before.
    pub(crate) fn write_for_me(self: &Arc<Self>) {
        if self.in_place.bytes_max() == 0 || self.executor.runs_in_place() {
            return self.kick_writer();
        }
        if !self.writer_scheduled.claim(|| true) {
            return;
        }
        let guard = PanicGuard { core: self };
        let is_done = self.write_in_place();
        std::mem::forget(guard);
        if !is_done {
            Job::new(Arc::clone(self), Core::write_job).spawn();
        }
    }

    /// Whether all is written that was published; if not, the role is still the caller's.
    fn write_in_place(self: &Arc<Self>) -> bool {
        // As a job does: nobody else owns the log while this may write.
        let Some(_lock) = self.hold_lock() else { return true };
        for _ in 0..WRITES_IN_PLACE {
            let wrote = match self.writer.try_lock() {
                Ok(mut writer) if self.status.check().is_ok() => writer.step_in_place(self),
                // Stopped, or a panic left the writer half way, which stops the log.
                Ok(_) | Err(TryLockError::Poisoned(_)) => return true,
                // A sync job is at it, and may have passed what was published last.
                Err(TryLockError::WouldBlock) => Ok(Wrote::Refused),
            };
            match wrote {
                Ok(Wrote::Step(step)) => self.tell_written(step),
                Ok(Wrote::Nothing) => {
                    if !self.writer_scheduled.let_go(|| self.may_have_left()) {
                        return true;
                    }
                }
                Ok(Wrote::Refused) => return false,
                Err(error) => {
                    self.stop(error.into_poison());
                    return true;
                }
            }
        }
        false
    }

    /// As `has_left`, and yes while somebody else drains.
    fn may_have_left(&self) -> bool {
        match self.writer.try_lock() {
            Ok(writer) => self.is_left(&writer),
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Poisoned(_)) => false,
        }
    }
}

impl Writer {
    fn step_in_place(&mut self, core: &Core) -> Result<Wrote> {
        let (at, bytes_max) = (self.at(), core.in_place.bytes_max());
        let room_bytes = self.room_bytes().min(bytes_max);
        match self.take(bytes_max, room_bytes) {
            Taken::Units { end, frame_count } => {
                let is_plain = end.since(at) <= core.in_place.bytes_max;
                let is_whole = self.write_taken(core, |file, piece, offset| {
                    if is_plain {
                        return file.write_at(piece, offset).map(|()| true);
                    }
                    let written = file.write_at_nonblocking(piece, offset);
                    if written.is_none() {
                        core.in_place.is_nonblocking.store(false, Ordering::Relaxed);
                    }
                    Ok(written == Some(piece.len()))
                })?;
                if !is_whole {
                    return Ok(Wrote::Refused);
                }
                Ok(Wrote::Step(self.wrote_units(core, end, frame_count, false)))
            }
            // A rotation may wait for a flush.
            Taken::DoesNotFit { .. } => Ok(Wrote::Refused),
            Taken::Nothing if core.is_outside_at(at) => Ok(Wrote::Refused),
            Taken::Nothing => Ok(Wrote::Nothing),
        }
    }
}
