//! The only way by which the log starts work on other threads.

use std::{
    any::Any,
    fmt, io,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::oneshot;

/// A job: run once, or dropped if no thread is left to run it.
pub(crate) type Task = Box<dyn FnOnce() + Send>;

/// Something to check from time to time, while it has calls in flight.
pub(crate) trait Watchable: Send + Sync {
    /// Checks it at the time `now` since some fixed moment. Returns when the next check is due;
    /// `None` if there is nothing to watch any more.
    fn check(self: Arc<Self>, now: Duration) -> Option<Duration>;

    /// Reports that nothing checks it, because of `error`. No lock is held.
    #[cfg_attr(shuttle, allow(dead_code, reason = "shuttle's threads watch nothing"))]
    fn is_unwatched(self: Arc<Self>, error: &io::Error);
}

/// Runs jobs on threads that may block.
pub(crate) trait Executor: fmt::Debug + Send + Sync {
    fn spawn(&self, task: Task);

    /// Returns whether `spawn` runs the task before it returns.
    fn runs_in_place(&self) -> bool {
        false
    }

    /// Calls `gone` when no thread is left that runs tasks, if that is detectable. The caller keeps
    /// the returned value for as long as it wants the call.
    fn on_gone(&self, gone: Box<dyn FnOnce() + Send>) -> Option<Box<dyn Any + Send + Sync>> {
        drop(gone);
        None
    }

    /// Returns whether [`watch`](Executor::watch) has an effect. It has none if calls never wait for
    /// a device, or if no time passes.
    fn watches(&self) -> bool {
        false
    }

    /// Has `watchable` checked until its `check` returns `None`. Returns false if that is
    /// impossible now; a later call may try again.
    fn watch(&self, watchable: Weak<dyn Watchable>) -> bool {
        drop(watchable);
        false
    }

    /// Returns whether the checks of [`watch`](Executor::watch) come by the real clock, so that they
    /// notice soon that a log rests.
    fn notices_rest(&self) -> bool {
        false
    }

    /// Has the next checks of [`watch`](Executor::watch) come at once.
    fn look_soon(&self) {}

    /// Runs `work` so that it may block without a delay for the calls of
    /// [`watch`](Executor::watch).
    fn run_apart(&self, work: Task) {
        work();
    }

    /// Runs `work`, which does not block, on a thread that polls tasks, at any time later. Drops it
    /// if there is no such thread.
    fn run_on_worker(&self, work: Task) {
        drop(work);
    }

    /// Returns whether the calling task may block its thread by
    /// [`block_here`](Executor::block_here).
    fn may_block_here(&self) -> bool {
        false
    }

    /// Runs `work`, which may block, on the calling task's thread. The other tasks of that thread
    /// run on other threads meanwhile. Returns `false` without running it if that is impossible.
    fn block_here(&self, work: &mut dyn FnMut()) -> bool {
        let _ = work;
        false
    }

    /// Returns whether a task may keep its thread for microseconds to wait for more work.
    fn may_linger(&self) -> bool {
        false
    }
}

/// Runs each task at once on the calling thread. For storages that never block.
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

/// Starts `work` and returns the receiver of its result. The sender is dropped if the work was.
pub(crate) fn start<T: Send + 'static>(
    executor: &dyn Executor,
    work: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (send, receive) = oneshot::channel();
    executor.spawn(Box::new(move || {
        // The receiver may be gone: its future was dropped.
        let _ = send.send(work());
    }));
    receive
}
