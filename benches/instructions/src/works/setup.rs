//! The runtime and the log options that all works use.

use std::future::Future;

use highwater::{Options, Preallocation, Wal};
use tokio::runtime::Builder;

use crate::failure::Failure;

pub fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    Ok(Builder::new_current_thread().max_blocking_threads(1).build()?.block_on(future))
}

pub fn options() -> Options {
    Wal::options().segment_bytes(64 << 20).preallocation(Preallocation::Sparse)
}
