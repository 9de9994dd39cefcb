//! The error of a Raft log: a refusal, or the error of the log underneath.

use std::io;

use crate::{
    error::{Error as LogError, impl_log_error_methods},
    lsn::Lsn,
};

/// The result of every fallible operation of a [Raft log](crate::raft).
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A refused change or read, an unsuitable log, or a failure of the log underneath.
///
/// Cheap to clone, because one failure is reported to every waiter. `{}` prints the error without
/// its cause, `{:#}` with it, as [`highwater::Error`](LogError) does.
///
/// ```
/// use highwater::raft::Error;
///
/// let error = Error::from(highwater::Error::Full);
/// assert_eq!(error.to_string(), highwater::Error::Full.to_string());
/// assert!(matches!(error.log_error(), Some(highwater::Error::Full)));
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The log underneath refused or failed the operation. Its error contains the advice.
    #[error(transparent)]
    Log(#[from] LogError),

    /// The entries have a gap, or do not follow the last entry of the group. Nothing was appended.
    /// Append from `expected` on, or use
    /// [`append_overwriting`](crate::raft::RaftGroup::append_overwriting).
    #[error(
        "group {group}: entry {index} is out of order; append from index {expected} on, or use \
         `append_overwriting`"
    )]
    NotContiguous {
        /// The group.
        group: u64,
        /// The index of the entry.
        index: u64,
        /// The index that would follow.
        expected: u64,
    },

    /// The entry is purged: a snapshot covers it. It can neither be read nor appended again. Use
    /// the snapshot.
    #[error(
        "group {group}: entry {index} is purged, the log begins at index {first}; use the snapshot \
         that covers it"
    )]
    Purged {
        /// The group.
        group: u64,
        /// The index of the entry.
        index: u64,
        /// The first index that is not purged.
        first: u64,
    },

    /// The log was written with another codec. Nothing was changed. Open the log with the codec
    /// that wrote it.
    #[error(
        "the log was written with codec {found}, not with codec {expected}; open it with the codec \
         that wrote it"
    )]
    OtherCodec {
        /// The codec number in the log.
        found: u64,
        /// The codec number in the options.
        expected: u64,
    },

    /// No Raft log wrote this record at this position. Nothing was changed.
    ///
    /// The log is not a Raft log, a newer release wrote it, or it has damage that no checksum
    /// shows. Let the node rejoin the cluster with an empty log. Never truncate this one.
    #[error(
        "LSN {lsn}: not a valid record of a Raft log: {reason}; let the node rejoin the cluster \
         with an empty log"
    )]
    BadRecord {
        /// The record's position in the log.
        lsn: Lsn,
        /// The fault.
        reason: &'static str,
    },
}

impl_log_error_methods!(Error);

/// Wraps the error in an `io::Error`. The kind is the log's, `InvalidInput` for a refused change or
/// read, and `InvalidData` for a log that cannot be opened.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Log(error) => error.io_kind(),
            Error::NotContiguous { .. } | Error::Purged { .. } => io::ErrorKind::InvalidInput,
            Error::OtherCodec { .. } | Error::BadRecord { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}
