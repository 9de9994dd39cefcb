//! [`RecoveryReport`]: what opening found and did, as fields and as one line.

use std::fmt;

use crate::lsn::Lsn;

/// The report of what opening a log found and did.
///
/// Its `Display` is the line that opening also sends to `tracing`. The line has the first four
/// warnings and the number of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RecoveryReport {
    /// True if there was no log and one was created.
    pub is_new: bool,
    /// True if the log had been closed with [`Wal::close`](crate::Wal::close).
    pub was_closed: bool,
    /// The beginning of the log.
    pub first: Lsn,
    /// The end of the log, which is the LSN of the next record.
    pub end: Lsn,
    /// The highest position that any header, frame or note claimed was synced before opening.
    pub committed: Lsn,
    /// The number of segments of the log.
    pub segment_count: usize,
    /// The number of bytes that were read to find the end.
    ///
    /// These bytes are in the unsynced end of the log. The zeros after that end do not count.
    pub scanned_bytes: u64,
    /// The number of bytes above `committed` that were written again and synced.
    ///
    /// This is necessary because, after a failed sync, the page cache may show bytes that the
    /// device does not have.
    pub rewritten_bytes: u64,
    /// The cut of the end; `None` if nothing was cut.
    pub cut: Option<Cut>,
    /// The warnings.
    pub warnings: Vec<Warning>,
}

/// A cut of a torn tail, or of damage if `durable` is set.
///
/// A torn tail is unsynced bytes that reached the device in part or out of order. No surviving byte
/// shows that any of them was acknowledged as synced. With `durable`, damaged durable data was cut
/// on request. The bytes are kept in the files named here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Cut {
    /// The first LSN that was cut.
    pub lsn: Lsn,
    /// The name of the segment that holds this position.
    pub segment: String,
    /// The offset of this position in the file.
    pub offset: u64,
    /// The number of bytes after the cut, without the zeros at the end.
    pub bytes: u64,
    /// The number of intact frames after the cut.
    ///
    /// These frames cannot stay in the log, because the frames before them are missing.
    pub valid_frame_count: u64,
    /// The reason for the cut.
    pub reason: &'static str,
    /// The names of the files that keep the bytes.
    ///
    /// These are files that were set aside (`.wal.cut`), or a segment of the log that has the bytes
    /// after its end. Empty until [`Recovery::into_wal`](crate::Recovery::into_wal) makes the cut.
    pub kept_in: Vec<String>,
    /// The durable part of the cut; `None` for a torn tail.
    ///
    /// Only [`OnDamage::TruncateAtDamage`](crate::OnDamage::TruncateAtDamage) cuts durable data.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub durable: Option<DurableCut>,
}

/// A cut of durable data: the removed records, and the files that keep them.
///
/// The cut is a plan until [`Recovery::into_wal`](crate::Recovery::into_wal) makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DurableCut {
    /// The highest position that any header, frame or note claims was synced.
    pub synced: Lsn,
    /// The number of intact records after the cut. Damaged records cannot be counted.
    pub record_count: u64,
    /// The name of the segment with which the log continues.
    pub new_segment: String,
    /// The name of the manifest, which records all of this. It is written before anything else is
    /// changed.
    pub manifest: String,
    /// The files that hold bytes of the cut.
    pub copies: Vec<CutCopy>,
    /// The error that opening with [`OnDamage::Strict`](crate::OnDamage::Strict), or reading the
    /// whole log, returns.
    pub refusal: String,
}

/// A segment from which a cut of durable data removes bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CutCopy {
    /// The name of the segment.
    pub segment: String,
    /// The name of the file that keeps all of it, byte for byte.
    pub kept_as: String,
    /// True if the bytes of the segment before the cut stay part of the log.
    pub is_still_there: bool,
}

/// A suspicious finding that does not prevent opening.
///
/// Only [`DurableDataCut`](Warning::DurableDataCut) reports a loss of durable data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Warning {
    /// Records that say which slots the log has are missing or damaged. Slots may be missing, or be
    /// at an older position.
    SlotsIncomplete {
        /// The position of the first such record.
        lsn: Lsn,
    },
    /// The log was not closed: its process ended or its machine stopped.
    UncleanShutdown,
    /// A file that does not belong to the log.
    ForeignFile {
        /// Its name.
        name: String,
    },
    /// Durable data was cut, on request of
    /// [`OnDamage::TruncateAtDamage`](crate::OnDamage::TruncateAtDamage).
    DurableDataCut {
        /// The new end of the log.
        lsn: Lsn,
        /// The position up to which the log was known to be durable.
        synced: Lsn,
    },
    /// A file that keeps bytes of an earlier cut, or the manifest of a cut.
    ///
    /// Remove the file when the bytes are not needed any more.
    KeptCut {
        /// The file's name.
        name: String,
    },
    /// A file that an interrupted creation, rotation, cut or recovery left. Opening removes the
    /// file, or renames it if it holds bytes of a cut.
    Leftover {
        /// The file's name.
        name: String,
        /// Why it is not part of the log.
        what: &'static str,
    },
    /// A segment whose header is unreadable, in the unsynced end.
    DamagedHeader {
        /// The file's name.
        name: String,
    },
    /// A file with the header of another segment. It was being prepared, or was renamed.
    MisplacedHeader {
        /// The file's name.
        name: String,
        /// The name of the file to which the header belongs.
        belongs_to: String,
    },
    /// A leftover that cannot be removed now. The next opening tries again.
    NotRemoved {
        /// The file's name.
        name: String,
        /// The error of the operating system.
        reason: String,
    },
    /// The note of the last close is unreadable. So a loss of the newest segment would not be
    /// noticed.
    UnreadableNote {
        /// The file's name.
        name: String,
        /// The error of the operating system.
        reason: String,
    },
    /// A file whose length is not the one in its header.
    UnexpectedLength {
        /// The file's name.
        name: String,
        /// The length of the file.
        bytes: u64,
        /// The length in the header.
        expected_bytes: u64,
    },
    /// Intact frames whose padding is not zero.
    DirtyPadding {
        /// The number of these frames.
        frame_count: u64,
    },
}

