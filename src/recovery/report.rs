//! What opening found, did and warns of: in fields, and as one line.

use std::fmt;

use crate::lsn::Lsn;

/// What opening a log found and did.
///
/// Its `Display` is the one line that opening also gives to `tracing`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Whether there was no log and one was created.
    pub is_new: bool,
    /// Whether the log had been closed with [`Wal::close`](crate::Wal::close).
    pub was_closed: bool,
    /// Where the log begins.
    pub first: Lsn,
    /// Where the log ends: the place of the next record.
    pub end: Lsn,
    /// The highest position that anything in the log claims was synced before it was opened.
    pub committed: Lsn,
    /// The segments that the log has.
    pub segment_count: usize,
    /// The bytes judged to find the end: the unsynced end of the log, never all of it, and without
    /// the zeros behind it.
    pub scanned_bytes: u64,
    /// The bytes above `committed` that were written anew and synced, because after a failed sync
    /// the page cache may show what the device never got.
    pub rewritten_bytes: u64,
    /// What was cut from the end; `None` if nothing was.
    pub cut: Option<Cut>,
    /// Everything suspicious.
    pub warnings: Vec<Warning>,
}

/// A torn tail: unsynced bytes that reached the device in part or out of order. None of them had
/// been acknowledged as synced by anything that survived. Or, where `durable` is set, damage that
/// was cut on request.
///
/// The bytes are kept in the files named here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Cut {
    /// Where the log was cut: the first LSN that is gone.
    pub lsn: Lsn,
    /// The segment in which that was.
    pub segment: String,
    /// The place in that file, from its start.
    pub offset: u64,
    /// The bytes past the cut that weren't zero.
    pub bytes: u64,
    /// Intact frames past the cut: they can't be kept, as what they followed is gone.
    pub valid_frame_count: u64,
    /// What stands at the cut.
    pub reason: &'static str,
    /// The files that keep the bytes: set-aside ones (`.wal.cut`), or a segment of the log, behind
    /// its end. Empty until the cut is made, by [`Recovery::into_wal`](crate::Recovery::into_wal).
    pub kept_in: Vec<String>,
    /// What was known durable of it, which only
    /// [`OnDamage::TruncateAtDamage`](crate::OnDamage::TruncateAtDamage) cuts; `None` for a torn
    /// tail.
    #[cfg_attr(feature = "cli", serde(skip_serializing_if = "Option::is_none"))]
    pub durable: Option<DurableCut>,
}

/// A cut of data that was known durable: what it takes away, and where that is kept.
///
/// It is the plan until the cut is made, by [`Recovery::into_wal`](crate::Recovery::into_wal).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DurableCut {
    /// The highest position that anything in the log claims was synced.
    pub synced: Lsn,
    /// The intact records past the cut. What is damaged can't be counted.
    pub record_count: u64,
    /// The segment with which the log goes on.
    pub new_segment: String,
    /// The file that tells all of this, written before anything else is changed.
    pub manifest: String,
    /// Each file that holds something of what is cut.
    pub copies: Vec<CutCopy>,
    /// What opening says with [`OnDamage::Strict`](crate::OnDamage::Strict).
    pub refusal: String,
}

/// A segment of which a cut of durable data takes some away, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CutCopy {
    /// The segment's name.
    pub segment: String,
    /// The file that keeps all of it, byte for byte.
    pub kept_as: String,
    /// Whether the segment stays as well: the cut is in it, and what stands before is still the
    /// log's.
    pub is_still_there: bool,
}

/// Something suspicious that opening met, and that does no harm as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Warning {
    /// The log wasn't closed: its process ended or its machine stopped.
    UncleanShutdown,
    /// A file that is none of the log's.
    ForeignFile {
        /// Its name.
        name: String,
    },
    /// Data that was known durable was cut, as
    /// [`OnDamage::TruncateAtDamage`](crate::OnDamage::TruncateAtDamage) asks for.
    DurableDataCut {
        /// Where the log ends now.
        lsn: Lsn,
        /// How far it was known durable.
        synced: Lsn,
    },
    /// Bytes that an earlier recovery cut and kept, or the manifest of such a cut. Remove the file when nobody needs them.
    KeptCut {
        /// The file's name.
        name: String,
    },
    /// A file left by an interrupted creation, rotation, cut or recovery. It is removed.
    Leftover {
        /// The file's name.
        name: String,
        /// What it was.
        what: &'static str,
    },
    /// A segment header that can't be read, in the unsynced end.
    DamagedHeader {
        /// The file's name.
        name: String,
    },
    /// A file whose length is not the one that its header tells.
    UnexpectedLength {
        /// The file's name.
        name: String,
        /// The length of the file.
        bytes: u64,
        /// The length that its header tells.
        expected_bytes: u64,
    },
    /// Intact frames whose padding isn't zero.
    DirtyPadding {
        /// How many.
        frame_count: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::UncleanShutdown => write!(f, "the log was not closed"),
            Warning::ForeignFile { name } => write!(f, "{name} is no file of the log"),
            Warning::DurableDataCut { lsn, synced } => {
                write!(f, "durable data was cut at LSN {lsn}, it had reached to LSN {synced}")
            }
            Warning::KeptCut { name } => write!(f, "{name} keeps what an earlier recovery cut"),
            Warning::Leftover { name, what } => write!(f, "{name} is a leftover: {what}"),
            Warning::DamagedHeader { name } => write!(f, "{name} has no readable header"),
            Warning::UnexpectedLength { name, bytes, expected_bytes } => {
                write!(f, "{name} has {bytes} bytes, its header tells {expected_bytes}")
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
                "{reason}; {bytes} bytes, {record_count} intact records in them; {manifest} tells \
                 where they are kept)"
            );
        }
        write!(
            f,
            "cut a torn tail at LSN {lsn} ({segment}, offset {offset}: {reason}; {bytes} bytes, \
             {valid_frame_count} intact frames in them"
        )?;
        if !self.kept_in.is_empty() {
            write!(f, ", kept in {}", self.kept_in.join(", "))?;
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
                 {committed}, {} bytes scanned, {} written anew",
                self.scanned_bytes, self.rewritten_bytes
            )?;
            if let Some(cut) = &self.cut {
                write!(f, "; {cut}")?;
            }
        }
        // That it was not closed is said above.
        let warnings = self.warnings.iter().filter(|w| **w != Warning::UncleanShutdown);
        for warning in warnings {
            write!(f, "; warning: {warning}")?;
        }
        Ok(())
    }
}
