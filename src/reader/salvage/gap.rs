//! The items of [`Salvage`](super::Salvage) that are not records.

use std::collections::VecDeque;

use crate::{error::Error, lsn::Lsn, record::Record};

/// A part of a log that cannot be read; an item of [`Salvage`](super::Salvage).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[error(
    "{}: LSN {from}..{to} cannot be read: {reason} ({bytes} bytes)",
    place(.segment.as_deref(), *.offset)
)]
#[non_exhaustive]
pub struct Gap {
    /// The file that holds the gap; `None` if the file is missing.
    pub segment: Option<String>,
    /// The offset of the gap in that file; 0 if the file is missing.
    pub offset: u64,
    /// The first position of the gap.
    pub from: Lsn,
    /// The end of the gap, exclusive.
    pub to: Lsn,
    /// The length of the gap in bytes: in the file, or else in the log.
    pub bytes: u64,
    /// True if an intact header or frame claims that `from` was synced.
    ///
    /// If so, records are lost. Otherwise the gap may be a torn tail, which was never acknowledged
    /// as durable.
    pub is_committed: bool,
    /// The reason why the gap cannot be read.
    pub reason: String,
}

/// An item of [`Salvage`](super::Salvage) that is not a record.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SalvageError {
    /// A part of the log that cannot be read. The stream continues after it.
    #[error(transparent)]
    Gap(#[from] Gap),
    /// Reading stopped early, and the stream ends.
    ///
    /// The source is [`Error::Closed`] if the runtime that reads was shut down. The records after
    /// the last item were not read. Begin again on another runtime.
    #[error("reading stopped early; the rest of the log was not read")]
    Stopped(#[source] Error),
}

fn place(segment: Option<&str>, offset: u64) -> String {
    match segment {
        Some(segment) => format!("segment {segment}, offset {offset}"),
        None => "a missing segment".to_owned(),
    }
}

pub(super) type Items = VecDeque<Result<Record, SalvageError>>;
