//! Creates errors and adds context: the directory, the poison.

use std::{io, sync::Arc};

use crate::error::kinds::Error;

impl Error {
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<String>,
        offset: Option<u64>,
        source: io::Error,
    ) -> Self {
        let (directory, path) = (String::new(), path.into());
        Error::Io { operation, directory, path, offset, source: Arc::new(source) }
    }

    /// Names the record that a wait was for, which knows only the end of the record.
    #[cold]
    #[cfg(feature = "raft")]
    pub(crate) fn for_record(self, lsn: crate::lsn::Lsn) -> Self {
        match self {
            Error::Indeterminate { .. } => Error::Indeterminate { lsn },
            error => error,
        }
    }

    /// Turns `Io` into `NoSpace` if the device is full.
    ///
    /// After `NoSpace` the log works again when space is freed.
    pub(crate) fn or_no_space(self, segment: &str, bytes: u64) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let is_space = |source: &io::Error| {
            matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge)
        };
        match self {
            Error::Io { directory, source, .. } if is_space(&source) => {
                Error::NoSpace { directory, segment: segment.to_owned(), bytes, source }
            }
            error => error,
        }
    }

    /// Adds the log's directory to an error that names only a file.
    pub(crate) fn in_log(mut self, location: &str) -> Self {
        match &mut self {
            // The path is the directory itself.
            Error::Io { path, .. } if path == location => {}
            Error::Io { directory, .. }
            | Error::NoSpace { directory, .. }
            | Error::OverBudget { directory, .. }
            | Error::Corrupt { directory, .. }
            | Error::Stalled { directory, .. }
            | Error::UnsupportedVersion { directory, .. }
            | Error::UnsupportedFrame { directory, .. }
            | Error::UnsupportedExtension { directory, .. }
            | Error::UnsupportedCompression { directory, .. }
                if directory.is_empty() =>
            {
                location.clone_into(directory);
            }
            Error::Poisoned { cause } => {
                *cause = Arc::new(Arc::unwrap_or_clone(Arc::clone(cause)).in_log(location));
            }
            _ => {}
        }
        self
    }

    /// Removes the directory, for output that prints it separately.
    pub(crate) fn without_directory(mut self) -> Self {
        match &mut self {
            Error::Io { directory, .. }
            | Error::NoSpace { directory, .. }
            | Error::OverBudget { directory, .. }
            | Error::Corrupt { directory, .. }
            | Error::Stalled { directory, .. }
            | Error::UnsupportedVersion { directory, .. }
            | Error::UnsupportedFrame { directory, .. }
            | Error::UnsupportedExtension { directory, .. }
            | Error::UnsupportedCompression { directory, .. } => directory.clear(),
            _ => {}
        }
        self
    }

    /// Returns the error that later calls return after `self` has stopped the log.
    pub(crate) fn into_poison(self) -> Self {
        match self {
            poisoned @ Error::Poisoned { .. } => poisoned,
            cause => Error::Poisoned { cause: Arc::new(cause) },
        }
    }
}
