//! Where the log's blocking work runs: a tokio runtime's blocking pool, a simulation's threads, or
//! shuttle's.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::{
    error::Result,
    executor::{Executor, Task},
};

/// The blocking pool of `handle`'s runtime, by default of the one that runs the caller; within a
/// simulation, that one's threads.
///
/// # Errors
///
/// `Closed` if no handle is given and there is no such runtime.
#[cfg(not(shuttle))]
pub(crate) fn pool(handle: Option<&Handle>) -> Result<Arc<dyn Executor>> {
    #[cfg(feature = "simulation")]
    if let Some(simulated) = crate::simulation::current_executor() {
        return Ok(simulated);
    }
    let outside = |_| crate::error::Error::Closed { reason: "opened outside of a tokio runtime" };
    let handle = match handle {
        Some(handle) => handle.clone(),
        None => Handle::try_current().map_err(outside)?,
    };
    let has_cores = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    Ok(Arc::new(Pool { handle, has_cores }))
}

/// Runs tasks on the blocking pool of a runtime. When that runtime is shut down it drops them,
/// and each task's owner learns it from the drop.
#[cfg(not(shuttle))]
#[derive(Debug)]
struct Pool {
    handle: Handle,
    has_cores: bool,
}

#[cfg(not(shuttle))]
impl Executor for Pool {
    fn spawn(&self, task: Task) {
        drop(self.handle.spawn_blocking(task));
    }

    /// On a single core whoever lingers keeps those away who would bring work.
    fn may_linger(&self) -> bool {
        self.has_cores
    }
}

/// Under shuttle there is no runtime: each task is a thread that shuttle schedules.
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

/// Whether time passes: a simulation has none.
pub(crate) fn has_clock() -> bool {
    #[cfg(feature = "simulation")]
    if crate::simulation::current_executor().is_some() {
        return false;
    }
    true
}
