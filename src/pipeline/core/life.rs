//! The log's life: its status, and the resources that are freed with it.

use std::{any::Any, sync::OnceLock};

use crate::pipeline::state::{lock_cell::LockCell, status::Status};

/// The status of the log, the lock on its directory, and the watch over its runtime.
#[derive(Debug)]
pub(in crate::pipeline) struct Life {
    pub(in crate::pipeline) status: Status,
    pub(in crate::pipeline) lock: LockCell,
    /// Reports the end of the runtime that runs the log's jobs.
    pub(in crate::pipeline) runtime: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Life {
    pub(super) fn new(lock: Option<Box<dyn Any + Send + Sync>>) -> Self {
        Life { status: Status::new(), lock: LockCell::new(lock), runtime: OnceLock::new() }
    }
}
