//! The syncer: one flush for everybody who waits.
//!
//! Self-clocked group commit: while one flush runs, those who come wait for the next; there is no
//! timer, and no delay to gather a batch but for those who were just answered (`regroup`). A commit
//! on an idle log is one job, which drains the ring, flushes and wakes.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use crate::{
    error::Result,
    format::control::Control,
    lsn::Lsn,
    pipeline::{
        core::{CONTROL_FRAME_BYTES, Core},
        epochs::Goal,
        job::Job,
        mark::{Answered, Mark, WaiterId},
        writer::Drained,
    },
    sabotage::{self, Sabotage},
    sync::Ordering,
    turn::lock_over_io,
};

/// After so many flushes a job hands over to a new one, so that it never holds up a shutdown.
const SYNCS_PER_JOB: u32 = 16;

impl Core {
    /// Has everything below `target` synced, by the job that is at it or by a new one.
    pub(crate) fn demand_sync(self: &Arc<Self>, target: Lsn) {
        self.sync_demand.fetch_max(target.as_u64(), Ordering::AcqRel);
        self.start_sync_if_wanted();
    }

    /// Called by whoever has stored what `wants_sync` looks for: demand, or written bytes.
    pub(super) fn start_sync_if_wanted(self: &Arc<Self>) {
        if self.sync_scheduled.claim(|| self.wants_sync()) {
            Job::new(Arc::clone(self), Core::sync_job).spawn();
        }
    }

    /// Whether somebody waits and a flush would bring them further. Behind a frame that is reserved
    /// and not yet published nothing helps; when it is published and written, this is asked again.
    pub(super) fn wants_sync(&self) -> bool {
        let synced = self.synced.get();
        self.sync_demand.load(Ordering::Acquire) > synced.as_u64()
            && (self.ring.drained() > synced || self.has_published())
    }

    pub(super) fn sync_job(self: &Arc<Self>) {
        for _ in 0..self.turns(SYNCS_PER_JOB) {
            if self.wants_sync() {
                let began = Instant::now();
                let Some(answered) = self.sync_step() else { return };
                self.regroup(answered, began.elapsed());
                continue;
            }
            self.leave_mark();
            if !self.sync_scheduled.let_go(|| self.wants_sync()) {
                return;
            }
        }
        Job::new(Arc::clone(self), Core::sync_job).spawn();
    }

    /// One flush of whoever has the role, and whom it answered; `None` if the log has stopped.
    pub(super) fn sync_step(self: &Arc<Self>) -> Option<Answered> {
        match self.sync_once() {
            Ok(answered) => Some(answered),
            Err(error) if self.status.check().is_ok() && sabotage::blame(&error) => {
                self.synced.wake_all();
                Some(Answered::default())
            }
            Err(error) => {
                self.stop(error.into_poison());
                None
            }
        }
    }

    /// Drains the ring, flushes and moves the synced mark. Only the files' own locks keep two of
    /// these apart, which is enough: the mark moves to what was written before the flush began. Says
    /// whom it answered.
    pub(super) fn sync_once(self: &Arc<Self>) -> Result<Answered> {
        let goal = self.ring.tail();
        let queue_bytes = goal.since(self.ring.drained());
        while self.ring.drained() < goal {
            match self.drain_once() {
                Drained::Wrote => {}
                Drained::Idle => break,
                Drained::Stopped => return self.nobody_answered(),
            }
        }
        // Taken before the flush: what is written while it runs is not covered by it. No cut comes
        // between, as it holds this lock too.
        let (unsynced, record_count, epoch) = match lock_over_io(&self.writer) {
            Ok(writer) => (writer.unsynced(), self.written_record_count(), self.epochs.current()),
            Err(_) => return self.nobody_answered(),
        };
        let written = unsynced.end;
        if written <= self.synced.get() {
            return Ok(Answered::default());
        }
        if sabotage::is_on(Sabotage::AcknowledgeBeforeFlush) {
            self.synced.advance(written);
            self.answer();
        }
        // Oldest first: `synced` covers older segments before it passes into a newer one.
        if let Some(sealed) = &unsynced.sealed {
            self.flush(sealed)?;
            if let Ok(mut writer) = lock_over_io(&self.writer) {
                writer.sealed_is_synced(sealed);
            }
        }
        self.flush(&unsynced.active)?;
        // What is open isn't used again, if a truncation drops it next.
        drop(unsynced);
        self.status.check()?;
        let later = sabotage::is_on(Sabotage::MarkLaterByte);
        let written = if later { self.ring.drained() } else { written };
        // Before anybody is woken, who may look.
        self.measures.synced(record_count, queue_bytes);
        self.standing.asked(record_count);
        let answered = self.raise_marks(epoch, written);
        if answered.is_some() {
            self.carry_out_truncations(|| self.synced.get());
            self.publish_marks();
        }
        Ok(answered.unwrap_or_default())
    }

