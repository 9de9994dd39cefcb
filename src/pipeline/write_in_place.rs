//! Writing in place: an append writes its frame on its own thread, without blocking for long.
//!
//! A trip to the pool costs about 30 µs, a small write into the page cache about 1 µs. The append
//! takes the role of a write job, with the same lock. It hands over to a job if it can't write
//! here: the role is taken, a segment begins, the unit is large, or the kernel would have to wait.
//! If the kernel took only a part, the job writes the same bytes to the same place again.
//!
//! If many tasks append, each yields once to the others. Then the first to return writes for all of
//! them with one call. A habit learns whether that pays.
//!
//! A yielding append may not be polled again for a long time, so no other task may depend on it.
//! Any later append, sync or task that waits for ring space starts the write itself. A task that
//! came before the publication found nothing to write. So the append looks for such tasks after it
//! has published, and does not yield if there are any. Both sides store, then look at the other's
//! store, as in `scheduled`.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, TryLockError},
    task::{Context, Poll},
};

use crate::{
    error::Result,
    lsn::Lsn,
    pipeline::{
        core::{Core, Role},
        job::{request_write, run_here},
        mark_frame::leave_mark,
        state::{
            ring::Taken,
            writing::{Step, Writing},
        },
        writer::{after_write, has_left, write_taken, wrote_taken},
    },
    sabotage::{self, Sabotage},
    sync::{Ordering, fence},
};

/// After this many writes, a task that also writes for others hands over to a job.
const WRITES_IN_PLACE: u32 = 4;

/// The result of a write in place.
enum Wrote {
    Step(Step),
    /// Nothing is published.
    Nothing,
    /// A job has to do it.
    Refused,
}

/// Yields once, so that other tasks publish, before the caller writes. If it is dropped while it
/// yields, a job writes the caller's record.
pub(super) struct Gather<'a> {
    core: &'a Arc<Core>,
    /// The end of the caller's record.
    end: Lsn,
    has_yielded: bool,
}

impl<'a> Gather<'a> {
    pub(super) fn new(core: &'a Arc<Core>, end: Lsn) -> Self {
        Gather { core, end, has_yielded: false }
    }

    /// Returns whether a task may wait that looked for the caller's record before its publication.
    fn is_awaited(&self) -> bool {
        let core = self.core;
        // The fence comes after the publication.
        fence(Ordering::SeqCst);
        core.roles.in_place.is_urgent()
            || core.tail() > self.end
            || core.progress.sync_demand.load(Ordering::Acquire) >= self.end
    }
}

impl Future for Gather<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let gathers = || self.core.roles.in_place.gathering.takes();
        if self.has_yielded || !gathers() || self.is_awaited() {
            self.has_yielded = false;
            return Poll::Ready(());
        }
        self.has_yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Gather<'_> {
    fn drop(&mut self) {
        if self.has_yielded {
            request_write(self.core);
        }
    }
}

/// Has the published frames written: here if possible, or by a job. Call it after publishing.
pub(super) fn write_here(core: &Arc<Core>) {
    if core.roles.write_flag.claim(|| true) {
        run_here(core, write_in_place, Role::Write);
    }
}

/// Returns whether everything published is written. If not, the caller still has the role.
fn write_in_place(core: &Arc<Core>) -> bool {
    // As for a job: no other process owns the log while this may write.
    let Some(_lock) = core.life.lock.hold() else { return true };
    for _ in 0..WRITES_IN_PLACE {
        let wrote = match core.roles.writing.try_lock() {
            Ok(mut writing) if core.status().check().is_ok() => {
                step_in_place(&mut writing, core).inspect_err(|error| {
                    // Under the lock, so that no thread writes behind a failed write.
                    core.set_stopped(error.clone().into_poison());
                })
            }
            // Stopped, or a panic left the writer half way, which stops the log.
            Ok(_) | Err(TryLockError::Poisoned(_)) => return true,
            // A sync job drains, and may have passed the newest frames.
            Err(TryLockError::WouldBlock) => Ok(Wrote::Refused),
        };
        match wrote {
            Ok(Wrote::Step(step)) => {
                after_write(core, step);
                // A sync that overtook this write found no room for its mark.
                leave_mark(core);
            }
            Ok(Wrote::Nothing) => {}
            Ok(Wrote::Refused) => return false,
            Err(error) => {
                core.stop(error.into_poison());
                return true;
            }
        }
        if !core.roles.write_flag.release(|| may_have_work(core)) {
            return true;
        }
    }
    false
}

/// Returns whether something is published; true while another thread drains.
fn may_have_work(core: &Core) -> bool {
    match core.roles.writing.try_lock() {
        Ok(writing) => has_left(&writing, core),
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Poisoned(_)) => false,
    }
}

fn step_in_place(writing: &mut Writing, core: &Core) -> Result<Wrote> {
    let in_place = &core.roles.in_place;
    let (at, bytes_max) = (writing.at(), in_place.bytes_max());
    let room_bytes = writing.room_bytes().min(bytes_max);
    match writing.take(bytes_max, room_bytes) {
        Taken::Units { end, frame_count } => {
            let is_plain = end.since(at) <= in_place.plain_bytes_max();
            let is_whole = write_taken(writing, core, |file, piece, offset| {
                if is_plain {
                    return file.write_at(piece, offset).map(|()| true);
                }
                let written = file.write_at_nonblocking(piece, offset);
                in_place.learn_refusal(written.map(|count| count < piece.len()));
                let believes = sabotage::is_on(Sabotage::BelieveShortWrite);
                Ok(written == Some(piece.len()) || (believes && written.is_some()))
            })?;
            if !is_whole {
                return Ok(Wrote::Refused);
            }
            in_place.gathering.learn(frame_count > 1);
            Ok(Wrote::Step(wrote_taken(writing, core, end, frame_count, None)))
        }
        // A rotation may wait for a flush.
        Taken::DoesNotFit { .. } => Ok(Wrote::Refused),
        Taken::Nothing if core.intake.oversized.is_at(at) => Ok(Wrote::Refused),
        Taken::Nothing => Ok(Wrote::Nothing),
    }
}
