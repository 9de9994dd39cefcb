//! The lock on the directory, which outlives every job that runs.

use std::{any::Any, sync::PoisonError};

use tokio::sync::Notify;

use crate::{
    sync::{Condvar, Mutex, MutexGuard},
    turn::wait_over_io,
};

/// Holds the lock on the directory, and counts the jobs that run under it.
#[derive(Debug)]
pub(super) struct LockCell {
    state: Mutex<LockState>,
    left: Condvar,
    freed: Notify,
}

struct LockState {
    /// `None` if the user asked for no lock.
    lock: Option<Box<dyn Any + Send + Sync>>,
    /// No further job begins.
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
pub(super) struct LockHeld<'a>(&'a LockCell);

impl LockCell {
    pub(super) fn new(lock: Option<Box<dyn Any + Send + Sync>>) -> Self {
        LockCell {
            state: Mutex::new(LockState { lock, released: false, is_free: false, job_count: 0 }),
            left: Condvar::new(),
            freed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, LockState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hold(&self) -> Option<LockHeld<'_>> {
        let mut state = self.state();
        if state.released {
            return None;
        }
        state.job_count += 1;
        Some(LockHeld(self))
    }

    /// Lets no further job begin, and frees the lock when the last one has ended.
    pub(super) fn release_when_idle(&self) {
        let mut state = self.state();
        state.released = true;
        if state.job_count == 0 {
            self.free(&mut state);
        }
    }

    fn free(&self, state: &mut LockState) {
        state.lock = None;
        state.is_free = true;
        self.freed.notify_waiters();
    }

    /// As [`LockCell::release_when_idle`], and resolves when the lock is free.
    pub(super) async fn release(&self) {
        self.release_when_idle();
        loop {
            let freed = self.freed.notified();
            futures::pin_mut!(freed);
            // Registered before the state is read, so that no change is missed.
            freed.as_mut().enable();
            if self.state().is_free {
                return;
            }
            freed.await;
        }
    }

    /// Lets no further job begin, waits for all but the caller's and frees the lock. Blocks.
    pub(super) fn release_from_last_job(&self) {
        let mut state = self.state();
        state.released = true;
        while state.job_count > 1 {
            state = wait_over_io(&self.left, &self.state, state);
        }
        self.free(&mut state);
    }
}

impl Drop for LockHeld<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.job_count -= 1;
        // Only who has released waits, and a notification is a system call.
        if state.released {
            if state.job_count == 0 {
                self.0.free(&mut state);
            }
            self.0.left.notify_all();
        }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
