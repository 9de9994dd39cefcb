//! The settings of a log. They are checked once, before a file is touched.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    error::{Error, Result},
    retention::{Budget, Retention},
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// How the log prepares the space of a new segment.
///
/// On ext4, a durable commit of 256 bytes costs about half as much in prepared space as in a file
/// that grows with each append. The reason is that the file's metadata no longer changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preallocation {
    /// [`ZeroFill`](Preallocation::ZeroFill), unless flushes covered 256 KiB or more on average in
    /// the last segment. The next segment is then only reserved, because zeros would cost more than
    /// they save. The default.
    #[default]
    Adaptive,
    /// Writes zeros ahead of need, in the background. Commits are fastest; the device writes nearly
    /// twice the bytes.
    ///
    /// On a file system that copies on write (btrfs, bcachefs, ZFS, F2FS, APFS) the space is only
    /// reserved. Zeros are useless there, because records get other blocks.
    ZeroFill,
    /// Reserves the blocks (`fallocate`) if the file system can. No extra bytes are written. The
    /// first commit into each part of the space also commits the file system's journal.
    Reserve,
    /// Only sets the length of the file, which is sparse. A full disk is then noticed by a failed
    /// write, which poisons the log.
    Sparse,
}

/// How opening a log treats damage to durable data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDamage {
    /// Refuses with [`Error::Corrupt`] and changes nothing. The default, because acknowledged
    /// records are lost and a person must decide what to do.
    #[default]
    Strict,
    /// Cuts the log at the first damage and keeps a copy of the cut bytes.
    ///
    /// Opening then reads the whole log, so that no damage stays in the log. All bytes before the
    /// first damage stay unchanged. Everything after it moves to files named `….wal.cut`, intact
    /// records included. A manifest (`….cut.manifest`) lists the cut bytes, the reason and the
    /// place. If the oldest segment is missing, the log is cut at its beginning. The LSNs after the
    /// cut are used again, in a higher epoch. A read error, a record of a later release, or a
    /// record above `record_bytes_max` cuts nothing: opening then refuses, as with `Strict`.
    TruncateAtDamage,
}

/// Whether a task that waits for a flush makes the flush itself, on its own thread.
///
/// This concerns [`Wal::append_and_sync`](crate::Wal::append_and_sync),
/// [`Wal::sync`](crate::Wal::sync) and [`Ticket::synced`](crate::Ticket::synced). The other choice
/// is a job of the blocking pool. On a fast device the trip to the pool and back takes a quarter of
/// the time of a single commit. The promises of durability are the same.
///
/// A task that flushes does nothing else meanwhile: a timeout around the commit, or another branch
/// of a `select`, has to wait for the flush. On a device that hangs, this lasts as long as the
/// device hangs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InlineSyncs {
    /// The pool makes all flushes. Choose it if every commit has a timeout that must be exact.
    Never,
    /// A task flushes itself while it is the only one that commits, and other tasks are not
    /// delayed. The default.
    ///
    /// The task must run on a worker of a multi-thread runtime. Its flush runs within
    /// [`block_in_place`](tokio::task::block_in_place), so the worker's other tasks move to another
    /// thread. They have to wait if all threads of the blocking pool are busy.
    ///
    /// The pool flushes in the following cases: on a `current_thread` runtime, in a `LocalSet`,
    /// directly in `block_on`, if flushes take more than 1 ms, if the pool turns out to be faster,
    /// in programs built with `panic = "abort"`, and with any [`OnStall`] but
    /// [`Report`](OnStall::Report).
    #[default]
    WhenAlone,
    /// Every task that waits flushes itself, unless a flush is in progress.
    ///
    /// The thread blocks for the time of a flush, usually 0.1 ms and sometimes many milliseconds.
    /// Everything else on that thread waits. Choose it for threads that may block. Examples are one
    /// runtime thread per core with little other work, and a commit loop under `block_on` on a
    /// dedicated thread.
    ///
    /// Before the flush, the task yields once, so that commits of other tasks on the thread share
    /// the flush. A task that keeps committing alone yields only before every 4th flush. Records
    /// that are appended during the flush are flushed by the pool.
    Always,
}

