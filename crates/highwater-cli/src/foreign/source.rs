//! The interface of the parsers, and the types that they share.

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    exit::CORRUPT,
    output::{Failure, failure},
    stream::Unit,
};

/// A source of records, read one unit after the other.
pub(crate) trait Source {
    fn next_unit(&mut self) -> Result<Option<Unit>, Failure>;

    /// Returns the number of bytes read so far.
    fn read_bytes(&self) -> u64;

    /// Returns the size of the source, or 0 if it is unknown.
    fn total_bytes(&self) -> u64;

    /// Returns the checksum of the contents read so far, if the source has one.
    fn contents_checksum(&self) -> Option<u32> {
        None
    }

    /// Returns the unfinished record at the end, once the end is reached.
    fn torn(&self) -> Option<&Torn> {
        None
    }

    /// Returns notes for the user.
    fn notes(&self) -> &[String] {
        &[]
    }
}

/// An unfinished record that a crash left at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Torn {
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) reason: &'static str,
}

/// An offset in a file of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
}

impl Location {
    pub(super) fn file(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Returns the failure for damage at a location.
pub(super) fn damaged(location: &Location, reason: &str) -> Failure {
    let message = format!(
        "{}, offset {}: {reason}; this is damage and not a torn end; restore the file from a backup, \
         or, to give up the records from there on, cut a copy of the log there and import that",
        location.path.display(),
        location.offset
    );
    failure(CORRUPT, message)
}
