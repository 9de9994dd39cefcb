//! [`Options`]: the settings of a log, and opening a log with them.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::runtime::Handle;

use crate::{
    error::{ClosedBy, Error, Result},
    executor::{Executor, InPlace, start},
    options::{Compression, Config, InlineSyncs, OnDamage, OnStall, Preallocation, SyncMethod},
    pipeline::LogName,
    recovery::Opening,
    retention::{Budget, OnBudget, Retention},
    storage::{FileStorage, Storage},
    wal::{handle::Wal, pool::pool, recover::Recovery},
};

/// The settings with which a log is opened.
///
/// Opening checks the values. The setters accept any value.
///
/// ```no_run
/// # async fn example() -> highwater::Result<()> {
/// use highwater::Wal;
/// let wal = Wal::options().segment_bytes(64 << 20).ring_bytes(8 << 20).open("data/log").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a log is opened with them"]
pub struct Options {
    config: Config,
    lock: bool,
    io_handle: Option<Handle>,
    /// The name of the log in its metrics.
    pub(super) log_name: LogName,
}

impl Default for Options {
    fn default() -> Self {
        let log_name = LogName::default();
        Options { config: Config::default(), lock: true, io_handle: None, log_name }
    }
}

impl Options {
    /// Sets the size of a segment file in bytes, including its header.
    ///
    /// From 8 KiB to 4 GiB; 16 MiB by default. A larger record or batch gets a larger segment.
    ///
    /// Set a smaller size to free space sooner after a truncation. Each segment costs a file. Its
    /// preparation takes the time to write the file once, in the background.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.config.segment_bytes = bytes;
        self
    }

    /// Sets the size of the ring, which holds appended bytes that are not written yet.
    ///
    /// From 1 KiB to 1 GiB; 4 MiB by default. The value is rounded down to a power of two and to
    /// half a segment. Appends wait when the ring is full. Set a larger ring if bursts of appends
    /// wait for the device. The memory of the ring is allocated when the log is opened.
    pub fn ring_bytes(mut self, bytes: u64) -> Self {
        self.config.ring_bytes = bytes;
        self
    }

    /// Sets the size of the largest record in bytes.
    ///
    /// From 1 byte to 1 GiB; 64 MiB by default. Raises
    /// [`batch_bytes_max`](Options::batch_bytes_max) to twice the value if that is lower.
    ///
    /// Reading also refuses larger records, so this bounds the memory that a read allocates.
    pub fn record_bytes_max(mut self, bytes: u64) -> Self {
        self.config.record_bytes_max = bytes;
        self.config.batch_bytes_max = self.config.batch_bytes_max.max(bytes.saturating_mul(2));
        self
    }

    /// Sets the size of the largest batch in bytes, including headers and padding.
    ///
    /// From [`record_bytes_max`](Options::record_bytes_max) to 2 GiB; 128 MiB by default.
    pub fn batch_bytes_max(mut self, bytes: u64) -> Self {
        self.config.batch_bytes_max = bytes;
        self
    }

    /// Sets how the space of new segments is prepared; [`Preallocation::Adaptive`] by default.
    ///
    /// [`Preallocation`] describes the choices and their costs.
    pub fn preallocation(mut self, preallocation: Preallocation) -> Self {
        self.config.preallocation = preallocation;
        self
    }

    /// Sets how many files of truncated segments are reused for new segments; 0 by default.
    ///
    /// Set it if [`Wal::truncate_before`] is called regularly. The log then creates and removes no
    /// files. It writes to allocated blocks and cached pages, which is much faster than to fresh
    /// ones.
    ///
    /// Each file is first overwritten with zeros, in the background. So the log writes as much as
    /// with [`Preallocation::ZeroFill`], whatever preallocation is set. The waiting files take up
    /// to `count` times [`segment_bytes`](Options::segment_bytes) of space, under the names
    /// `….wal.recycled`. They are removed when the log is closed or opened, or when there is no
    /// space for a larger segment.
    ///
    /// A file is removed instead of reused in these cases:
    ///
    /// - A reader of this process still has the file open.
    /// - The file has a second name, for example in a backup of hard links.
    /// - Its size is not that of a new segment.
    /// - The file system copies on write (btrfs, ZFS).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// use highwater::{Wal, storage::MemoryStorage};
    /// let options = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10).recycle_segments(2);
    /// let wal = options.open_with(MemoryStorage::new()).await?;
    /// for _ in 0..100 {
    ///     let lsn = wal.append_and_sync(&[7; 500]).await?;
    ///     wal.truncate_before(lsn).await?;
    /// }
    /// assert!(wal.stats().recycled_count > 0);
    /// # wal.close().await }
    /// ```
    pub fn recycle_segments(mut self, count: usize) -> Self {
        self.config.recycle_segments = count;
        self
    }

    /// Writes the time into the log about once in an interval, and at least once a segment, while
    /// records are synced; never by default.
    ///
    /// [`Wal::at_time`](crate::Wal::at_time) then finds the position of a time. Set it to find
    /// the records since some time. A mark is a record of 32
    /// bytes that rides a flush; each flush reads the clock.
    ///
    /// An interval of less than a millisecond counts as one millisecond.
    ///
    /// ```
    /// use std::time::Duration;
    /// let options = highwater::Wal::options().time_marks(Duration::from_secs(1));
    /// ```
    pub fn time_marks(mut self, interval: impl Into<Option<Duration>>) -> Self {
        let ms =
            |interval: Duration| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        self.config.time_marks_ms = interval.into().map(ms);
        self
    }

    /// Sets what opening does if durable data is damaged; [`OnDamage::Strict`] by default.
    ///
    /// `Strict` refuses to open the log. [`OnDamage`] describes the other choice and its cost.
    ///
    /// ```no_run
    /// # async fn example() -> highwater::Result<()> {
    /// use highwater::{OnDamage, Wal};
    /// let wal = Wal::options().on_damage(OnDamage::TruncateAtDamage).open("data/log").await?;
    /// if let Some(cut) = &wal.recovery().cut {
    ///     println!("{cut}");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn on_damage(mut self, on_damage: OnDamage) -> Self {
        self.config.on_damage = on_damage;
        self
    }

    /// Sets how new records are compressed; [`Compression::None`] by default.
    ///
    /// The append call compresses the record before it reserves space. It holds no lock and delays
    /// no other task. Compressing a record of many megabytes keeps the calling thread busy, so
    /// append such records from a thread that may block. Records of up to 256 KiB are expanded in
    /// the task that polls for them. Larger ones are expanded in the blocking pool that runs the
    /// log's I/O.
    ///
    /// [`record_bytes_max`](Options::record_bytes_max) and
    /// [`batch_bytes_max`](Options::batch_bytes_max) limit the uncompressed size. So a record is
    /// accepted or refused whatever its compression ratio.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }

    /// Sets the size of the smallest payload that is compressed, in bytes; 128 by default.
    ///
    /// Set it higher if attempts to compress short payloads cost time and save little.
    pub fn compression_bytes_min(mut self, bytes: u64) -> Self {
        self.config.compression_bytes_min = bytes;
        self
    }

    /// Sets the bytes up to which an append writes on the polling thread; 0 by default.
    ///
    /// This concerns appends that wait for their write, such as [`Wal::append`]. If the system can
    /// write without blocking (XFS on Linux), small writes are always made this way. On other file
    /// systems (ext4), set 4096, for example, if records are small. A write into the page cache
    /// takes about a microsecond, much less than a job of the pool.
    ///
    /// The cost: a write may wait for the device, and with it all tasks of that thread. Measured on
    /// ext4 beside a loop of flushes, 99.9 % of the writes took less than 60 µs, and 99.99 % less
    /// than 200 µs. The longest took 1.3 ms.
    ///
    /// A write that is larger, begins a segment, or finds another write in progress goes to the
    /// pool. The promises of durability do not change.
    pub fn inline_writes(mut self, bytes_max: u64) -> Self {
        self.config.inline_bytes_max = bytes_max;
        self
    }

    /// Sets whether a task that waits for a flush makes the flush itself;
    /// [`InlineSyncs::WhenAlone`] by default.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("log");
    /// use highwater::{InlineSyncs, Wal};
    /// let wal = Wal::options().inline_syncs(InlineSyncs::Always).open(&path).await?;
    /// let lsn = wal.append_and_sync("written and flushed by this thread").await?;
    /// assert!(wal.watermarks().synced > lsn);
    /// # wal.close().await }
    /// ```
    pub fn inline_syncs(mut self, which: InlineSyncs) -> Self {
        self.config.inline_syncs = which;
        self
    }

    /// Sets how a group of records is made durable; [`SyncMethod::Fdatasync`] by default.
    ///
    /// Set [`SyncMethod::Dsync`] if all records are synced in small groups and
    /// `highwater bench-fsync` suggests it. Calls of [`Wal::append`] then wait for a durable write
    /// that is in flight. If a durable write is impossible, the log flushes as by default.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("log");
    /// use highwater::{SyncMethod, Wal};
    /// let wal = Wal::options().sync_method(SyncMethod::Dsync).open(&path).await?;
    /// let lsn = wal.append_and_sync("one call writes it and makes it durable").await?;
    /// assert!(wal.watermarks().synced > lsn);
    /// # wal.close().await }
    /// ```
    pub fn sync_method(mut self, method: SyncMethod) -> Self {
        self.config.sync_method = method;
        self
    }

    /// Sets the Unix permissions of the files that the log creates; `0o600` by default.
    ///
    /// With the default, only the user of the process can read the records. Set `0o640`, for
    /// example, if the members of a group read the log with a [`Reader`](crate::Reader). New
    /// directories can then be entered by the same users (`0o750`). The umask of the process
    /// applies to both.
    ///
    /// Existing files and directories keep their permissions. Copies get the permissions set here.
    /// The option has no effect on Windows and with [`open_with`](Options::open_with).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("log");
    /// let wal = highwater::Wal::options().file_mode(0o640).open(&path).await?;
    /// # wal.close().await }
    /// ```
    pub fn file_mode(mut self, mode: u32) -> Self {
        self.config.file_mode = mode;
        self
    }

    /// Sets the time after which an I/O call that has not returned is a stall; 1 second by default.
    ///
    /// From 1 ms to one day. A stall is reported while it lasts: by [`Wal::health`], by
    /// [`Stats`](crate::Stats), and by a `tracing` event of level `WARN`. It is noticed at most
    /// half as late again. A flush that took this long is also reported when it has returned.
    ///
    /// Set it higher for a device that is slow by nature. While a log has calls in flight, and
    /// for about a second after the last one, one thread of the process watches all logs. The
    /// thread measures real time, also while tokio's clock is paused. A log whose storage
    /// [never blocks](crate::storage::Storage::is_nonblocking) is not watched.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("log");
    /// use std::time::Duration;
    /// let wal = highwater::Wal::options().stall_after(Duration::from_secs(5)).open(&path).await?;
    /// # wal.close().await }
    /// ```
    pub fn stall_after(mut self, time: Duration) -> Self {
        self.config.stall_after = time;
        self
    }

    /// Sets what the log does during a stall; [`OnStall::Report`] by default.
    ///
    /// Set [`OnStall::FailWaiters`] if callers can act on a disk that hangs, for instance hand
    /// their work to another machine. Set [`OnStall::Stop`] if only a restart helps. [`OnStall`]
    /// describes the choices.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("log");
    /// use std::time::Duration;
    /// use highwater::{OnStall, Wal};
    /// let policy = OnStall::FailWaiters { after: Duration::from_secs(10) };
    /// let wal = Wal::options().on_stall(policy).open(&path).await?;
    /// # wal.close().await }
    /// ```
    pub fn on_stall(mut self, on_stall: OnStall) -> Self {
        self.config.on_stall = on_stall;
        self
    }

    /// Sets how much of the log is kept. By default, everything is, until
    /// [`Wal::truncate_before`](crate::Wal::truncate_before) drops it.
    ///
    /// The log decides with a flush after a segment was begun, and for
    /// [`Retention::age`](crate::Retention::age) with the first flush that comes late enough. So
    /// an idle log drops nothing: call [`Wal::apply_retention`](crate::Wal::apply_retention) by a
    /// timer if it must. Files are removed in the background.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// use highwater::{Retention, Wal, storage::MemoryStorage};
    ///
    /// let options = Wal::options().segment_bytes(8 << 10);
    /// let options = options.retention(Retention::default().bytes(16 << 10));
    /// let wal = options.open_with(MemoryStorage::new()).await?;
    /// for _ in 0..1000 {
    ///     wal.append_and_sync(&[0; 100]).await?;
    /// }
    /// assert!(wal.watermarks().first.as_u64() > 0, "the oldest segments are dropped");
    /// # wal.close().await }
    /// ```
    pub fn retention(mut self, retention: Retention) -> Self {
        self.config.retention = retention;
        self
    }

    /// Sets the most bytes that the files of the log take, and what happens to an append that
    /// needs more. By default there is no limit but the disk.
    ///
    /// At least three times [`segment_bytes`](Options::segment_bytes). All segments count in full,
    /// also the newest and the prepared one, and the files that
    /// [`recycle_segments`](Options::recycle_segments) keeps. Other files in the directory do not
    /// count, such as files that a repair set aside. The log may exceed the budget by one segment
    /// for a moment, if it can't record a truncation otherwise.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// use highwater::{Error, OnBudget, Wal, storage::MemoryStorage};
    ///
    /// let options = Wal::options().segment_bytes(8 << 10);
    /// let options = options.budget(24 << 10, OnBudget::Refuse);
    /// let wal = options.open_with(MemoryStorage::new()).await?;
    /// let refused = loop {
    ///     if let Err(error) = wal.append_and_sync(&[0; 100]).await {
    ///         break error;
    ///     }
    /// };
    /// assert!(matches!(refused, Error::OverBudget { .. }));
    ///
    /// wal.truncate_before(wal.watermarks().synced).await?;
    /// wal.append_and_sync(&[0; 100]).await?;
    /// # wal.close().await }
    /// ```
    pub fn budget(mut self, bytes: u64, when_used_up: OnBudget) -> Self {
        self.config.budget = Some(Budget { bytes, when_used_up });
        self
    }

    /// Returns whether the log may drop records without a call.
    #[cfg(feature = "raft")]
    pub(crate) fn drops_by_itself(&self) -> bool {
        let budget = self.config.budget.map(|budget| budget.when_used_up);
        !self.config.retention.is_off() || budget == Some(OnBudget::DropOldest)
    }

    /// Returns whether opening may cut durable data.
    #[cfg(feature = "raft")]
    pub(crate) fn cuts_damage(&self) -> bool {
        self.config.on_damage != OnDamage::Strict
    }

    /// Sets whether opening takes the lock that excludes a second writer; `true` by default.
    ///
    /// Two writers destroy a log. Set `false` only if another mechanism excludes the second one.
    pub fn lock(mut self, lock: bool) -> Self {
        self.lock = lock;
        self
    }

    /// Sets the runtime whose blocking pool runs the log's I/O.
    ///
    /// By default, this is the runtime that opens the log. Set it if other blocking work must not
    /// delay the log. Set it also if threads of the blocking pool wait for the log, such as
    /// `spawn_blocking` tasks that call `block_on` of an append. If all threads of the pool wait,
    /// the log's jobs never run. A second runtime with one worker thread is enough.
    ///
    /// When that runtime is shut down, the log stops as if its process had ended.
    ///
    /// ```
    /// # fn main() -> highwater::Result<()> {
    /// use tokio::runtime::Builder;
    ///
    /// let io = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    /// let callers = Builder::new_multi_thread().max_blocking_threads(1).build().unwrap();
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("log");
    /// callers.block_on(async {
    ///     let wal = highwater::Wal::options().io_handle(io.handle().clone()).open(path).await?;
    ///     let handle = tokio::runtime::Handle::current();
    ///     let append = move || handle.block_on(wal.append_and_sync("from a blocking thread"));
    ///     tokio::task::spawn_blocking(append).await.unwrap()
    /// })?;
    /// # Ok(()) }
    /// ```
    pub fn io_handle(mut self, handle: Handle) -> Self {
        self.io_handle = Some(handle);
        self
    }

    /// Promotes a standby when it is opened: the log continues in `epoch`, which
    /// [`next_term`](crate::shipping::next_term) returned. For `highwater-replicate`.
    #[doc(hidden)]
    pub fn promote_to(mut self, epoch: u64) -> Self {
        self.config.promote_to = Some(epoch);
        self
    }

    /// Opens the log in `directory`. Creates the directory and the log if they do not exist.
    ///
    /// # Errors
    ///
    /// An error leaves the log unchanged.
    ///
    /// - [`Error::InvalidOption`] if a setting is out of its range.
    /// - [`Error::NotALog`] if the directory holds other files and no log.
    /// - [`Error::Locked`] if the log is open elsewhere.
    /// - [`Error::Corrupt`] if durable data is damaged.
    /// - [`Error::UnsupportedVersion`], [`Error::UnsupportedFrame`] if a later release wrote the
    ///   log.
    /// - [`Error::NoSpace`], [`Error::Io`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the log can be opened again as soon as the running step has ended.
    pub async fn open(self, directory: impl AsRef<Path>) -> Result<Wal> {
        self.recover(directory).await?.into_wal().await
    }

    /// Opens the log in `storage`, and creates the log if it does not exist.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    ///
    /// # Cancel safety
    ///
    /// As [`Options::open`].
    pub async fn open_with(self, storage: impl Storage) -> Result<Wal> {
        self.recover_with(storage).await?.into_wal().await
    }

    /// As [`Wal::recover`], with these settings.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future changes nothing in the log.
    pub async fn recover(self, directory: impl AsRef<Path>) -> Result<Recovery> {
        let config = self.config.check()?;
        let directory = directory.as_ref().to_path_buf();
        let executor = pool(self.io_handle.as_ref())?;
        let lock = self.lock;
        let begun = start(executor.as_ref(), move || {
            let storage = FileStorage::create_with_mode(&directory, config.file_mode)?;
            Opening::begin(Arc::new(storage), config, lock)
        });
        let opening = begun.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })??;
        Ok(Recovery::new(opening, executor, self.log_name))
    }

    /// As [`Options::recover`], for the log in `storage`.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future changes nothing in the log.
    pub async fn recover_with(self, storage: impl Storage) -> Result<Recovery> {
        let config = self.config.check()?;
        let executor: Arc<dyn Executor> = if storage.is_nonblocking() {
            Arc::new(InPlace)
        } else {
            pool(self.io_handle.as_ref())?
        };
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let lock = self.lock;
        let begun = start(executor.as_ref(), move || Opening::begin(storage, config, lock));
        let opening = begun.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })??;
        Ok(Recovery::new(opening, executor, self.log_name))
    }
}

impl Wal {
    /// Opens the log in `directory` with the default settings. Creates the log if it does not
    /// exist.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    ///
    /// # Cancel safety
    ///
    /// As [`Options::open`].
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Options::default().open(directory).await
    }

    /// Returns the default settings, to change them and open a log.
    pub fn options() -> Options {
        Options::default()
    }

    /// Opens the log in `directory` as a stream of records that becomes the writer.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future changes nothing in the log.
    pub async fn recover(directory: impl AsRef<Path>) -> Result<Recovery> {
        Options::default().recover(directory).await
    }
}
