//! The one error type: what failed, where, and what to do.

use std::{io, sync::Arc};

use crate::lsn::Lsn;

/// The result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and what the caller should do.
///
/// The kinds that call for different reactions are different variants: damage to durable data
/// ([`Error::Corrupt`]), a log written by a newer version ([`Error::UnsupportedVersion`]), a
/// failing device ([`Error::Io`]), a log that stopped itself after a failure
/// ([`Error::Poisoned`]) and one that was closed ([`Error::Closed`]). A torn tail is no error:
/// opening cuts it and says so in the [`RecoveryReport`](crate::RecoveryReport).
///
/// Errors are cheap to clone, because one failure answers every waiter.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// An option has a value that can't work. Nothing was opened or changed.
    #[error("option `{option}` = {value} is not usable: {reason}")]
    InvalidOption {
        /// The name of the option.
        option: &'static str,
        /// The value given.
        value: u64,
        /// Which values work.
        reason: &'static str,
    },

    /// The directory holds files, but no log. Nothing was changed. Name an empty or a new
    /// directory.
    #[error("{path}: not a log: it holds `{found}` and no segment; name an empty or new directory")]
    NotALog {
        /// The directory.
        path: String,
        /// One of the files found there.
        found: String,
    },

    /// The directory holds a part of a log: [`Wal::copy_to`](crate::Wal::copy_to) was interrupted.
    /// Nothing was changed. Remove the directory and copy again.
    #[error("{path}: a copy of a log that was not finished; remove it and copy again")]
    UnfinishedCopy {
        /// The directory.
        path: String,
    },

    /// A log is only copied to where nothing is. Nothing was changed. Name an empty or a new
    /// directory.
    #[error("{path}: it holds `{found}`; a log is copied to an empty or new directory")]
    NotEmpty {
        /// The directory.
        path: String,
        /// One of the files found there.
        found: String,
    },

    /// Another process, or another handle of this one, has the log open for writing.
    #[error("{path}: the log is open {}; close it there first", owner(*.owner_pid))]
    Locked {
        /// The directory.
        path: String,
        /// The owner's process id, if it could be read.
        owner_pid: Option<u32>,
    },

    /// The segment was written by a newer version of the format. Nothing was changed. Open it
    /// with a release that knows that version.
    #[error(
        "segment {segment}: format version {version} is newer than {supported}, the newest this \
         release knows; open it with a newer release"
    )]
    UnsupportedVersion {
        /// The segment's file name.
        segment: String,
        /// The version found.
        version: u16,
        /// The newest version that this release reads.
        supported: u16,
    },

    /// An intact frame or header uses a kind or a flag that this release doesn't know. Nothing
    /// was changed. Open it with a release that does.
    #[error(
        "segment {segment}, offset {offset}, LSN {lsn}: intact, but of a kind ({kind}) or with \
         flags ({flags:#06x}) that this release does not know; open it with a newer release"
    )]
    UnsupportedFrame {
        /// The segment's file name.
        segment: String,
        /// Bytes from the start of the file.
        offset: u64,
        /// The frame's position in the log.
        lsn: Lsn,
        /// The kind byte; 0 for a segment header.
        kind: u8,
        /// The flags.
        flags: u16,
    },

    /// The record is intact and compressed with a codec that this build doesn't have. Nothing was
    /// changed. Build with the feature of that name, and read it again.
    #[error(
        "segment {segment}, offset {offset}, LSN {lsn}: the record is compressed, and this program \
         was built without the feature `{feature}` of highwater; build it with that feature"
    )]
    UnsupportedCompression {
        /// The segment's file name.
        segment: String,
        /// Bytes from the start of the file.
        offset: u64,
        /// The record's position in the log.
        lsn: Lsn,
        /// The feature that reads it.
        feature: &'static str,
    },

    /// Bytes that were durable are wrong or gone. Nothing was changed. Restore the segment from a
    /// replica or a backup; opening again will refuse again.
    #[error(
        "segment {segment}, offset {offset}, LSN {lsn}: {reason}, although the log was known \
         durable up to LSN {synced}; restore it from a replica or a backup, nothing was changed"
    )]
    Corrupt {
        /// Where the damage begins.
        lsn: Lsn,
        /// The segment's file name, or the name it should have had.
        segment: String,
        /// Bytes from the start of the file.
        offset: u64,
        /// The highest position that surviving data claims was durable.
        synced: Lsn,
        /// What is wrong there.
        reason: String,
    },

    /// The operating system refused or failed an operation. Reading is never damage: an
    /// unreadable sector is this error, not [`Error::Corrupt`].
    #[error("{operation} {path}{}: {source}", .offset.map(|o| format!(", offset {o}")).unwrap_or_default())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file or directory.
        path: String,
        /// Bytes from the start of the file, where that applies.
        offset: Option<u64>,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },

    /// No space for the next segment. Nothing was reserved and nothing acknowledged is lost: free
    /// some space (or truncate the log's beginning) and append again.
    #[error(
        "no space for the next segment {segment} ({bytes} bytes): {source}; free some and retry"
    )]
    NoSpace {
        /// The file that could not be allocated.
        segment: String,
        /// The size it needs.
        bytes: u64,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },

    /// The record is larger than `record_bytes_max`. Nothing was reserved.
    #[error(
        "a record of {bytes} bytes is above record_bytes_max = {max}; raise it or split the record"
    )]
    RecordTooLarge {
        /// The size of the payload.
        bytes: u64,
        /// The limit in force.
        max: u64,
    },

    /// The batch is larger than `batch_bytes_max`. Nothing was reserved.
    #[error(
        "a batch of {bytes} bytes is above batch_bytes_max = {max}; raise it or split the batch"
    )]
    BatchTooLarge {
        /// The size of the batch, headers and padding included.
        bytes: u64,
        /// The limit in force.
        max: u64,
    },

    /// `try_enqueue` found no room in the ring. Nothing was reserved; use `enqueue`, which waits.
    #[error("the ring is full; use `enqueue`, which waits for room, or try again later")]
    Full,

    /// The LSN is before the log's first record or at or past its end.
    #[error("LSN {lsn} is outside the log, which holds {first}..{end}")]
    OutOfRange {
        /// The LSN asked for.
        lsn: Lsn,
        /// The first position of the log.
        first: Lsn,
        /// One past the last.
        end: Lsn,
    },

    /// What this was about stood at `to` or later and is gone: the log was cut there, by
    /// [`Wal::truncate_after`](crate::Wal::truncate_after) or, for who reads beside another process,
    /// by its recovery after a crash. Undo what was made of the records there and later; the log
    /// goes on from `to`, where others may stand by now.
    #[error("the log was cut at LSN {to}: undo what was made of the records there and later")]
    Truncated {
        /// The first LSN that is gone.
        to: Lsn,
    },

    /// No record begins at this LSN. Use LSNs that `append`, `replay` or a ticket gave.
    #[error("no record begins at LSN {lsn}; use an LSN that the log gave")]
    NotABoundary {
        /// The LSN asked for.
        lsn: Lsn,
    },

    /// The codec of a [typed](crate::typed) log can't encode an item. Nothing was reserved; the
    /// item, or the codec, is at fault.
    #[cfg(feature = "typed")]
    #[error("the codec can't encode the item: {source}; nothing was appended")]
    Encode {
        /// What the codec answered.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },

    /// The record is whole, and the codec of a [typed](crate::typed) log can't decode it. Read it
    /// with the codec that wrote it, or as bytes, or skip it.
    #[cfg(feature = "typed")]
    #[error(
        "LSN {lsn}: the record is whole, but the codec can't decode it: {source}; read it with the \
         codec that wrote it, or as bytes"
    )]
    Decode {
        /// The record's position in the log.
        lsn: Lsn,
        /// What the codec answered.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },

    /// Entries of a [Raft](crate::raft) group must follow each other. Nothing was appended; append
    /// from `expected` on, or use `append_overwriting`.
    #[cfg(feature = "raft")]
    #[error(
        "group {group}: entry {index} doesn't follow the entry before it; the next is {expected}"
    )]
    NotContiguous {
        /// The group.
        group: u64,
        /// The index given.
        index: u64,
        /// The index that would follow.
        expected: u64,
    },

    /// The entry of a [Raft](crate::raft) group is purged: a snapshot covers it. It can't be read, nor
    /// appended again.
    #[cfg(feature = "raft")]
    #[error("group {group}: entry {index} is not in the log any more, which begins at {first}")]
    Purged {
        /// The group.
        group: u64,
        /// The index asked for.
        index: u64,
        /// The first index that could be.
        first: u64,
    },

    /// A [Raft](crate::raft) log was written with another codec than the one it is opened with.
    /// Nothing was changed. Open it with the codec that wrote it.
    #[cfg(feature = "raft")]
    #[error("the log was written with codec {found}, and is opened with codec {expected}")]
    OtherCodec {
        /// The codec that the log names.
        found: u64,
        /// The codec given.
        expected: u64,
    },

    /// What stands at this LSN can't be what a [Raft](crate::raft) log wrote there: the log is another
    /// one, or of a newer release, or damaged in a way that no checksum shows. Nothing was changed. Let
    /// the node rejoin with an empty log; never truncate this one.
    #[cfg(feature = "raft")]
    #[error("LSN {lsn}: no Raft log has this record there: {reason}; let the node rejoin empty")]
    BadRaftRecord {
        /// The record's position in the log.
        lsn: Lsn,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// An earlier write or sync failed, so this handle stopped for good: what the device holds
    /// above the synced mark is unknown until it is read again. Reading goes on. Reopen the log:
    /// opening recovers and reports what survived.
    #[error(
        "the log stopped after a failure; reopen it to learn what survived; the cause: {cause}"
    )]
    Poisoned {
        /// The first failure.
        cause: Arc<Error>,
    },

    /// A background job of the log panicked, which poisons it. This is a defect: please report it.
    #[error("a background job of the log panicked{context}; please report it")]
    Panicked {
        /// What was running.
        context: &'static str,
    },

    /// The log was closed, or the runtime that runs its I/O is gone. The files are as after a
    /// process crash at worst; reopen the log.
    #[error("the log is closed: {reason}")]
    Closed {
        /// Who closed it.
        reason: &'static str,
    },
}

