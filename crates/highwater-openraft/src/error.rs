//! The errors of a store, as the `io::Error` that openraft requires.

use std::{error, io, sync::Arc};

use highwater::raft::Error;

/// The error inside the `io::Error`s of a [`LogStore`](crate::LogStore).
///
/// It names the group and the operation. Its source is the error of the log or the codec.
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
/// assert!(matches!(inner, StoreError::Log { source, .. } if source.is_closed()));
/// # Ok(()) }
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The log refused or failed the operation. Its error contains the advice.
    #[error("raft group {group}: {operation}")]
    Log {
        /// The number of the group in its log.
        group: u64,
        /// The operation.
        operation: &'static str,
        /// The error of the log.
        source: Error,
    },

    /// The codec cannot encode a value. Nothing was changed. Correct the application's type or the
    /// codec.
    #[error("raft group {group}: {operation}: the codec cannot encode the value")]
    Encode {
        /// The number of the group in its log.
        group: u64,
        /// The operation.
        operation: &'static str,
        /// The error of the codec.
        source: Arc<dyn error::Error + Send + Sync>,
    },

    /// The codec cannot decode intact bytes: another codec with the same number wrote them.
    ///
    /// Open the log with the codec that wrote it. If that codec is lost, let the node rejoin the
    /// cluster with an empty log. Never truncate this log.
    #[error(
        "raft group {group}: {operation}: the codec cannot decode the bytes; open the log with the \
         codec that wrote it"
    )]
    Decode {
        /// The number of the group in its log.
        group: u64,
        /// The operation.
        operation: &'static str,
        /// The error of the codec.
        source: Arc<dyn error::Error + Send + Sync>,
    },

    /// A requested entry is purged. The entries after it are not returned, because the result would
    /// have a gap.
    #[error("raft group {group}: entry {index} is purged, the log begins at {first}")]
    Purged {
        /// The number of the group in its log.
        group: u64,
        /// The requested index.
        index: u64,
        /// The first index that is not purged.
        first: u64,
    },

    /// An append was dropped before all its entries had positions in the log.
    #[error("raft group {group}: the append was cancelled; its entries may be missing")]
    Cancelled {
        /// The number of the group in its log.
        group: u64,
    },
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Log { source, .. } => io::Error::from(source.clone()).kind(),
            StoreError::Encode { .. } | StoreError::Purged { .. } => io::ErrorKind::InvalidInput,
            StoreError::Decode { .. } => io::ErrorKind::InvalidData,
            // Not `Interrupted`, because callers retry that kind.
            StoreError::Cancelled { .. } => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
