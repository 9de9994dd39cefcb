//! The syncer: one flush for everybody who waits.
//!
//! Self-clocked group commit: while one flush runs, those who come wait for the next; there is no
//! timer and no delay to gather a batch. A commit on an idle log is one job, which drains the ring,
//! flushes and wakes.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    task::{Context, Poll},
};

use crate::{
    error::Result,
    format::control::Control,
    lsn::Lsn,
    pipeline::{
        core::{CONTROL_FRAME_BYTES, Core},
        job::Job,
        mark::{Mark, WaiterId},
        writer::Drained,
    },
};

/// After so many flushes a job hands over to a new one, so that it never holds up a shutdown.
const SYNCS_PER_JOB: u32 = 16;

impl Core {
    /// Has everything below `target` synced, by the job that is at it or by a new one.
    pub(crate) fn demand_sync(self: &Arc<Self>, target: Lsn) {
        self.sync_demand.fetch_max(target.as_u64(), Ordering::AcqRel);
        self.start_sync_if_wanted();
    }

    /// The counterpart of the end of `sync_job`: demand, published words and written bytes are
    /// stored before the fence here, `sync_scheduled` is cleared before the fence there.
    pub(super) fn start_sync_if_wanted(self: &Arc<Self>) {
        fence(Ordering::SeqCst);
        if self.wants_sync()
            && !self.sync_scheduled.load(Ordering::Relaxed)
            && !self.sync_scheduled.swap(true, Ordering::AcqRel)
        {
            Job::new(Arc::clone(self), Core::sync_job).spawn();
        }
    }

    /// Whether somebody waits and a flush would bring them further. Behind a frame that is reserved
    /// and not yet published nothing helps; when it is published and written, this is asked again.
    fn wants_sync(&self) -> bool {
        let synced = self.synced.get();
        self.sync_demand.load(Ordering::Acquire) > synced.as_u64()
            && (self.ring.drained() > synced || self.has_published())
    }

    fn sync_job(self: &Arc<Self>) {
        for _ in 0..self.turns(SYNCS_PER_JOB) {
            if self.wants_sync() {
                if let Err(error) = self.sync_once() {
                    self.stop(error.into_poison());
                    return;
                }
                continue;
            }
            self.leave_mark();
            self.sync_scheduled.store(false, Ordering::Release);
            fence(Ordering::SeqCst);
            if !self.wants_sync() || self.sync_scheduled.swap(true, Ordering::AcqRel) {
                return;
            }
        }
        Job::new(Arc::clone(self), Core::sync_job).spawn();
    }

    /// Drains the ring, flushes and moves the synced mark. Only the files' own locks keep two of
    /// these apart, which is enough: the mark moves to what was written before the flush began.
    pub(super) fn sync_once(self: &Arc<Self>) -> Result<()> {
        let goal = self.ring.tail();
        while self.ring.drained() < goal {
            match self.drain_once() {
                Drained::Wrote => {}
                Drained::Idle => break,
                Drained::Stopped => return self.status.check(),
            }
        }
        // Taken before the flush: what is written while it runs is not covered by it.
        let unsynced = match self.writer.lock() {
            Ok(writer) => writer.unsynced(),
            Err(_) => return self.status.check(),
        };
        let written = unsynced.end;
        if written <= self.synced.get() {
            return Ok(());
        }
        // Oldest first: `synced` covers older segments before it passes into a newer one.
        if let Some(sealed) = &unsynced.sealed {
            sealed.sync_data()?;
            self.counters.syncs.fetch_add(1, Ordering::Relaxed);
            if let Ok(mut writer) = self.writer.lock() {
                writer.sealed_is_synced(sealed);
            }
        }
        unsynced.active.sync_data()?;
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.status.check()?;
        // Another job may have written these bytes and not have said so yet.
        self.written.advance(written);
        self.synced.advance(written);
        self.publish_marks();
        Ok(())
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
        self.publish_control(reserved, Control::Mark);
        self.trailing_mark.store(synced.as_u64(), Ordering::Release);
        self.kick_writer_after_mark();
    }

    fn is_trailing_mark(&self, end: Lsn) -> bool {
        let mark = Lsn::new(self.trailing_mark.load(Ordering::Acquire));
        mark.plus(CONTROL_FRAME_BYTES) == end || self.clean_end == Some(end)
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
        let target = self.records_end();
        self.wait_synced(target).await?;
        Ok(target)
    }

    /// Resolves when everything below `target` is synced, and sees to it that it will be.
    pub(crate) async fn wait_synced(self: &Arc<Self>, target: Lsn) -> Result<()> {
        if self.synced.get() < target {
            self.demand_sync(target);
        }
        self.reach_synced(target).await
    }

    /// Resolves when everything below `target` is synced.
    pub(crate) fn reach_synced(&self, target: Lsn) -> Reached<'_> {
        Reached { core: self, mark: &self.synced, target, waiter: None }
    }

    /// Resolves when everything below `target` is with the operating system.
    pub(crate) fn reach_written(&self, target: Lsn) -> Reached<'_> {
        Reached { core: self, mark: &self.written, target, waiter: None }
    }
}

/// Waits for a mark. Dropping it leaves nothing behind.
pub(crate) struct Reached<'a> {
    core: &'a Core,
    mark: &'a Mark,
    target: Lsn,
    waiter: Option<WaiterId>,
}

impl Future for Reached<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.mark.register(this.target, &mut this.waiter, context.waker()) {
            return Poll::Ready(Ok(()));
        }
        // After registering: a stop that comes later wakes us.
        match this.core.status.check() {
            Ok(()) => Poll::Pending,
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