impl Error {
    /// Whether the log is intact on disk as far as was acknowledged, and reopening is the way on.
    ///
    /// ```
    /// let error = highwater::Error::Full;
    /// assert!(!error.is_poisoned());
    /// ```
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        matches!(self, Error::Poisoned { .. })
    }

    /// Whether durable data was found damaged.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Error::Corrupt { .. })
    }

    /// Whether a file isn't there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the log was closed or its runtime is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Error::Closed { .. })
    }

    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<String>,
        offset: Option<u64>,
        source: io::Error,
    ) -> Self {
        Error::Io { operation, path: path.into(), offset, source: Arc::new(source) }
    }

    /// A full device is a state that can be healed, not a failure of it: `NoSpace` instead of `Io`.
    pub(crate) fn or_no_space(self, segment: &str, bytes: u64) -> Self {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Error::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded) => {
                Error::NoSpace { segment: segment.to_owned(), bytes, source }
            }
            error => error,
        }
    }

    /// What later callers get once `self` has stopped the log.
    pub(crate) fn into_poison(self) -> Self {
        match self {
            poisoned @ Error::Poisoned { .. } => poisoned,
            cause => Error::Poisoned { cause: Arc::new(cause) },
        }
    }
}

/// For interfaces that know no other error: the error itself is inside, and the kind says what a
/// caller can tell apart.
///
/// ```
/// let error = std::io::Error::from(highwater::Error::Full);
/// assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
/// assert!(error.get_ref().is_some_and(|inner| inner.is::<highwater::Error>()));
/// ```
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        use io::ErrorKind;
        let kind = match &error {
            Error::Io { source, .. } => source.kind(),
            Error::NoSpace { .. } => ErrorKind::StorageFull,
            Error::Corrupt { .. } => ErrorKind::InvalidData,
            #[cfg(feature = "raft")]
            Error::OtherCodec { .. } | Error::BadRaftRecord { .. } => ErrorKind::InvalidData,
            #[cfg(feature = "raft")]
            Error::NotContiguous { .. } | Error::Purged { .. } => ErrorKind::InvalidInput,
            Error::InvalidOption { .. }
            | Error::RecordTooLarge { .. }
            | Error::BatchTooLarge { .. } => ErrorKind::InvalidInput,
            Error::UnsupportedVersion { .. }
            | Error::UnsupportedFrame { .. }
            | Error::UnsupportedCompression { .. } => ErrorKind::Unsupported,
            Error::Full => ErrorKind::WouldBlock,
            Error::Locked { .. } => ErrorKind::ResourceBusy,
            Error::Closed { .. } => ErrorKind::BrokenPipe,
            _ => ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

fn owner(pid: Option<u32>) -> String {
    match pid {
        Some(pid) if pid == std::process::id() => {
            "by another handle of this process, or one whose last writes still run".to_owned()
        }
        Some(pid) => format!("in another process (pid {pid})"),
        None => "in another process".to_owned(),
    }
}
