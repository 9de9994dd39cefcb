//! Chooses the executor of the log's blocking work.
//!
//! That is the blocking pool of a tokio runtime, the threads of a simulation, or those of shuttle.

#[cfg(not(shuttle))]
use std::any::Any;
use std::sync::Arc;
#[cfg(not(shuttle))]
use std::sync::Weak;

use tokio::runtime::Handle;
#[cfg(not(shuttle))]
use tokio::runtime::RuntimeFlavor;

use crate::{
    error::Result,
    executor::{Executor, Task},
};
#[cfg(not(shuttle))]
use crate::{
    error::{ClosedBy, Error},
    executor::Watchable,
    wal::{watchdog, worker::Blocking},
};

/// Returns the blocking pool of `handle`'s runtime, or of the caller's runtime by default.
///
/// In a simulation, returns the threads of the simulation.
///
/// # Errors
///
/// `Closed` if no handle is given and the caller runs in no runtime.
#[cfg(not(shuttle))]
pub(crate) fn pool(handle: Option<&Handle>) -> Result<Arc<dyn Executor>> {
    #[cfg(feature = "simulation")]
    if let Some(simulated) = crate::simulation::current_executor() {
        return Ok(simulated);
    }
    let outside = |_| Error::Closed { by: ClosedBy::NoRuntime };
    let handle = match handle {
        Some(handle) => handle.clone(),
        None => Handle::try_current().map_err(outside)?,
    };
    let has_cores = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    let has_workers = handle.runtime_flavor() == RuntimeFlavor::MultiThread;
    Ok(Arc::new(Pool { handle, has_cores, has_workers, blocking: Blocking::default() }))
}

/// Runs tasks on the blocking pool of a runtime.
///
/// A runtime that shuts down drops the tasks, and the drop notifies the owner of each task.
#[cfg(not(shuttle))]
#[derive(Debug)]
struct Pool {
    handle: Handle,
    has_cores: bool,
    /// The runtime has worker threads, which poll tasks.
    has_workers: bool,
    blocking: Blocking,
}

#[cfg(not(shuttle))]
impl Executor for Pool {
    fn spawn(&self, task: Task) {
        drop(self.handle.spawn_blocking(task));
    }

    /// Spawns a task that never ends. The runtime drops the task at the shutdown.
    ///
    /// Otherwise a log that writes in place would only notice the shutdown with its next job.
    fn on_gone(&self, gone: Box<dyn FnOnce() + Send>) -> Option<Box<dyn Any + Send + Sync>> {
        let gone = CallWhenDropped(Some(gone));
        let waits = async move {
            let _gone = gone;
            std::future::pending::<()>().await;
        };
        Some(Box::new(AbortWhenDropped(self.handle.spawn(waits).abort_handle())))
    }

    fn watches(&self) -> bool {
        true
    }

    fn notices_rest(&self) -> bool {
        true
    }

    fn look_soon(&self) {
        watchdog::look_soon();
    }

    fn watch(&self, watchable: Weak<dyn Watchable>) -> bool {
        let Err(failure) = watchdog::watch(&watchable) else { return true };
        if let Some(error) = failure.to_report {
            // By a task, because the caller may hold locks, and no thread can be started.
            self.handle.spawn(async move {
                watchable.upgrade().into_iter().for_each(|log| log.is_unwatched(&error));
            });
        }
        false
    }

    fn run_apart(&self, work: Task) {
        watchdog::run_apart(work);
    }

    fn run_on_worker(&self, work: Task) {
        if self.has_workers {
            // Dropped with the work if the runtime shuts down.
            self.handle.spawn(async move { work() });
        }
    }

    fn may_block_here(&self) -> bool {
        self.blocking.is_possible()
    }

    fn block_here(&self, work: &mut dyn FnMut()) -> bool {
        self.blocking.run(work)
    }

    /// Returns `false` on a single core. A lingering job would delay the tasks that append.
    fn may_linger(&self) -> bool {
        self.has_cores
    }
}

#[cfg(not(shuttle))]
struct CallWhenDropped(Option<Box<dyn FnOnce() + Send>>);

#[cfg(not(shuttle))]
impl Drop for CallWhenDropped {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|call| call());
    }
}

#[cfg(not(shuttle))]
struct AbortWhenDropped(tokio::task::AbortHandle);

#[cfg(not(shuttle))]
impl Drop for AbortWhenDropped {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns an executor that runs each task on a thread that shuttle schedules.
#[cfg(shuttle)]
pub(crate) fn pool(_: Option<&Handle>) -> Result<Arc<dyn Executor>> {
    Ok(Arc::new(Threads))
}

#[cfg(shuttle)]
#[derive(Debug)]
struct Threads;

#[cfg(shuttle)]
impl Executor for Threads {
    fn spawn(&self, task: Task) {
        drop(shuttle::thread::spawn(task));
    }
}

/// Returns whether real time passes. A simulation has no clock.
pub(crate) fn has_clock() -> bool {
    #[cfg(feature = "simulation")]
    if crate::simulation::current_executor().is_some() {
        return false;
    }
    true
}
