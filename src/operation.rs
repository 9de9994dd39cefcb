//! [`Operation`]: the kinds of I/O that a log waits for.

use std::fmt;

/// A kind of I/O of the log, in reports of a call that has not returned.
///
/// ```
/// assert_eq!(highwater::Operation::Flush.to_string(), "flushing");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Operation {
    /// Write frames to a segment.
    Write,
    /// Flush a segment.
    Flush,
    /// Begin a segment: check the directory and write the header.
    Rotate,
    /// Prepare the next segment's file.
    Prepare,
    /// Remove or recycle the file of a dropped segment.
    Remove,
    /// Finish the files of a log that is being closed.
    Close,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Write => "writing",
            Operation::Flush => "flushing",
            Operation::Rotate => "beginning",
            Operation::Prepare => "preparing",
            Operation::Remove => "removing",
            Operation::Close => "closing",
        })
    }
}
