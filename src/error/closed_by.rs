//! The reasons why a log is closed.

use std::fmt;

/// The reason why a log is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClosedBy {
    /// [`Wal::close`](crate::Wal::close).
    Close,
    /// The runtime that runs the log's I/O was shut down.
    RuntimeGone,
    /// The last handle was dropped.
    LastHandle,
    /// There is no tokio runtime to run the log's I/O.
    NoRuntime,
    /// Another log took the directory while a reader read it.
    Replaced,
    /// The files of the log were removed before they were read.
    FilesRemoved,
}

impl fmt::Display for ClosedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClosedBy::Close => "close was called",
            ClosedBy::RuntimeGone => "the runtime that runs its I/O is gone",
            ClosedBy::LastHandle => "its last handle is gone",
            ClosedBy::NoRuntime => "opened outside of a tokio runtime",
            ClosedBy::Replaced => "another log is in the directory",
            ClosedBy::FilesRemoved => "the files that were still to be read are gone",
        })
    }
}