/// How the log makes a group of records durable.
///
/// All methods give the same guarantees. `highwater bench-fsync` measures both on a disk, and
/// suggests one. There is no method that bypasses the page cache (`O_DIRECT`): `docs/DURABILITY.md`
/// gives the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncMethod {
    /// Writes the group, then flushes its file: `fdatasync` on Linux. The default.
    #[default]
    Fdatasync,
    /// Writes a small group with one call that returns when the bytes are durable: `pwritev2` with
    /// `RWF_DSYNC` on Linux. It saves a system call for each group.
    ///
    /// The log does so if a task waits for the flush, and the group is all that is unsynced and has
    /// at most 64 KiB. It writes and flushes as with `Fdatasync` after other writes (`append`,
    /// `enqueue`), in a segment's first flush, on other systems, and on a storage without
    /// [`write_at_durably`](crate::storage::StorageFile::write_at_durably).
    ///
    /// It costs concurrency: a call of [`append`](crate::Wal::append) during the durable write
    /// waits for it. So choose it for logs whose records are all synced one by one or in small
    /// groups, and if `bench-fsync` shows a gain. The file system must honour `RWF_DSYNC`, as ext4,
    /// XFS and btrfs do.
    Dsync,
}

/// The reaction of the log to an I/O call that does not return.
///
/// The call is a write, a flush or the preparation of the next segment's file. A call that removes
/// a file delays no append and counts only for [`Wal::health`](crate::Wal::health).
///
/// In all cases the log keeps the call: it never begins a second one beside it, and it frees the
/// lock of its directory only when the call has returned.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use std::time::Duration;
/// use highwater::{OnStall, Wal, storage::MemoryStorage};
///
/// let policy = OnStall::FailWaiters { after: Duration::from_secs(10) };
/// let wal = Wal::options().on_stall(policy).open_with(MemoryStorage::new()).await?;
/// # wal.close().await }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnStall {
    /// Reports the stall, and lets callers wait until the call returns. The default.
    #[default]
    Report,
    /// Also fails the calls that wait for the I/O, once it has been in flight for `after`.
    ///
    /// A call that waits for a record gets [`Error::Indeterminate`]: the record may still become
    /// durable. A call that waits for room gets [`Error::Stalled`]: nothing was appended. New
    /// calls get these errors at once. When the I/O returns, everything works again.
    FailWaiters {
        /// From [`stall_after`](crate::Options::stall_after) to one day.
        after: Duration,
    },
    /// Also stops the log, once an I/O call has been in flight for `after`.
    ///
    /// Every caller gets [`Error::Poisoned`] with the cause [`Error::Stalled`].
    Stop {
        /// From [`stall_after`](crate::Options::stall_after) to one day.
        after: Duration,
    },
}

impl OnStall {
    fn after(self) -> Option<Duration> {
        match self {
            OnStall::Report => None,
            OnStall::FailWaiters { after } | OnStall::Stop { after } => Some(after),
        }
    }
}

/// How new records are compressed. Each record is compressed by itself.
///
/// A record is compressed if its payload has at least
/// [`compression_bytes_min`](crate::Options::compression_bytes_min) bytes and its frame gets
/// shorter. The option affects new records only: records that were written in another way stay
/// readable. Reading needs the cargo feature of the codec, not this option.
///
/// ```
/// # #[cfg(feature = "lz4")]
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use futures::TryStreamExt;
/// use highwater::{Compression, Wal, storage::MemoryStorage};
///
/// let options = Wal::options().compression(Compression::Lz4);
/// let wal = options.open_with(MemoryStorage::new()).await?;
/// let lsn = wal.append(vec![b'a'; 4096]).await?;
/// assert!(wal.watermarks().reserved.as_u64() < 100, "bytes taken in the log");
/// let record = wal.replay(lsn..).try_next().await?.expect("the record");
/// assert_eq!(record.payload, vec![b'a'; 4096]);
/// # Ok(()) }
/// # #[cfg(not(feature = "lz4"))]
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Records are not compressed. The default.
    #[default]
    None,
    /// LZ4, in pure Rust. Faster than Zstandard.
    #[cfg(feature = "lz4")]
    Lz4,
    /// Zstandard, by its C library. Smaller and slower than LZ4. Each thread that appends keeps a
    /// context; a higher level needs a larger one.
    #[cfg(feature = "zstd")]
    Zstd {
        /// From 1 (fastest) to 22 (smallest). The library's own default is 3.
        level: u8,
    },
}

