//! Writing in place: an append that would wait for its write does it itself, on its own thread, if
//! that can't block for long.
//!
//! A trip to the pool costs some 30 µs, a small write into the page cache one. It is done by the same
//! role as a write job's, under the same lock, and given over to a job whenever it can't be done
//! here: the role is busy, a segment begins, the unit is large, the kernel would have to wait.
//! What the kernel took before it gave up is written again by that job, the same bytes to the same
//! place.
//!
//! Where many tasks append, each lets those that can run go first, once: then the first to come back
//! writes for all of them with one call. Whether that pays is learned as by those who linger.
//!
//! Nobody may have to wait for one who lets others go first: it may not be polled again for long.
//! Whoever comes later, and wants what it published to be written, has that done: an append behind it,
//! a sync, one who waits for its room in the ring. Whoever came before it published found nothing to
//! write, and relies on it; so it looks for those when it has published, and lets nobody go first if
//! there are any. Both sides store, then look for what the other stores, as in `scheduled`.

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
        core::Core,
        epochs::Goal,
        ring::Taken,
        writer::{Step, Writer},
    },
    sabotage::{self, Sabotage},
    sync::{AtomicBool, AtomicU64, Ordering, fence},
};

/// What one call that wrote for several adds to the habit of gathering, what a lone one takes from
/// it, and its highest value.
const GAIN: u64 = 4;
const HABIT_MAX: u64 = 64;

/// Without the habit, one append of so many tries whether it would pay. A prime, so that it isn't
/// always the last of those that come together.
const PROBE_EVERY: u64 = 61;

/// What is written by a call that the kernel promises not to block for.
const NONBLOCKING_BYTES_MAX: u64 = 64 << 10;

/// What a write that would have waited weighs against one that didn't, and how much of it ends the
/// attempts for good: a storage that refuses more than one in eight (Btrfs does) is asked in vain.
const REFUSAL: u64 = 8;
const REFUSALS_MAX: u64 = 512;

/// After so many writes, a task that writes for others too gives it over to a job.
const WRITES_IN_PLACE: u32 = 4;

/// What may be written in place.
#[derive(Debug)]
pub(super) struct InPlace {
    /// By a plain call, which may wait for the device: as the user allows.
    bytes_max: u64,
    /// Whether the storage can promise not to wait, as far as is known.
    is_nonblocking: AtomicBool,
    refusals: AtomicU64,
    /// How well it has paid of late to let others publish first.
    habit: AtomicU64,
    appends: AtomicU64,
    /// How many wait for room in the ring, whatever it takes.
    hurried: AtomicU64,
}

/// Somebody needs what was published to be written, for as long as it lives.
pub(super) struct Hurry<'a>(&'a InPlace);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.hurried.fetch_sub(1, Ordering::Relaxed);
    }
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
        let zero = || AtomicU64::new(0);
        let is_nonblocking = AtomicBool::new(true);
        let (habit, appends, hurried) = (zero(), zero(), zero());
        InPlace { bytes_max, is_nonblocking, refusals: zero(), habit, appends, hurried }
    }

    pub(super) fn is_on(&self) -> bool {
        self.bytes_max() > 0
    }

    /// From here on nobody lets others go first. Whoever did is to be written for by the caller.
    pub(super) fn hurry(&self) -> Hurry<'_> {
        self.hurried.fetch_add(1, Ordering::Relaxed);
        // Before the look for what is published, which follows.
        fence(Ordering::SeqCst);
        Hurry(self)
    }

    fn gathers(&self) -> bool {
        if self.habit.load(Ordering::Relaxed) > 0 {
            return true;
        }
        // Counted roughly: it is only about how often.
        let appends = self.appends.load(Ordering::Relaxed);
        self.appends.store(appends.wrapping_add(1), Ordering::Relaxed);
        appends % PROBE_EVERY == 0
    }

    fn learn(&self, frame_count: u64) {
        let habit = self.habit.load(Ordering::Relaxed);
        let learned =
            if frame_count > 1 { (habit + GAIN).min(HABIT_MAX) } else { habit.saturating_sub(1) };
        if learned != habit {
            self.habit.store(learned, Ordering::Relaxed);
        }
    }

    /// Whether a write that doesn't wait came short; `None` if the storage can't promise it at all.
    fn learn_refusal(&self, is_short: Option<bool>) {
        let refusals = self.refusals.load(Ordering::Relaxed);
        let learned = match is_short {
            None => REFUSALS_MAX,
            Some(true) => refusals + REFUSAL,
            Some(false) => refusals.saturating_sub(1),
        };
        if learned != refusals {
            self.refusals.store(learned, Ordering::Relaxed);
        }
        if learned >= REFUSALS_MAX {
            self.is_nonblocking.store(false, Ordering::Relaxed);
        }
    }

    fn bytes_max(&self) -> u64 {
        let is_nonblocking = self.is_nonblocking.load(Ordering::Relaxed);
        self.bytes_max.max(if is_nonblocking { NONBLOCKING_BYTES_MAX } else { 0 })
    }
}