    /// Unless the log has stopped, which answers everybody.
    fn nobody_answered(&self) -> Result<Answered> {
        self.status.check().map(|()| Answered::default())
    }

    /// Commits the group that was just synced, if nothing follows that would: without a later frame
    /// that claims it, damage to it could not be told from a torn tail. Not synced itself.
    pub(crate) fn leave_mark(self: &Arc<Self>) {
        let synced = self.synced.get();
        let is_idle = self.ring.tail() == synced && !self.is_trailing_mark(synced);
        if !is_idle || self.status.check_new().is_err() {
            return;
        }
        if !self.space.has_room(synced) {
            // Comes back here when there is.
            self.request_spare(0);
            return;
        }
        let Ok(permit) = self.permits.try_acquire_many(Core::permits_for(CONTROL_FRAME_BYTES))
        else {
            return;
        };
        let Some(reserved) = self.ring.reserve_at(synced, CONTROL_FRAME_BYTES) else {
            return;
        };
        permit.forget();
        // Before anybody can see the frame: who comes to it knows that it needn't be read.
        self.trailing_mark.store(synced.as_u64(), Ordering::Release);
        self.publish_control(reserved, Control::Mark);
        self.kick_writer_after_mark();
    }

    fn is_trailing_mark(&self, end: Lsn) -> bool {
        let mark = Lsn::new(self.trailing_mark.load(Ordering::Acquire));
        mark.plus(CONTROL_FRAME_BYTES) == end || self.is_clean_end(end)
    }

    /// Writes the mark here and now: it is one small write, cheaper than a job.
    fn kick_writer_after_mark(self: &Arc<Self>) {
        if self.drain_once() == Drained::Wrote && self.has_published() {
            self.kick_writer();
        }
    }

    /// Everything ordered before the call, synced.
    pub(crate) async fn sync(self: &Arc<Self>) -> Result<Lsn> {
        self.status.check_new()?;
        let goal = self.goal(|| self.records_end());
        self.wait_synced(goal).await?;
        Ok(goal.end)
    }

    /// Resolves when everything below the goal is synced, and sees to it that it will be.
    pub(crate) async fn wait_synced(self: &Arc<Self>, goal: Goal) -> Result<()> {
        // What was cut is asked for by nobody.
        self.epochs.check(goal)?;
        if self.synced.get() < goal.end {
            self.sync_for(goal).await;
        }
        self.reach_synced(goal).await
    }

    /// Resolves when everything below the goal is synced.
    pub(crate) fn reach_synced(&self, goal: Goal) -> Reached<'_> {
        Reached { core: self, mark: &self.synced, goal, waiter: None }
    }

    /// Resolves when everything below the goal is with the operating system.
    pub(crate) fn reach_written(&self, goal: Goal) -> Reached<'_> {
        Reached { core: self, mark: &self.written, goal, waiter: None }
    }
}

/// Waits for a mark. Dropping it leaves nothing behind.
pub(crate) struct Reached<'a> {
    core: &'a Core,
    mark: &'a Mark,
    goal: Goal,
    waiter: Option<WaiterId>,
}

impl Future for Reached<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let is_reached = this.mark.register(this.goal.end, &mut this.waiter, context.waker());
        // After registering: a cut or a stop that comes later wakes us. And after the mark was read,
        // which may be one of a later epoch.
        this.core.epochs.check(this.goal)?;
        if is_reached {
            return Poll::Ready(Ok(()));
        }
        match this.core.status.check() {
            Ok(()) => {
                sabotage::take_blamed().map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.mark.cancel(waiter);
        }
    }
}
