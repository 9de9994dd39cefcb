//! The log stores that are measured.

pub(crate) mod highwater;
pub(crate) mod memory;
pub(crate) mod raft_log;
#[cfg(feature = "rocksdb")]
pub(crate) mod rocks_db;

use std::{future::Future, io, path::Path};

use openraft::storage::RaftLogStorage;

use crate::cluster::Types;

/// What a log did to its disk since it was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) sync_count: u64,
    pub(crate) bytes: u64,
}

/// Where a node's log is.
pub(crate) trait Medium: Sized + Send + Sync + 'static {
    type Store: RaftLogStorage<Types>;
    type Options: Sync;

    fn open(at: &Path, options: &Self::Options) -> impl Future<Output = io::Result<Self>> + Send;
    fn store(&self) -> Self::Store;
    fn written(&self) -> Option<Written>;
}
