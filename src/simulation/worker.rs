//! A thread of a simulation. It runs only while it has its turn.

use std::sync::{Condvar, Mutex};

use crate::{executor::Task, sync::LockAlways};

/// The right of one thread to run.
#[derive(Debug, Default)]
pub(super) struct Baton {
    is_here: Mutex<bool>,
    given: Condvar,
}

impl Baton {
    pub(super) fn give(&self) {
        *self.is_here.lock_always() = true;
        self.given.notify_one();
    }

    /// Blocks until the baton is given, and takes it.
    pub(super) fn wait(&self) {
        let is_here = self.is_here.lock_always();
        if let Ok(mut is_here) = self.given.wait_while(is_here, |is_here| !*is_here) {
            *is_here = false;
        }
    }
}

/// A thread that runs the log's jobs.
#[derive(Default)]
pub(super) struct Worker {
    pub(super) baton: Baton,
    /// A job that has not begun. A worker that gets the baton without a job ends.
    pub(super) work: Mutex<Option<Task>>,
}

impl Worker {
    /// Returns whether the worker has a job that has not begun.
    pub(super) fn has_work(&self) -> bool {
        self.work.lock_always().is_some()
    }
}