/// The default mode of new files. Only the user can read them, because records may be private.
pub(crate) const FILE_MODE: u32 = 0o600;
const FILE_MODE_BITS: u32 = 0o666;

/// The settings, checked, as the layers below the handle use them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) segment_bytes: u64,
    pub(crate) ring_bytes: u64,
    pub(crate) record_bytes_max: u64,
    pub(crate) batch_bytes_max: u64,
    pub(crate) preallocation: Preallocation,
    /// How many files of dropped segments are kept for reuse.
    pub(crate) recycle_segments: usize,
    pub(crate) on_damage: OnDamage,
    pub(crate) compression: Compression,
    /// Payloads below this are not compressed.
    pub(crate) compression_bytes_min: u64,
    /// The size up to which an append is written by its own task. The write may block.
    pub(crate) inline_bytes_max: u64,
    pub(crate) inline_syncs: InlineSyncs,
    pub(crate) sync_method: SyncMethod,
    /// The interval of time marks; `None` for no marks.
    pub(crate) time_marks_ms: Option<u64>,
    /// The permissions of new files, on Unix.
    pub(crate) file_mode: u32,
    /// An I/O call that has been in flight for this long is a stall.
    pub(crate) stall_after: Duration,
    pub(crate) on_stall: OnStall,
    pub(crate) retention: Retention,
    /// `None` for no limit.
    pub(crate) budget: Option<Budget>,
    /// Set to promote a standby: the epoch in which the log continues.
    pub(crate) promote_to: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            segment_bytes: 16 * MIB,
            ring_bytes: 4 * MIB,
            record_bytes_max: 64 * MIB,
            batch_bytes_max: 128 * MIB,
            preallocation: Preallocation::default(),
            recycle_segments: 0,
            on_damage: OnDamage::default(),
            compression: Compression::default(),
            compression_bytes_min: 128,
            inline_bytes_max: 0,
            inline_syncs: InlineSyncs::default(),
            sync_method: SyncMethod::default(),
            time_marks_ms: None,
            file_mode: FILE_MODE,
            stall_after: Duration::from_secs(1),
            on_stall: OnStall::default(),
            retention: Retention::default(),
            budget: None,
            promote_to: None,
        }
    }
}

/// At least two blocks, so that frames fit after the header. The maximum bounds the scan of one
/// segment.
const SEGMENT_BYTES: RangeInclusive<u64> = 8 * KIB..=4 << 30;
const RING_BYTES: RangeInclusive<u64> = KIB..=1 << 30;
/// The length field of a frame allows more. One GiB keeps every sum far below 32 bits.
const RECORD_BYTES: RangeInclusive<u64> = 1..=RECORD_BYTES_LIMIT;
const STALL_AFTER: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest record of any release, whatever its options.
pub(crate) const RECORD_BYTES_LIMIT: u64 = 1 << 30;

