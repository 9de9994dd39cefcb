//! What an inspection gives: plain data.

use std::fmt;

use crate::{
    error::Error,
    format::header::SegmentHeader,
    lsn::Lsn,
    recovery::{Cut, Warning},
};

/// A log, as it stands in its files.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Inspection {
    /// The directory, or how the storage names itself.
    pub location: String,
    /// The process that has the log open for writing, where the system tells (on Linux). What looks
    /// torn at its end may then be a write on its way.
    pub owner_pid: Option<u32>,
    /// What opening would say.
    pub verdict: Verdict,
    /// Where the log begins; `None` if the log is refused before that is known.
    pub first: Option<Lsn>,
    /// The first place where no valid unit stands (X).
    pub end: Option<Lsn>,
    /// The highest position that anything claims was synced (S).
    pub committed: Option<Lsn>,
    /// All segment files, oldest first: those of the log, and others.
    pub segments: Vec<Segment>,
    /// Files with bytes that earlier recoveries cut and kept.
    pub kept: Vec<KeptCut>,
    /// Everything suspicious that opening would warn of.
    pub warnings: Vec<Warning>,
    /// Damage that opening doesn't look for and reading would meet: found only by reading all of
    /// the log.
    pub damage: Vec<Problem>,
}

/// What opening would say of a log.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize), serde(tag = "is", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Verdict {
    /// There is no log yet: opening creates one.
    New,
    /// Closed after everything was synced.
    Closed,
    /// Ends in zeros or with its file, and wasn't closed.
    CleanEnd,
    /// Unsynced bytes that came to the device in part: opening cuts them.
    TornTail(Cut),
    /// Opening refuses.
    Refused(Problem),
}

/// A reason to refuse a log, or what a reader of it would meet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Problem {
    /// What kind of.
    pub kind: ProblemKind,
    /// The segment file, where it is one's.
    pub segment: Option<String>,
    /// The place in that file.
    pub offset: Option<u64>,
    /// The place in the log.
    pub lsn: Option<Lsn>,
    /// How far the log was known durable.
    pub synced: Option<Lsn>,
    /// Where, what, and what to do: the text of the [`Error`].
    pub message: String,
}

/// The kinds of [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ProblemKind {
    /// Bytes that were durable are wrong or gone.
    Corrupt,
    /// Intact, and of a later release, or compressed with a codec that this build doesn't have.
    Unsupported,
    /// The operating system refused to read.
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
            message: error.to_string(),
        };
        match error {
            Error::Corrupt { lsn, segment, offset, synced, .. } => {
                problem.kind = ProblemKind::Corrupt;
                problem.lsn = Some(*lsn);
                problem.synced = Some(*synced);
                // A segment that is missing has no file to look into.
                if !segment.is_empty() {
                    problem.segment = Some(segment.clone());
                    problem.offset = Some(*offset);
                }
            }
            Error::UnsupportedVersion { segment, .. } => {
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

/// A file that keeps what was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeptCut {
    /// Its name.
    pub name: String,
    /// Its length; `None` if it can't be read.
    pub bytes: Option<u64>,
}

/// A segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Segment {
    /// The file's name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// One past its last byte that isn't zero.
    pub used_bytes: u64,
    /// What it is to the log.
    pub role: Role,
    /// What stands where its header belongs.
    pub header_state: HeaderState,
    /// The header, if it or its copy is valid.
    pub header: Option<Header>,
    /// Where its part of the log ends: where the next segment begins, or with the file.
    pub end: Option<Lsn>,
    /// What it holds; `None` if it wasn't read, or has no header to read it by.
    pub contents: Option<Contents>,
}

/// What a segment file is to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Role {
    /// A part of the log.
    Log,
    /// Prepared, and not begun yet.
    Spare,
    /// No part of the log (any more): what an earlier cut replaced, or what can't be placed.
    Other,
}

/// What stands where a segment's header belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum HeaderState {
    /// The header and its copy hold.
    Intact,
    /// The header holds, its copy doesn't.
    CopyDamaged,
    /// The copy holds, the header itself doesn't.
    MainDamaged,
    /// Zeros: the file was prepared and not begun.
    Blank,
    /// Neither holds.
    Damaged,
    /// Intact, of a newer version of the format.
    Newer {
        /// That version.
        version: u16,
    },
    /// Intact, with flags that this release doesn't know.
    UnknownFlags {
        /// All flags.
        flags: u16,
    },
    /// It can't be read.
    Unreadable,
}

/// The sixteen random bytes that all segments of a log share. `Display` is hexadecimal.
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

#[cfg(feature = "cli")]
impl serde::Serialize for LogId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A random number: as text for readers of JSON, most of whom have 53 bits for a number.
#[cfg(feature = "cli")]
fn hexadecimal<S: serde::Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:016x}"))
}

/// A segment's header. `docs/FORMAT.md` has what each field promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Header {
    /// Random, the same in all segments of a log.
    pub log_id: LogId,
    /// The LSN of the first frame.
    pub base: Lsn,
    /// The same until a cut, which starts the next.
    pub epoch: u64,
    /// Random for each use of a file.
    #[cfg_attr(feature = "cli", serde(serialize_with = "hexadecimal"))]
    pub incarnation: u64,
    /// The segment before this one; `None` at the beginning of a log.
    pub previous: Option<Link>,
    /// Where the log began when this segment was begun.
    pub first: Lsn,
    /// How far the log was synced then.
    pub synced: Lsn,
    /// When that was, in milliseconds of Unix time.
    pub created_unix_ms: u64,
    /// A position that a user of the log wants to find again.
    pub hint: Option<Lsn>,
    /// The length that the file was prepared with.
    pub file_bytes: u64,
}

/// How a segment names the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Link {
    /// Its base.
    pub base: Lsn,
    /// Its incarnation.
    #[cfg_attr(feature = "cli", serde(serialize_with = "hexadecimal"))]
    pub incarnation: u64,
}

impl From<SegmentHeader> for Header {
    fn from(header: SegmentHeader) -> Self {
        let link = header.previous;
        Header {
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

/// Records that are stored compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CompressedRecords {
    /// How many.
    pub record_count: u64,
    /// Their bytes, as their readers get them.
    pub payload_bytes: u64,
    /// The bytes that are stored of them.
    pub stored_bytes: u64,
}

/// What a walk over a segment's frames counted: whole units, up to where no valid one stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Contents {
    /// All frames.
    pub frame_count: u64,
    /// Records, those of batches included.
    pub record_count: u64,
    /// Batches of more than one record.
    pub batch_count: u64,
    /// Control frames: marks and closes.
    pub control_count: u64,
    /// The bytes of all records, as their readers get them.
    pub payload_bytes: u64,
    /// The compressed ones among them; `None` if there are none.
    #[cfg_attr(feature = "cli", serde(skip_serializing_if = "Option::is_none"))]
    pub compressed: Option<CompressedRecords>,
    /// The first frame's LSN, and the last one's.
    pub frames: Option<(Lsn, Lsn)>,
    /// Where the walk stopped: one past the last whole unit.
    pub end: Lsn,
    /// That place in the file.
    pub end_offset: u64,
    /// Why it stopped there.
    pub stop: &'static str,
    /// Intact frames that stand past it.
    pub past_count: u64,
}
