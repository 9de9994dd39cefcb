//! The result of an inspection: plain data.

use std::fmt;

use crate::{
    error::Error,
    format::header::SegmentHeader,
    lsn::Lsn,
    recovery::{Cut, Warning},
};

/// The contents of a log according to its files.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Inspection {
    /// The directory, or the location of the storage.
    pub location: String,
    /// The process that has the log open for writing, if known (on Linux).
    ///
    /// An apparent torn tail may then be a write in progress.
    pub owner_pid: Option<u32>,
    /// The verdict of opening.
    pub verdict: Verdict,
    /// The beginning of the log; `None` if the log is refused before that is known.
    pub first: Option<Lsn>,
    /// The first position without a valid unit (X).
    pub end: Option<Lsn>,
    /// The highest position that any header, frame or note claims was synced (S).
    pub committed: Option<Lsn>,
    /// All segment files, oldest first. Some may not be part of the log.
    pub segments: Vec<Segment>,
    /// Files that hold bytes which earlier recoveries cut.
    pub kept: Vec<KeptCut>,
    /// The warnings of opening.
    pub warnings: Vec<Warning>,
    /// Damage that opening does not search for. It is found only by reading the whole log.
    pub damage: Vec<Problem>,
    /// The slots of the log, by name; empty if the log is refused.
    pub slots: Vec<Slot>,
}

/// A slot of a log: the durable position of a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// The position at which the consumer continues. Everything below is done.
    pub position: Lsn,
    /// The bytes between the position and the end of the log.
    pub lag_bytes: u64,
    /// The bytes from the beginning of the segment that holds the position up to the end of the
    /// log: what the slot keeps on the disk at most.
    pub held_bytes: u64,
    /// The most bytes that the slot may be behind; `None` without a limit.
    pub keep_bytes_max: Option<u64>,
    /// True if the log was truncated past the slot.
    pub is_lost: bool,
}

/// The verdict of opening a log.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(tag = "is", rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Verdict {
    /// There is no log yet. Opening creates one.
    New,
    /// The log was closed after everything was synced.
    Closed,
    /// The log was not closed, and ends with zeros or with its file.
    CleanEnd,
    /// Unsynced bytes reached the device in part. Opening cuts them.
    TornTail(Cut),
    /// Opening refuses the log.
    Refused(Problem),
}

/// A reason why opening or a reader refuses a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Problem {
    /// The kind of the problem.
    pub kind: ProblemKind,
    /// The name of the segment file, if the problem is in one.
    pub segment: Option<String>,
    /// The offset in that file.
    pub offset: Option<u64>,
    /// The position in the log.
    pub lsn: Option<Lsn>,
    /// The position up to which the log was known to be durable.
    pub synced: Option<Lsn>,
    /// The text of the [`Error`]: where, what, and what to do.
    pub message: String,
}

/// The kinds of [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ProblemKind {
    /// Durable bytes are wrong or missing.
    Corrupt,
    /// Intact data of a later release, or of a codec that this build lacks.
    Unsupported,
    /// The operating system cannot read the file.
    Unreadable,
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let mut problem = Problem {
            kind: ProblemKind::Unreadable,
            segment: None,
            offset: None,
            lsn: None,
            synced: None,
            // The inspection names the directory once for all problems.
            message: format!("{:#}", error.clone().without_directory()),
        };
        match error {
            Error::Corrupt { lsn, segment, offset, synced, .. } => {
                problem.kind = ProblemKind::Corrupt;
                problem.lsn = Some(*lsn);
                problem.synced = Some(*synced);
                // A missing segment has no file.
                if !segment.is_empty() {
                    problem.segment = Some(segment.clone());
                    problem.offset = Some(*offset);
                }
            }
            Error::UnsupportedVersion { segment, .. }
            | Error::UnsupportedExtension { segment, .. } => {
                problem.kind = ProblemKind::Unsupported;
                problem.segment = Some(segment.clone());
                problem.offset = Some(0);
            }
            Error::UnsupportedFrame { segment, offset, lsn, .. } => {
                problem.kind = ProblemKind::Unsupported;
                problem.segment = Some(segment.clone());
                problem.offset = Some(*offset);
                problem.lsn = Some(*lsn);
            }
            Error::UnsupportedCompression { segment, offset, lsn, .. } => {
                problem.kind = ProblemKind::Unsupported;
                problem.segment = Some(segment.clone());
                problem.offset = Some(*offset);
                problem.lsn = Some(*lsn);
            }
            Error::RecordTooLarge { .. } => problem.kind = ProblemKind::Unsupported,
            Error::Io { path, offset, .. } => {
                problem.segment = Some(path.clone());
                problem.offset = *offset;
            }
            _ => {}
        }
        problem
    }
}

/// A file that holds bytes of an earlier cut.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeptCut {
    /// Its name.
    pub name: String,
    /// Its length in bytes; `None` if it cannot be read.
    pub bytes: Option<u64>,
}