impl Config {
    /// # Errors
    ///
    /// `InvalidOption`, with the first option that is not usable.
    pub(crate) fn check(mut self) -> Result<Self> {
        let limits = [
            ("segment_bytes", self.segment_bytes, SEGMENT_BYTES, "from 8 KiB to 4 GiB"),
            ("ring_bytes", self.ring_bytes, RING_BYTES, "from 1 KiB to 1 GiB"),
            ("record_bytes_max", self.record_bytes_max, RECORD_BYTES, "from 1 byte to 1 GiB"),
        ];
        for (option, value, range, reason) in limits {
            if !range.contains(&value) {
                return Err(Error::InvalidOption { option, value, reason });
            }
        }
        if self.batch_bytes_max < self.record_bytes_max || self.batch_bytes_max > 2 << 30 {
            return Err(Error::InvalidOption {
                option: "batch_bytes_max",
                value: self.batch_bytes_max,
                reason: "from record_bytes_max to 2 GiB",
            });
        }
        if self.file_mode & FILE_MODE != FILE_MODE || self.file_mode & !FILE_MODE_BITS != 0 {
            return Err(Error::InvalidOption {
                option: "file_mode",
                value: u64::from(self.file_mode),
                reason: "permissions to read and write, 0o600 among them",
            });
        }
        #[cfg(feature = "zstd")]
        if let Compression::Zstd { level } = self.compression {
            if !(1..=22).contains(&level) {
                let (option, value) = ("compression", u64::from(level));
                return Err(Error::InvalidOption { option, value, reason: "a level from 1 to 22" });
            }
        }
        self.check_stalls()?;
        // A segment ends on a sector of 512 bytes.
        self.segment_bytes = self.segment_bytes.next_multiple_of(512);
        match self.budget {
            Some(Budget { bytes, .. }) if bytes < 3 * self.segment_bytes => {
                let (option, value) = ("budget", bytes);
                // The newest segment, the one before it until its flush, and the next.
                let reason = "at least three times segment_bytes";
                Err(Error::InvalidOption { option, value, reason })
            }
            _ => Ok(self),
        }
    }

    /// Returns who flushes. A task that flushes can't return when a stall is to fail its call.
    pub(crate) fn inline_syncs(&self) -> InlineSyncs {
        match self.on_stall {
            _ if self.inline_syncs != InlineSyncs::WhenAlone => self.inline_syncs,
            OnStall::Report => InlineSyncs::WhenAlone,
            OnStall::FailWaiters { .. } | OnStall::Stop { .. } => InlineSyncs::Never,
        }
    }

    fn check_stalls(&self) -> Result<()> {
        let value = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if !STALL_AFTER.contains(&self.stall_after) {
            let (option, value) = ("stall_after", value(self.stall_after));
            return Err(Error::InvalidOption { option, value, reason: "from 1 ms to one day" });
        }
        match self.on_stall.after() {
            Some(after) if after < self.stall_after || after > DAY => Err(Error::InvalidOption {
                option: "on_stall",
                value: value(after),
                reason: "`after` (in ms) from stall_after to one day",
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::OnBudget;

    #[test]
    fn config_check_passes_defaults_and_names_bad_options() {
        assert!(Config::default().check().is_ok());
        let absurd = [
            Config { segment_bytes: 0, ..Config::default() },
            Config { segment_bytes: u64::MAX, ..Config::default() },
            Config { ring_bytes: 0, ..Config::default() },
            Config { ring_bytes: u64::MAX, ..Config::default() },
            Config { record_bytes_max: 0, ..Config::default() },
            Config { record_bytes_max: u64::MAX, ..Config::default() },
            Config { batch_bytes_max: 0, ..Config::default() },
            Config { batch_bytes_max: u64::MAX, ..Config::default() },
            Config { file_mode: 0o440, ..Config::default() },
            Config { file_mode: 0o700, ..Config::default() },
            Config { file_mode: u32::MAX, ..Config::default() },
            Config { stall_after: Duration::ZERO, ..Config::default() },
            Config { stall_after: Duration::MAX, ..Config::default() },
            Config {
                on_stall: OnStall::Stop { after: Duration::from_millis(999) },
                ..Config::default()
            },
            Config { on_stall: OnStall::FailWaiters { after: Duration::MAX }, ..Config::default() },
            Config {
                budget: Some(Budget { bytes: 48 * MIB - 1, when_used_up: OnBudget::Wait }),
                ..Config::default()
            },
        ];
        for config in absurd {
            assert!(matches!(config.check(), Err(Error::InvalidOption { .. })), "{config:?}");
        }
    }
}