/// The maximum number of list items that a line shows.
const SHOWN_MAX: usize = 4;

/// Writes the first items of a list with `label`, and the number of the others.
fn write_some(
    f: &mut fmt::Formatter<'_>,
    items: &[impl fmt::Display],
    separator: &str,
    label: &str,
) -> fmt::Result {
    for (number, item) in items.iter().take(SHOWN_MAX).enumerate() {
        let separator = if number == 0 { "" } else { separator };
        write!(f, "{separator}{label}{item}")?;
    }
    match items.len().saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        left => write!(f, "{separator}and {left} more"),
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::SlotsIncomplete { lsn } => {
                write!(
                    f,
                    "slots may be missing or old: the records from LSN {lsn} on are not whole"
                )
            }
            Warning::UncleanShutdown => write!(f, "the log was not closed"),
            Warning::ForeignFile { name } => {
                write!(f, "{} is not a file of the log", name.escape_debug())
            }
            Warning::DurableDataCut { lsn, synced } => {
                write!(
                    f,
                    "durable data was cut at LSN {lsn}; the log was durable up to LSN {synced}"
                )
            }
            Warning::KeptCut { name } => {
                write!(f, "{name} keeps bytes that an earlier recovery cut")
            }
            Warning::Leftover { name, what } => write!(f, "{name} is a leftover: {what}"),
            Warning::DamagedHeader { name } => write!(f, "{name} has no readable header"),
            Warning::MisplacedHeader { name, belongs_to } => {
                write!(f, "{name} has the header of {belongs_to}")
            }
            Warning::NotRemoved { name, reason } => {
                write!(f, "{name} cannot be removed now ({reason}); the next opening tries again")
            }
            Warning::UnreadableNote { name, reason } => {
                write!(f, "{name} cannot be read ({reason})")
            }
            Warning::UnexpectedLength { name, bytes, expected_bytes } => {
                write!(f, "{name} has {bytes} bytes, but {expected_bytes} according to its header")
            }
            Warning::DirtyPadding { frame_count } => {
                write!(f, "{frame_count} frames have padding that is not zero")
            }
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cut { lsn, segment, offset, bytes, valid_frame_count, reason, .. } = self;
        if let Some(durable) = &self.durable {
            let DurableCut { synced, record_count, manifest, .. } = durable;
            write!(f, "cut durable data at LSN {lsn}, which had reached to LSN {synced} (")?;
            if !segment.is_empty() {
                write!(f, "{segment}, offset {offset}: ")?;
            }
            return write!(
                f,
                "{reason}; {bytes} bytes, {record_count} intact records in them; {manifest} lists \
                 their copies)"
            );
        }
        write!(
            f,
            "cut a torn tail at LSN {lsn} ({segment}, offset {offset}: {reason}; {bytes} bytes, \
             {valid_frame_count} intact frames in them"
        )?;
        if !self.kept_in.is_empty() {
            write!(f, ", kept in ")?;
            write_some(f, &self.kept_in, ", ", "")?;
        }
        write!(f, ")")
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_new {
            write!(f, "created a new log")?;
        } else {
            let how = if self.was_closed { "a closed" } else { "an unclosed" };
            let RecoveryReport { first, end, committed, segment_count, .. } = self;
            write!(
                f,
                "opened {how} log, segments: {segment_count}, LSN {first}..{end}, committed up to \
                 {committed}, {} bytes scanned, {} written again",
                self.scanned_bytes, self.rewritten_bytes
            )?;
            if let Some(cut) = &self.cut {
                write!(f, "; {cut}")?;
            }
        }
        // The line shows `was_closed` above.
        let is_news = |warning: &&Warning| **warning != Warning::UncleanShutdown;
        let mut warnings: Vec<_> = self.warnings.iter().filter(is_news).collect();
        // The line shows few warnings, so those about files of recovery itself come last.
        warnings.sort_by_key(|warning| {
            matches!(warning, Warning::KeptCut { .. } | Warning::Leftover { .. })
        });
        if warnings.is_empty() {
            return Ok(());
        }
        write!(f, "; ")?;
        write_some(f, &warnings, "; ", "warning: ")
    }
}
