//! [`Health`]: whether the log's I/O returns, and whether the log can grow.

use std::{fmt, time::Duration};

use crate::{error::Error, operation::Operation};

/// The health of a log, as [`Wal::health`](crate::Wal::health) returns it.
///
/// If several states apply, it is the last of them in this list: `Slow`, `Refusing` or `Full`,
/// `Stalled`, `Stopped`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// # use highwater::{Wal, storage::MemoryStorage};
/// let wal = Wal::options().open_with(MemoryStorage::new()).await?;
/// let health = wal.health().get();
/// assert!(health.is_good());
/// assert_eq!(health.to_string(), "good");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(tag = "is", rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Health {
    /// The log's I/O returns, and the log can grow.
    #[default]
    Good,
    /// A stall ended less than 15 seconds ago.
    ///
    /// So a disk that hangs again and again is not reported as good in between.
    Slow,
    /// The next segment's file can't be prepared, but not for lack of space.
    ///
    /// Appends that need it get the error. The next such append tries again.
    #[non_exhaustive]
    Refusing {
        /// The error that appends get.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        error: Error,
    },
    /// There is no space for the next segment.
    ///
    /// Appends that need it get [`Error::NoSpace`] or [`Error::OverBudget`], or wait, by the choice
    /// of the [`budget`](crate::Options::budget). The next such append tries again.
    #[non_exhaustive]
    Full {
        /// The error that appends get.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        error: Error,
    },
    /// An I/O call has not returned for [`stall_after`](crate::Options::stall_after) or longer.
    #[non_exhaustive]
    Stalled {
        /// The operation that has been in flight for longest.
        operation: Operation,
        /// Its file.
        file: String,
        /// How long it had been in flight when the log was last checked.
        ///
        /// The log is checked four times in [`stall_after`](crate::Options::stall_after), or more
        /// often. The time begins with the first check that saw the operation.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_seconds"))]
        time: Duration,
    },
    /// The log has stopped: it was closed, or it failed.
    #[non_exhaustive]
    Stopped {
        /// The error that all calls get.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        error: Error,
    },
}

impl Health {
    /// Returns true if the health is [`Good`](Health::Good).
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Health::Good)
    }

    /// Returns true if an I/O call of the log does not return.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        matches!(self, Health::Stalled { .. })
    }

    /// Returns whether both are the same state, apart from times and the texts of errors.
    pub(crate) fn is_same_state(&self, other: &Health) -> bool {
        match (self, other) {
            (
                Health::Stalled { operation, file, .. },
                Health::Stalled { operation: other_operation, file: other_file, .. },
            ) => operation == other_operation && file == other_file,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Health::Good => f.write_str("good"),
            Health::Slow => f.write_str("slow: a stall ended a short time ago"),
            Health::Refusing { error } | Health::Full { error } => {
                write!(f, "appends are refused: {error:#}")
            }
            Health::Stalled { operation, file, time } => {
                write!(f, "stalled: {operation} {file} has not returned for {time:.1?}")
            }
            Health::Stopped { error } => write!(f, "stopped: {error:#}"),
        }
    }
}

#[cfg(feature = "serde")]
fn as_text<S: serde::Serializer>(error: &Error, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{error:#}"))
}

#[cfg(feature = "serde")]
fn as_seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}
