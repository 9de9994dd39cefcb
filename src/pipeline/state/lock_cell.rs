//! The lock on the directory, which outlives every job that runs.

use std::any::Any;

use crate::{
    pipeline::state::wakers::Bell,
    sync::{Condvar, LockAlways, Mutex, MutexGuard},
    turn::wait_over_io,
};

/// Holds the lock on the directory, and counts the jobs that run under it.
#[derive(Debug)]
pub(crate) struct LockCell {
    state: Mutex<LockState>,
    left: Condvar,
    freed: Bell,
}

struct LockState {
    /// `None` if the log was opened without a lock.
    lock: Option<Box<dyn Any + Send + Sync>>,
    /// True if further jobs are refused.
    released: bool,
    is_free: bool,
    job_count: usize,
}

impl std::fmt::Debug for LockState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LockState")
            .field("released", &self.released)
            .field("job_count", &self.job_count)
            .finish_non_exhaustive()
    }
}

/// Keeps the lock while a job runs.
pub(crate) struct LockHeld<'a>(&'a LockCell);

impl LockCell {
    pub(crate) fn new(lock: Option<Box<dyn Any + Send + Sync>>) -> Self {
        LockCell {
            state: Mutex::new(LockState { lock, released: false, is_free: false, job_count: 0 }),
            left: Condvar::new(),
            freed: Bell::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, LockState> {
        self.state.lock_always()
    }

    pub(crate) fn hold(&self) -> Option<LockHeld<'_>> {
        let mut state = self.state();
        if state.released {
            return None;
        }
        state.job_count += 1;
        Some(LockHeld(self))
    }

    /// Refuses further jobs, and frees the lock when the last one has ended.
    pub(crate) fn release_when_idle(&self) {
        let mut state = self.state();
        state.released = true;
        if state.job_count == 0 {
            self.free(state);
        }
    }

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
        state.released = true;
        while state.job_count > 1 {
            state = wait_over_io(&self.left, &self.state, state);
        }
        self.free(state);
    }
}

impl Drop for LockHeld<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.job_count -= 1;
        // No thread waits before a release, and a notification is a system call.
        if state.released {
            self.0.left.notify_all();
            if state.job_count == 0 {
                self.0.free(state);
            }
        }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