/// Lets others publish what they append, once, before the caller writes. Dropped meanwhile, it has
/// the caller's record written all the same.
struct Gather<'a> {
    core: &'a Arc<Core>,
    /// Where the caller's record ends.
    end: Lsn,
    has_yielded: bool,
}

impl Gather<'_> {
    /// Whether somebody may have looked for the caller's record before it was published, and waits.
    fn is_awaited(&self) -> bool {
        let core = self.core;
        // Behind the publication.
        fence(Ordering::SeqCst);
        core.in_place.hurried.load(Ordering::Relaxed) > 0
            || core.ring.tail() > self.end
            || core.sync_demand.load(Ordering::Acquire) >= self.end.as_u64()
    }
}

impl Future for Gather<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.has_yielded || !self.core.in_place.gathers() || self.is_awaited() {
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
            self.core.kick_writer();
        }
    }
}

impl Core {
    /// Resolves when everything below the goal, which the caller just published, is with the
    /// operating system; sees to it that it will be.
    pub(crate) async fn write_and_reach(self: &Arc<Self>, goal: Goal) -> Result<()> {
        if self.in_place.is_on() && !self.executor.runs_in_place() {
            Gather { core: self, end: goal.end, has_yielded: false }.await;
            if self.written.get() < goal.end {
                self.write_for_me();
            }
        } else {
            self.kick_writer();
        }
        self.reach_written(goal).await
    }

    /// Has what is published written, for somebody who waits for it: here if that can be, or by a
    /// job. The caller published before.
    fn write_for_me(self: &Arc<Self>) {
        if !self.writer_scheduled.claim(|| true) {
            return;
        }
        self.here_or_by_job(Core::write_in_place, Core::write_job);
    }

    /// Whether all is written that was published; if not, the role is still the caller's.
    fn write_in_place(self: &Arc<Self>) -> bool {
        // As a job does: nobody else owns the log while this may write.
        let Some(_lock) = self.hold_lock() else { return true };
        for _ in 0..WRITES_IN_PLACE {
            let wrote = match self.writer.try_lock() {
                Ok(mut writer) if self.status.check().is_ok() => {
                    writer.step_in_place(self).inspect_err(|error| {
                        // Under the lock: whoever waits for it must not write behind a failed write.
                        self.set_stopped(error.clone().into_poison());
                    })
                }
                // Stopped, or a panic left the writer half way, which stops the log.
                Ok(_) | Err(TryLockError::Poisoned(_)) => return true,
                // A sync job is at it, and may have passed what was published last.
                Err(TryLockError::WouldBlock) => Ok(Wrote::Refused),
            };
            match wrote {
                Ok(Wrote::Step(step)) => self.tell_written(step),
                Ok(Wrote::Nothing) => {}
                Ok(Wrote::Refused) => return false,
                Err(error) => {
                    self.stop(error.into_poison());
                    return true;
                }
            }
            if !self.writer_scheduled.let_go(|| self.may_have_left()) {
                return true;
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
                    core.in_place.learn_refusal(written.map(|count| count < piece.len()));
                    let believes = sabotage::is_on(Sabotage::BelieveShortWrite);
                    Ok(written == Some(piece.len()) || (believes && written.is_some()))
                })?;
                if !is_whole {
                    return Ok(Wrote::Refused);
                }
                core.in_place.learn(frame_count);
                Ok(Wrote::Step(self.wrote_units(core, end, frame_count, false)))
            }
            // A rotation may wait for a flush.
            Taken::DoesNotFit { .. } => Ok(Wrote::Refused),
            Taken::Nothing if core.is_outside_at(at) => Ok(Wrote::Refused),
            Taken::Nothing => Ok(Wrote::Nothing),
        }
    }
}
