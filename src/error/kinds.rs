//! The kinds of error, and the text of each.

use std::{io, sync::Arc, time::Duration};

use crate::{
    error::{
        closed_by::ClosedBy,
        text::{
            prefix, write_io, write_no_space, write_over_budget, write_poisoned, write_stalled,
        },
    },
    lock_owner::LockOwner,
    lsn::Lsn,
    operation::Operation,
};

/// The result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of the log: what failed, where, and what the caller should do.
///
/// Each variant calls for another reaction:
///
/// - durable data is damaged: [`Error::Corrupt`];
/// - a newer release wrote the log: [`Error::UnsupportedVersion`];
/// - the device failed: [`Error::Io`];
/// - the log stopped after a failure: [`Error::Poisoned`];
/// - the log was closed: [`Error::Closed`].
///
/// A torn tail is not an error: opening truncates it and reports it in the
/// [`RecoveryReport`](crate::RecoveryReport).
///
/// An error is cheap to clone, because one failure is reported to every waiter.
///
/// `{}` prints the error without its cause, which [`source`](std::error::Error::source) returns. So
/// a program that prints the chain prints each cause once. `{:#}` prints the error and its causes
/// in one line.
///
/// ```
/// use highwater::Error;
/// use std::{error::Error as _, sync::Arc};
///
/// let stopped = Error::Poisoned { cause: Arc::new(Error::Full) };
/// let cause = stopped.source().map(ToString::to_string);
/// assert_eq!(cause, Some(Error::Full.to_string()));
/// assert!(!stopped.to_string().contains("ring"));
/// assert!(format!("{stopped:#}").ends_with(&format!(": {}", Error::Full)));
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// An option has an unusable value. Nothing was opened or changed.
    #[error("option `{option}` = {value} is not usable: {reason}")]
    InvalidOption {
        /// The name of the option.
        option: &'static str,
        /// The value.
        value: u64,
        /// The values that are usable.
        reason: &'static str,
    },

    /// The directory contains files but no log. Nothing was changed. Use an empty or new directory.
    #[error("{path}: not a log: it holds {found} and no segment; name an empty or new directory")]
    NotALog {
        /// The directory.
        path: String,
        /// The names of the first files, and the number of others.
        found: String,
    },

    /// The directory contains an unfinished copy: [`Wal::copy_to`](crate::Wal::copy_to) was
    /// interrupted. Nothing was changed. Remove the directory and copy again.
    #[error("{path}: an unfinished copy of a log; remove it and copy again")]
    UnfinishedCopy {
        /// The directory.
        path: String,
    },

    /// The directory contains a standby, a copy that takes its bytes from another log. Nothing was
    /// changed. Read it beside its replication, or promote it to append to it.
    #[error(
        "{path}: a standby, which takes its records from another log; promote it to write to it"
    )]
    Standby {
        /// The directory.
        path: String,
    },

    /// The target directory of a copy is not empty. Nothing was changed. Use an empty or new
    /// directory.
    #[error("{path}: it holds {found}; copy the log to an empty or new directory")]
    NotEmpty {
        /// The directory.
        path: String,
        /// The names of the first files, and the number of others.
        found: String,
    },

    /// The log is open for writing in another process or handle. Close it there first.
    #[error("{path}: the log is open {owner}; close it there first")]
    Locked {
        /// The directory.
        path: String,
        /// The owner of the lock, if known.
        owner: LockOwner,
    },

    /// The directory or a file of an open log was removed, renamed or replaced.
    ///
    /// The log stops, because a later opening would not find new records. Put the directory back,
    /// or restore it, then open the log again.
    #[error("{path}: {reason} while the log was open; put it back in its place and open it again")]
    Displaced {
        /// The directory.
        path: String,
        /// The change that was found.
        reason: String,
    },

    /// The segment has a newer format version. Nothing was changed. Open it with a release that
    /// knows that version.
    #[error(
        "{}segment {segment}: format version {version} is newer than {supported}, the newest this \
         release knows; open it with a newer release",
        prefix(directory)
    )]
    UnsupportedVersion {
        /// The directory of the log.
        directory: String,
        /// The segment's file name.
        segment: String,
        /// The version found.
        version: u16,
        /// The newest version that this release reads.
        supported: u16,
    },

    /// An intact frame or header has an unknown kind or flag. Nothing was changed. Open it with a
    /// newer release.
    #[error(
        "{}segment {segment}, offset {offset}, LSN {lsn}: intact, but of a kind ({kind}) or with \
         flags ({flags:#06x}) that this release does not know; open it with a newer release",
        prefix(directory)
    )]
    UnsupportedFrame {
        /// The directory of the log.
        directory: String,
        /// The segment's file name.
        segment: String,
        /// The offset in the file, in bytes.
        offset: u64,
        /// The frame's position in the log.
        lsn: Lsn,
        /// The kind byte; 0 for a segment header.
        kind: u8,
        /// The flags.
        flags: u16,
    },

    /// An intact segment header has an unknown extension entry that must not be skipped. Nothing
    /// was changed. Open it with a newer release.
    #[error(
        "{}segment {segment}: its header is intact, but has an extension ({code:#06x}) that this \
         release does not know; open it with a newer release",
        prefix(directory)
    )]
    UnsupportedExtension {
        /// The directory of the log.
        directory: String,
        /// The segment's file name.
        segment: String,
        /// The code of the entry.
        code: u16,
    },

    /// The record is intact, but compressed with an algorithm that this build lacks. Nothing was
    /// changed. Build with the named feature and read it again.
    #[error(
        "{}segment {segment}, offset {offset}, LSN {lsn}: the record is compressed, and this program \
         was built without the feature `{feature}` of highwater; build it with that feature",
        prefix(directory)
    )]
    UnsupportedCompression {
        /// The directory of the log.
        directory: String,
        /// The segment's file name.
        segment: String,
        /// The offset in the file, in bytes.
        offset: u64,
        /// The record's position in the log.
        lsn: Lsn,
        /// The feature that reads it.
        feature: &'static str,
    },

    /// Durable bytes are damaged or missing. Nothing was changed. Restore the segment from a
    /// replica or a backup; until then, every opening with
    /// [`OnDamage::Strict`](crate::OnDamage::Strict) fails.
    #[error(
        "{}segment {segment}, offset {offset}, LSN {lsn}: {reason}, although the log was known \
         durable up to LSN {synced}; restore it from a replica or a backup, nothing was changed",
        prefix(directory)
    )]
    Corrupt {
        /// The directory of the log.
        directory: String,
        /// The position at which the damage begins.
        lsn: Lsn,
        /// The segment's file name, or a description if the file is missing.
        segment: String,
        /// The offset in the file, in bytes.
        offset: u64,
        /// The highest position that intact data records as durable.
        synced: Lsn,
        /// The damage.
        reason: String,
    },

    /// The operating system refused or failed an operation. An unreadable sector is this error, not
    /// [`Error::Corrupt`].
    #[error(fmt = write_io)]
    Io {
        /// The operation, as a verb.
        operation: &'static str,
        /// The directory of the log if `path` is a file in it, else empty.
        directory: String,
        /// The file or directory.
        path: String,
        /// The offset in the file, in bytes, if the operation has one.
        offset: Option<u64>,
        /// The operating system's error.
        source: Arc<io::Error>,
    },

    /// There is no space for the next segment. Nothing was reserved, and no acknowledged record is
    /// lost. Free space, or truncate the log's beginning, then append again.
    #[error(fmt = write_no_space)]
    NoSpace {
        /// The directory of the log.
        directory: String,
        /// The file that could not be allocated.
        segment: String,
        /// The size that it needs.
        bytes: u64,
        /// The operating system's error.
        source: Arc<io::Error>,
    },

    /// The next segment would exceed the [`budget`](crate::Options::budget). Nothing was reserved.
    ///
    /// Truncate the log's beginning, move the holder on, or raise the budget, then append again.
    #[error(fmt = write_over_budget)]
    OverBudget {
        /// The directory of the log.
        directory: String,
        /// The option.
        budget_bytes: u64,
        /// The bytes of the log's files.
        used_bytes: u64,
        /// The size of the next segment's file.
        bytes: u64,
        /// The slot or lease with the lowest position; empty if nothing holds segments.
        holder: String,
    },

    /// The log has used all its positions: no segment may reach LSN 2^62.
    ///
    /// Nothing was reserved, and no acknowledged record is lost. The log can still be read, synced
    /// and closed. Begin a new one.
    #[error(
        "LSN {lsn}: the next segment would reach LSN 2^62, where positions end; begin a new log"
    )]
    LsnLimit {
        /// The first position of the segment that cannot be created.
        lsn: Lsn,
    },

    /// The record is larger than `record_bytes_max`. Nothing was reserved. Raise the option or
    /// split the record.
    #[error(
        "a record of {bytes} bytes is above record_bytes_max = {max}; raise it or split the record"
    )]
    RecordTooLarge {
        /// The size of the payload.
        bytes: u64,
        /// The value of the option.
        max: u64,
    },

    /// The batch is larger than `batch_bytes_max`. Nothing was reserved. Raise the option or split
    /// the batch.
    #[error(
        "a batch of {bytes} bytes is above batch_bytes_max = {max}; raise it or split the batch"
    )]
    BatchTooLarge {
        /// The size of the batch with headers and padding.
        bytes: u64,
        /// The value of the option.
        max: u64,
    },

    /// `try_enqueue` found no room in the ring. Nothing was reserved. Use `enqueue`, which waits.
    #[error("the ring is full; use `enqueue`, which waits for room, or try again later")]
    Full,

    /// The log doesn't end where a conditional append expected it. Nothing was appended.
    ///
    /// Read the records from `expected` on, decide again, and append with the new end.
    #[error(
        "the log ends at LSN {end}, not at {expected}; read the records from {expected} on, and \
         append with the new end"
    )]
    Conflict {
        /// The end that the caller expected.
        expected: Lsn,
        /// The end of the log: the first position after its last record.
        end: Lsn,
    },

    /// The LSN is below the beginning of the log: records from there on were truncated.
    ///
    /// A consumer at this position has missed records. Start it from a snapshot, or at `first` if
    /// it can do without them. A [`Lease`](crate::Lease) prevents this.
    #[error(
        "LSN {lsn} was truncated: the log begins at LSN {first}; start from a snapshot, or at \
         {first} without the records before"
    )]
    BelowFirst {
        /// The requested LSN.
        lsn: Lsn,
        /// The first position of the log.
        first: Lsn,
    },

    /// The LSN is at or above the end of the log: nothing is there yet.
    ///
    /// Wait until the log has grown. A consumer whose checkpoint is above the end has read from
    /// another log, or read records that were not synced and that a power loss removed.
    #[error(
        "LSN {lsn} is not there yet: the log ends at LSN {end}; wait for it, or check that the \
         position is of this log"
    )]
    AboveEnd {
        /// The requested LSN.
        lsn: Lsn,
        /// The end of the log: the first position after its last record.
        end: Lsn,
    },

    /// The log was truncated at `to`, and the record was at or above it.
    ///
    /// [`Wal::truncate_after`](crate::Wal::truncate_after) did this, or the recovery of another
    /// process that writes the log. Undo everything derived from the records at or above `to`.
    /// Later appends reuse these positions.
    #[error(
        "the log was truncated at LSN {to}; undo everything derived from the records at or above it"
    )]
    Truncated {
        /// The lowest LSN that was removed.
        to: Lsn,
    },

    /// The slot has lost records: the log was truncated past its position.
    ///
    /// It was further behind than [`Slot::keep_at_most`](crate::Slot::keep_at_most) allows. Remove
    /// it, create it again, and bring the consumer up to date in another way.
    #[error(
        "slot `{name}` at LSN {position} has lost records: the log begins at LSN {first}; remove \
         it, and create it again"
    )]
    SlotLost {
        /// The name of the slot.
        name: String,
        /// Its position.
        position: Lsn,
        /// The first position of the log.
        first: Lsn,
    },

    /// A slot can't advance past the synced mark, because a power loss may remove records above it.
    /// Sync the log first.
    #[error("slot `{name}` can't advance to LSN {position}: the log is synced up to {synced}")]
    SlotAhead {
        /// The name of the slot.
        name: String,
        /// The requested position.
        position: Lsn,
        /// The synced mark.
        synced: Lsn,
    },

    /// The slot has a handle already. Drop that handle first.
    #[error("slot `{name}` is in use; drop its other handle first")]
    SlotInUse {
        /// The name of the slot.
        name: String,
    },

    /// A slot's name has 1 to 64 bytes. Nothing was changed.
    #[error("a slot's name has 1 to 64 bytes; `{name}` has {}", name.len())]
    SlotName {
        /// The name.
        name: String,
    },

    /// The log can't keep another slot. Nothing was changed. Remove slots, or raise `ring_bytes`.
    #[error(
        "the log has {slot_count} slots, and its slots may take {max_bytes} bytes, half of the ring; \
         remove slots or raise ring_bytes"
    )]
    TooManySlots {
        /// The number of slots.
        slot_count: usize,
        /// The limit in bytes.
        max_bytes: u64,
    },

    /// No record begins at this LSN. Use an LSN that `append`, `replay` or a ticket returned.
    #[error("no record begins at LSN {lsn}; use an LSN that the log returned")]
    NotABoundary {
        /// The requested LSN.
        lsn: Lsn,
    },

    /// The log stopped because an earlier write or sync failed.
    ///
    /// The content of the device above the synced mark is unknown until it is read again. Reading
    /// continues to work. Reopen the log: the recovery reports which records survived.
    #[error(fmt = write_poisoned)]
    Poisoned {
        /// The first failure.
        #[source]
        cause: Arc<Error>,
    },

    /// It is unknown whether the record becomes durable, because the log's I/O does not return.
    ///
    /// [`OnStall::FailWaiters`](crate::OnStall::FailWaiters) returns it. The record has its place
    /// in the log, and the log continues its I/O. No later record gets this LSN, unless the
    /// record is truncated. So don't append the record again. Wait for it with
    /// [`Wal::watch`](crate::Wal::watch), which a stall doesn't fail, or act as if the process had
    /// crashed.
    #[error(
        "it is unknown whether the record at LSN {lsn} becomes durable: the log's I/O does not \
         return; don't append it again, but wait until `watch` reports it as synced"
    )]
    Indeterminate {
        /// The LSN of the record that the call waited for.
        ///
        /// For a batch, that of its first record. For [`Wal::sync`](crate::Wal::sync), a sink and
        /// a truncation, the end of the records to sync.
        lsn: Lsn,
    },

    /// An I/O call of the log does not return, and this call needs it.
    ///
    /// [`OnStall::FailWaiters`](crate::OnStall::FailWaiters) returns it to calls that wait for
    /// room: nothing was appended, so try again later.
    /// [`OnStall::Stop`](crate::OnStall::Stop) makes it the cause of [`Error::Poisoned`].
    #[error(fmt = write_stalled)]
    Stalled {
        /// The directory of the log.
        directory: String,
        /// The operation that does not return.
        operation: Operation,
        /// Its file.
        file: String,
        /// How long the operation had been in flight.
        time: Duration,
    },

    /// A background job of the log panicked. The log stops. This is a defect: please report it.
    #[error("a background job of the log panicked{context}; please report it")]
    Panicked {
        /// The job.
        context: &'static str,
    },

    /// The log was closed, or the runtime that runs its I/O is gone.
    ///
    /// At worst the files are in the state of a process crash. Reopen the log.
    #[error("the log is closed: {by}")]
    Closed {
        /// The reason.
        by: ClosedBy,
    },
}
