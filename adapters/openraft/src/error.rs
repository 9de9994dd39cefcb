//! What failed, as the `io::Error` that openraft wants.

use std::{error, io, sync::Arc};

use highwater::Error;

/// What a [`LogStore`](crate::LogStore) answers inside its `io::Error`s: where, what, and, as its
/// source, what [Highwater](highwater) says of it.
///
/// ```
/// # openraft::declare_raft_types!(pub Types: D = String, R = String);
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use highwater_openraft::{LogStore, StoreError};
/// use openraft::storage::RaftLogStorage;
///
/// # let directory = tempfile::tempdir()?;
/// let mut store = LogStore::<Types>::open(directory.path().join("raft")).await?;
/// store.close().await?;
/// let error = store.save_committed(None).await.unwrap_err();
/// let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>()).unwrap();
/// assert!(matches!(inner, StoreError::Log { source: highwater::Error::Closed { .. }, .. }));
/// # Ok(()) }
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The log refused or failed. Its error says what to do.
    #[error("raft group {group}: {operation}: {source}")]
    Log {
        /// The group's number in its log.
        group: u64,
        /// What was tried.
        operation: &'static str,
        /// What the log answered.
        source: Error,
    },

    /// The codec can't encode something; nothing was changed. The application's type, or the codec,
    /// is at fault.
    #[error("raft group {group}: {operation}: the codec can't encode it: {source}")]
    Encode {
        /// The group's number in its log.
        group: u64,
        /// What was tried.
        operation: &'static str,
        /// What the codec answered.
        source: Arc<dyn error::Error + Send + Sync>,
    },

    /// What stands in the log is whole, and the codec can't decode it: it was written by another one
    /// with the same number. Open the log with the codec that wrote it; let the node rejoin with an
    /// empty log if there is none. Never truncate it.
    #[error(
        "raft group {group}: {operation}: the codec can't decode it: {source}; open the log with the \
         codec that wrote it"
    )]
    Decode {
        /// The group's number in its log.
        group: u64,
        /// What was tried.
        operation: &'static str,
        /// What the codec answered.
        source: Arc<dyn error::Error + Send + Sync>,
    },

    /// Entries that were asked for are purged, and what follows them can't stand for them.
    #[error("raft group {group}: entry {index} is purged: the log begins at {first}")]
    Purged {
        /// The group's number in its log.
        group: u64,
        /// The index asked for.
        index: u64,
        /// The first that there is.
        first: u64,
    },

    /// The answer to an append whose future was dropped before the entries had their place in the log.
    #[error("raft group {group}: the append was cancelled; nothing was promised of its entries")]
    Cancelled {
        /// The group's number in its log.
        group: u64,
    },
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Log { source, .. } => io::Error::from(source.clone()).kind(),
            StoreError::Encode { .. } | StoreError::Purged { .. } => io::ErrorKind::InvalidInput,
            StoreError::Decode { .. } => io::ErrorKind::InvalidData,
            // Not `Interrupted`: that one invites to try again.
            StoreError::Cancelled { .. } => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
