//! Classifies errors: predicates, and the kind of an `io::Error`.

use std::io;

use crate::{error::kinds::Error, lsn::Lsn};

impl Error {
    /// Returns true if the log stopped after a failure. Acknowledged records are intact; reopen the
    /// log.
    ///
    /// ```
    /// let error = highwater::Error::Full;
    /// assert!(!error.is_poisoned());
    /// ```
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        matches!(self, Error::Poisoned { .. })
    }

    /// Returns true if durable data is damaged.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Error::Corrupt { .. })
    }

    /// Returns the error for a position that is not within `first..end`.
    pub(crate) fn outside(lsn: Lsn, first: Lsn, end: Lsn) -> Error {
        match lsn < first {
            true => Error::BelowFirst { lsn, first },
            false => Error::AboveEnd { lsn, end },
        }
    }

    /// Returns true if the record has its place in the log, and it is unknown whether it becomes
    /// durable; see [`Error::Indeterminate`].
    ///
    /// ```
    /// let error = highwater::Error::Indeterminate { lsn: highwater::Lsn::ZERO };
    /// assert!(error.is_indeterminate());
    /// ```
    #[must_use]
    pub fn is_indeterminate(&self) -> bool {
        matches!(self, Error::Indeterminate { .. })
    }

    /// Returns true if there is no space for the next segment: on the device, in the budget, or
    /// among the positions.
    pub(crate) fn is_no_space(&self) -> bool {
        matches!(self, Error::NoSpace { .. } | Error::OverBudget { .. } | Error::LsnLimit { .. })
    }

    /// Returns true if a file does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Returns true if the log was closed or its runtime is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Error::Closed { .. })
    }
}

/// Wraps the error in an `io::Error` with a matching kind, for interfaces that require one.
///
/// ```
/// let error = std::io::Error::from(highwater::Error::Full);
/// assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
/// assert!(error.get_ref().is_some_and(|inner| inner.is::<highwater::Error>()));
/// ```
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::new(error.io_kind(), error)
    }
}

impl Error {
    /// Returns the kind that an `io::Error` of this error has.
    pub(crate) fn io_kind(&self) -> io::ErrorKind {
        use io::ErrorKind;
        match self {
            Error::Io { source, .. } => source.kind(),
            Error::NoSpace { .. } | Error::OverBudget { .. } => ErrorKind::StorageFull,
            Error::Corrupt { .. } => ErrorKind::InvalidData,
            Error::InvalidOption { .. }
            | Error::RecordTooLarge { .. }
            | Error::SlotName { .. }
            | Error::BatchTooLarge { .. } => ErrorKind::InvalidInput,
            Error::UnsupportedVersion { .. }
            | Error::UnsupportedFrame { .. }
            | Error::UnsupportedExtension { .. }
            | Error::UnsupportedCompression { .. } => ErrorKind::Unsupported,
            Error::Full => ErrorKind::WouldBlock,
            Error::Indeterminate { .. } | Error::Stalled { .. } => ErrorKind::TimedOut,
            Error::Locked { .. } => ErrorKind::ResourceBusy,
            Error::Displaced { .. } => ErrorKind::NotFound,
            Error::Closed { .. } => ErrorKind::BrokenPipe,
            _ => ErrorKind::Other,
        }
    }
}
