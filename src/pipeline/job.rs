//! The log's own work: it is done, or the log stops and says so to everybody.

use std::{fmt, sync::Arc};

use crate::{
    error::Error,
    pipeline::{core::Core, open_log::OpenLog},
};

type Work = Box<dyn FnOnce(&Arc<Core>) + Send>;

/// A piece of the log's work, and a promise: if it is dropped unfinished (its runtime was shut
/// down, it panicked), the log stops and every waiter is answered.
pub(crate) struct Job {
    core: Arc<Core>,
    /// A job may move the marks: while it is there, the log isn't abandoned.
    _open: Option<Arc<OpenLog>>,
    work: Option<Work>,
}

impl Job {
    pub(crate) fn new(core: Arc<Core>, work: impl FnOnce(&Arc<Core>) + Send + 'static) -> Self {
        Job { _open: core.open.upgrade(), core, work: Some(Box::new(work)) }
    }

    /// Hands the job to the log's executor.
    pub(crate) fn spawn(self) {
        let executor = Arc::clone(&self.core.executor);
        executor.spawn(Box::new(move || self.run()));
    }

    fn run(mut self) {
        if let Some(work) = self.work.take() {
            let guard = PanicGuard { core: &self.core };
            // Held for as long as the job runs: nobody else may own the log while I/O of ours can
            // still land. Gone means closed, and then there is nothing left to do.
            let lock = self.core.hold_lock();
            if lock.is_some() {
                work(&self.core);
            }
            drop(lock);
            std::mem::forget(guard);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.work.is_some() {
            self.core.stop(Error::Closed { reason: "the runtime that runs its I/O is gone" });
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

impl Core {
    /// Does what a job would, on the caller's thread; what `here` leaves undone is left to a job. The
    /// caller has that job's role.
    pub(super) fn here_or_by_job(
        self: &Arc<Self>,
        here: impl FnOnce(&Arc<Core>) -> bool,
        job: fn(&Arc<Core>),
    ) {
        let guard = PanicGuard { core: self };
        let is_done = here(self);
        std::mem::forget(guard);
        if !is_done {
            Job::new(Arc::clone(self), job).spawn();
        }
    }
}

/// Stops the log when it is dropped by unwinding.
pub(crate) struct PanicGuard<'a> {
    pub(crate) core: &'a Core,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        self.core.stop(Error::Panicked { context: "" }.into_poison());
    }
}
