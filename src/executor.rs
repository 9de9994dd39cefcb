//! The one seam through which the log starts work on other threads.

use std::fmt;

use tokio::sync::oneshot;

/// Work to be run once, or dropped when there is nothing left to run it.
pub(crate) type Task = Box<dyn FnOnce() + Send>;

/// Runs tasks some time soon, where they may block.
pub(crate) trait Executor: fmt::Debug + Send + Sync {
    fn spawn(&self, task: Task);

    /// Whether `spawn` runs the task before it returns.
    fn runs_in_place(&self) -> bool {
        false
    }

    /// Whether a task may keep its thread for some microseconds in case more work comes.
    fn may_linger(&self) -> bool {
        false
    }
}

/// Runs each task at once, on the caller's thread: for storages that never block.
#[derive(Debug)]
pub(crate) struct InPlace;

impl Executor for InPlace {
    fn spawn(&self, task: Task) {
        task();
    }

    fn runs_in_place(&self) -> bool {
        true
    }
}

/// Starts `work` and gives where its answer will come; the sender is dropped if the work was.
pub(crate) fn start<T: Send + 'static>(
    executor: &dyn Executor,
    work: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (answer, receive) = oneshot::channel();
    executor.spawn(Box::new(move || {
        // The receiver may be gone: its future was dropped.
        let _ = answer.send(work());
    }));
    receive
}
