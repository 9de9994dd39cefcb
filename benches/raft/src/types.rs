//! The types that the stores and the cluster share: openraft's, and a store under test.

use std::{fmt, future::Future, io, path::Path};

use openraft::storage::RaftLogStorage;
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(pub(crate) Types: D = Payload, R = ());

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Payload(pub(crate) Vec<u8>);

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The syncs and bytes that a log has written since it was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) sync_count: u64,
    pub(crate) bytes: u64,
}

/// The log of one node, from which its store is made.
pub(crate) trait Medium: Sized + Send + Sync + 'static {
    type Store: RaftLogStorage<Types>;
    type Options: Sync;

    fn open(at: &Path, options: &Self::Options) -> impl Future<Output = io::Result<Self>> + Send;
    fn store(&self) -> Self::Store;
    /// Returns what the log has written; `None` if the store has no log.
    fn written(&self) -> Option<Written>;
}