/// A segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Segment {
    /// The file's name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The end of its last byte that is not zero.
    pub used_bytes: u64,
    /// Its role in the log.
    pub role: Role,
    /// The state of its header.
    pub header_state: HeaderState,
    /// The header, if one of its copies is valid.
    pub header: Option<Header>,
    /// The end of the segment's part of the log.
    ///
    /// This is the beginning of the next segment, or the end of the file.
    pub end: Option<Lsn>,
    /// Its frames in numbers; `None` if it was not read, or has no valid header.
    pub contents: Option<Contents>,
}

/// The role of a segment file in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Role {
    /// A part of the log.
    Log,
    /// Prepared and not begun yet.
    Spare,
    /// Not part of the log: an earlier cut replaced it, or its position is unknown.
    Other,
}

/// The state of a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum HeaderState {
    /// Both copies are valid.
    Intact,
    /// The first copy is valid, the second is not.
    CopyDamaged,
    /// The second copy is valid, the first is not.
    MainDamaged,
    /// Both copies are zero: the file was prepared and not begun.
    Blank,
    /// Neither copy is valid.
    Damaged,
    /// Intact, but of a newer version of the format.
    Newer {
        /// That version.
        version: u16,
    },
    /// Intact, but with flags that this release does not know.
    UnknownFlags {
        /// All flags.
        flags: u16,
    },
    /// Intact, but with an unknown extension entry that must not be skipped.
    UnknownExtension {
        /// The code of the entry.
        code: u16,
    },
    /// Intact, but it belongs to a file with another number.
    Misplaced {
        /// That number.
        sequence: u64,
    },
    /// The file cannot be read.
    Unreadable,
}

/// The id of a log: 16 random bytes that all its segments share.
///
/// Its `Display` is hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub [u8; 16]);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for LogId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Writes a number as hexadecimal text, because many readers of JSON have 53-bit numbers.
#[cfg(feature = "serde")]
fn hexadecimal<S: serde::Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:016x}"))
}

/// A segment's header. `docs/FORMAT.md` describes the promise of each field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Header {
    /// The number in the name of the file to which the header belongs.
    pub sequence: u64,
    /// The id of the log, the same in all its segments.
    pub log_id: LogId,
    /// The LSN of the first frame.
    pub base: Lsn,
    /// The epoch. Each cut begins the next one.
    pub epoch: u64,
    /// A random number for each use of a file.
    #[cfg_attr(feature = "serde", serde(serialize_with = "hexadecimal"))]
    pub incarnation: u64,
    /// The segment before this one; `None` at the beginning of a log.
    pub previous: Option<Link>,
    /// The beginning of the log when this segment was begun.
    pub first: Lsn,
    /// The position up to which the log was synced when this segment was begun.
    pub synced: Lsn,
    /// The time when this segment was begun, in milliseconds of Unix time.
    pub created_unix_ms: u64,
    /// A position that the user of the log has stored to find it again.
    pub hint: Option<Lsn>,
    /// The length that the file was prepared with.
    pub file_bytes: u64,
}

/// The reference of a segment to its predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Link {
    /// The base of the predecessor.
    pub base: Lsn,
    /// The incarnation of the predecessor.
    #[cfg_attr(feature = "serde", serde(serialize_with = "hexadecimal"))]
    pub incarnation: u64,
}

impl From<SegmentHeader> for Header {
    fn from(header: SegmentHeader) -> Self {
        let link = header.previous;
        Header {
            sequence: header.sequence,
            log_id: LogId(header.log_id),
            base: header.base,
            epoch: header.epoch,
            incarnation: header.incarnation,
            previous: link.map(|link| Link { base: link.base, incarnation: link.incarnation }),
            first: header.first,
            synced: header.synced,
            created_unix_ms: header.created_unix_ms,
            hint: header.hint,
            file_bytes: header.file_bytes,
        }
    }
}

/// The compressed records of a segment in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CompressedRecords {
    /// The number of compressed records.
    pub record_count: u64,
    /// The number of their uncompressed bytes.
    pub payload_bytes: u64,
    /// The number of their stored bytes.
    pub stored_bytes: u64,
}

/// The frames of a segment in numbers.
///
/// Only whole units up to the first invalid one are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Contents {
    /// The number of frames.
    pub frame_count: u64,
    /// The number of records, including those in batches.
    pub record_count: u64,
    /// The number of batches with more than one record.
    pub batch_count: u64,
    /// The number of control frames, such as marks and closes.
    pub control_count: u64,
    /// The number of bytes of all records, uncompressed.
    pub payload_bytes: u64,
    /// The compressed records; `None` if there are none.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub compressed: Option<CompressedRecords>,
    /// The LSNs of the first and the last frame.
    pub frames: Option<(Lsn, Lsn)>,
    /// The end of the last whole unit, where the walk stopped.
    pub end: Lsn,
    /// The offset of that position in the file.
    pub end_offset: u64,
    /// Why the walk stopped.
    pub stop: &'static str,
    /// The number of intact frames after that position.
    pub past_count: u64,
}
