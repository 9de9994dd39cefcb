//! The log's work on a tokio runtime's blocking pool.

use tokio::runtime::Handle;

use crate::executor::{Executor, Task};

/// Runs tasks on the blocking pool of a runtime. When that runtime is shut down it drops them,
/// and each task's owner learns it from the drop.
#[derive(Debug)]
pub(crate) struct Pool(pub(crate) Handle);

impl Executor for Pool {
    fn spawn(&self, task: Task) {
        drop(self.0.spawn_blocking(task));
    }
}
