//! The lock on the directory, which outlives every job that runs.

use std::any::Any;

use crate::{
    pipeline::state::wakers::Bell,
    sync::{AtomicU64, Condvar, LockAlways, Mutex, MutexGuard, Ordering},
    turn::wait_over_io,
};

/// Set in [`LockCell::jobs`] if further jobs are refused.
const RELEASED: u64 = 1;
/// One job in [`LockCell::jobs`].
const JOB: u64 = 2;

/// Holds the lock on the directory, and counts the jobs that run under it.
#[derive(Debug)]
pub(crate) struct LockCell {
    /// The number of jobs, in units of [`JOB`], and [`RELEASED`]. Outside of the mutex, because
    /// each append in place counts as a job.
    jobs: AtomicU64,
    state: Mutex<LockState>,
    left: Condvar,
    freed: Bell,
}

struct LockState {
    /// `None` if the log was opened without a lock.
    lock: Option<Box<dyn Any + Send + Sync>>,
    is_free: bool,
}

impl std::fmt::Debug for LockState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LockState").field("is_free", &self.is_free).finish_non_exhaustive()
    }
}

/// Keeps the lock while a job runs.
pub(crate) struct LockHeld<'a>(&'a LockCell);

impl LockCell {
    pub(crate) fn new(lock: Option<Box<dyn Any + Send + Sync>>) -> Self {
        LockCell {
            jobs: AtomicU64::new(0),
            state: Mutex::new(LockState { lock, is_free: false }),
            left: Condvar::new(),
            freed: Bell::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, LockState> {
        self.state.lock_always()
    }

    /// Counts a job. `None` if the lock was released.
    #[inline]
    pub(crate) fn hold(&self) -> Option<LockHeld<'_>> {
        let jobs = self.jobs.fetch_add(JOB, Ordering::AcqRel);
        // A refused job also leaves, because it may be the last one that was counted.
        let held = LockHeld(self);
        (jobs & RELEASED == 0).then_some(held)
    }

    fn job_count(&self) -> u64 {
        self.jobs.load(Ordering::Acquire) / JOB
    }

    /// Refuses further jobs, and frees the lock when the last one has ended.
    pub(crate) fn release_when_idle(&self) {
        let state = self.state();
        // Either a job is counted here, or it sees the flag.
        let jobs = self.jobs.fetch_or(RELEASED, Ordering::AcqRel);
        if jobs / JOB == 0 {
            self.free(state);
        }
    }

    /// Frees the lock. May be called again, by the next job that was refused.
    fn free(&self, mut state: MutexGuard<'_, LockState>) {
        state.lock = None;
        state.is_free = true;
        // Tasks are woken without the lock.
        drop(state);
        self.freed.ring();
    }

    /// As [`LockCell::release_when_idle`], and resolves when the lock is free.
    pub(crate) async fn release(&self) {
        self.release_when_idle();
        loop {
            // Counted before the state is read, so that no change is missed.
            let count = self.freed.count();
            if self.state().is_free {
                return;
            }
            self.freed.rung_since(count).await;
        }
    }

    /// Refuses further jobs, waits for all except the caller's, and frees the lock. Blocks.
    pub(crate) fn release_from_last_job(&self) {
        let mut state = self.state();
        self.jobs.fetch_or(RELEASED, Ordering::AcqRel);
        while self.job_count() > 1 {
            state = wait_over_io(&self.left, &self.state, state);
        }
        self.free(state);
    }

    /// Notes that a job has left after the release.
    #[cold]
    fn left_after_release(&self) {
        // The count was lowered before this lock is taken. A thread that waits has read the new
        // count under the lock, or is notified.
        let state = self.state();
        self.left.notify_all();
        if self.job_count() == 0 {
            self.free(state);
        }
    }
}

impl Drop for LockHeld<'_> {
    #[inline]
    fn drop(&mut self) {
        // No thread waits before a release, and a notification is a system call.
        if self.0.jobs.fetch_sub(JOB, Ordering::AcqRel) & RELEASED != 0 {
            self.0.left_after_release();
        }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
