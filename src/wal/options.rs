//! Opening a log with settings of one's own.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::runtime::Handle;

use crate::{
    error::{Error, Result},
    executor::{Executor, InPlace, start},
    options::{Compression, Config, OnDamage, Preallocation},
    recovery::Opening,
    storage::{FileStorage, Storage},
    wal::{handle::Wal, pool::pool, recover::Recovery},
};

/// The settings with which a log is opened. Nothing is checked or touched before it is.
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
}

impl Default for Options {
    fn default() -> Self {
        Options { config: Config::default(), lock: true, io_handle: None }
    }
}

impl Options {
    /// The size of a segment file in bytes, its header included. From 8 KiB to 4 GiB; 16 MiB by
    /// default. A larger unit gets a segment of its own.
    ///
    /// Smaller segments give space back sooner and cost a file each; preparing one takes the time
    /// to write it once, in the background.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.config.segment_bytes = bytes;
        self
    }

    /// How many bytes of records may be on their way to the file. From 1 KiB to 1 GiB, rounded
    /// down to a power of two and to half a segment; 4 MiB by default.
    ///
    /// The memory is taken when the log is opened. Appends wait when the ring is full.
    pub fn ring_bytes(mut self, bytes: u64) -> Self {
        self.config.ring_bytes = bytes;
        self
    }

    /// The largest record, in bytes. From 1 byte to 1 GiB; 64 MiB by default. Raises
    /// [`batch_bytes_max`](Options::batch_bytes_max) to twice as much if that is lower.
    ///
    /// Reading refuses records above it too, so that no length makes it allocate more.
    pub fn record_bytes_max(mut self, bytes: u64) -> Self {
        self.config.record_bytes_max = bytes;
        self.config.batch_bytes_max = self.config.batch_bytes_max.max(bytes.saturating_mul(2));
        self
    }

    /// The largest batch, in bytes, headers and padding included. From
    /// [`record_bytes_max`](Options::record_bytes_max) to 2 GiB; 128 MiB by default.
    pub fn batch_bytes_max(mut self, bytes: u64) -> Self {
        self.config.batch_bytes_max = bytes;
        self
    }

    /// How the space of new segments is prepared; [`Preallocation::Adaptive`] by default.
    pub fn preallocation(mut self, preallocation: Preallocation) -> Self {
        self.config.preallocation = preallocation;
        self
    }

    /// How many files of segments that [`Wal::truncate_before`] drops are kept, to be segments again;
    /// 0 by default: they are removed.
    ///
    /// A log whose beginning follows its end then creates and removes no files. What it writes goes
    /// to blocks that are allocated and to pages that are cached, and that is much quicker than fresh
    /// ones. A file is overwritten with zeros first, in the background, so this writes as much as
    /// [`Preallocation::ZeroFill`] does, also with another preallocation.
    ///
    /// Kept files take `count` times [`segment_bytes`](Options::segment_bytes) of space at most, until
    /// the log is closed or opened again, and give it back when a larger segment finds none. A file
    /// that somebody still reads, or that has a second name (a backup of hard links), is removed
    /// instead, and so is one of another size. Each waits under a name of its own, `….wal.recycled`.
    /// On Windows all are removed.
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

    /// What opening does about damage to what was durable; [`OnDamage::Strict`] by default, which
    /// refuses.
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

    /// How new records are compressed; [`Compression::None`] by default.
    ///
    /// It is done by whoever appends, in the call and before anything is ordered: no lock is held
    /// and nobody else waits for it, but a record of many megabytes keeps its task, and with it a
    /// thread of the runtime, busy for as long as it takes. Append such records from a thread that
    /// may block. Reading expands records of up to 256 KiB where they are polled for, and larger
    /// ones in the pool that does the log's I/O.
    ///
    /// [`record_bytes_max`](Options::record_bytes_max) and
    /// [`batch_bytes_max`](Options::batch_bytes_max) are about records as they are, not as they
    /// are stored: what is taken doesn't depend on how well it compresses.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }

    /// The smallest payload that is compressed, in bytes; 128 by default. Shorter ones hardly
    /// shrink, and an attempt takes time.
    pub fn compression_bytes_min(mut self, bytes: u64) -> Self {
        self.config.compression_bytes_min = bytes;
        self
    }

    /// Up to how many bytes an append that waits for its write, such as [`Wal::append`], writes itself,
    /// on the thread of the runtime that polls it, although the call may wait for the device. From 0,
    /// the default, up.
    ///
    /// Where the system can promise not to wait (XFS on Linux) small writes are done so anyway. Where
    /// it can't (ext4), a write into the page cache takes about a microsecond, far less than the trip
    /// to the pool, but now and then it waits for the device, and with it all tasks of that thread.
    /// Measured on ext4 beside a loop of flushes: 99.9 % of the writes took less than 60 µs, 99.99 %
    /// less than 200 µs, the longest 1.3 ms. With 4096, say, a log whose records are small has its
    /// appends in a microsecond. What is large, begins a segment or finds somebody else writing goes
    /// to the pool as ever. It changes nothing about what is durable when.
    pub fn inline_writes(mut self, bytes_max: u64) -> Self {
        self.config.inline_bytes_max = bytes_max;
        self
    }

    /// Whether a task that waits for a flush, in [`Wal::append_and_sync`], [`Wal::sync`] or
    /// [`Ticket::synced`](crate::Ticket::synced), does it itself if nobody is at it, on the thread of the
    /// runtime that polls it; `false` by default.
    ///
    /// The trip to the blocking pool and back is a fifth of a lone commit's time on a fast device. The
    /// price is that thread, which stands still for the time of a flush, usually a tenth of a
    /// millisecond, sometimes many; and with it everything else that its task waits for, a timeout
    /// around the commit too. So it is for threads that may wait: one runtime thread per core with
    /// little else to do, a commit loop under `block_on` on a thread of its own. Other tasks of the
    /// thread go first, once, so their commits share the flush (a task that has been alone lets them
    /// at every fourth commit only); what comes while it runs is left to the pool. It changes nothing
    /// about what is durable when.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("log");
    /// let wal = highwater::Wal::options().inline_syncs(true).open(&path).await?;
    /// let lsn = wal.append_and_sync("written and flushed by this thread").await?;
    /// assert!(wal.watermarks().synced > lsn);
    /// # wal.close().await }
    /// ```
    pub fn inline_syncs(mut self, inline: bool) -> Self {
        self.config.inline_syncs = inline;
        self
    }

    /// Whether opening may give up what was durable.
    #[cfg(feature = "raft")]
    pub(crate) fn cuts_damage(&self) -> bool {
        self.config.on_damage != OnDamage::Strict
    }

    /// Whether to take the lock that keeps a second writer out; `true` by default. Two writers on
    /// one log destroy it: turn it off only where something else keeps them apart.
    pub fn lock(mut self, lock: bool) -> Self {
        self.lock = lock;
        self
    }

    /// The runtime whose blocking pool runs the log's I/O; by default the one that opens it.
    ///
    /// A log on a pool of its own is never delayed by other blocking work. When that runtime is
    /// shut down, the log is closed as by the end of its process.
    pub fn io_handle(mut self, handle: Handle) -> Self {
        self.io_handle = Some(handle);
        self
    }

    /// Opens the log in `directory`, creating both if they aren't there.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`], [`Error::NotALog`], [`Error::Locked`],
    /// [`Error::UnsupportedVersion`] and [`Error::UnsupportedFrame`], [`Error::Corrupt`] if durable
    /// data is damaged, [`Error::NoSpace`], [`Error::Io`]. After any of them the log is as it was.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves a log that can be opened again, at once or as soon as the step
    /// that was running has ended.
    pub async fn open(self, directory: impl AsRef<Path>) -> Result<Wal> {
        self.recover(directory).await?.into_wal().await
    }

    /// Opens the log in any storage.
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
    /// Dropping the future changes nothing.
    pub async fn recover(self, directory: impl AsRef<Path>) -> Result<Recovery> {
        let config = self.config.check()?;
        let directory = directory.as_ref().to_path_buf();
        let executor = pool(self.io_handle.as_ref())?;
        let lock = self.lock;
        let begun = start(executor.as_ref(), move || {
            let storage = create_storage(&directory)?;
            Opening::begin(storage, config, lock)
        });
        let opening = begun.await.map_err(|_| Error::Closed { reason: RUNTIME_GONE })??;
        Ok(Recovery::new(opening, executor))
    }

    /// As [`Wal::recover`], in any storage.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
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
        let opening = begun.await.map_err(|_| Error::Closed { reason: RUNTIME_GONE })??;
        Ok(Recovery::new(opening, executor))
    }
}

pub(crate) const RUNTIME_GONE: &str = "the runtime that runs its I/O is gone";

fn create_storage(directory: &PathBuf) -> Result<Arc<dyn Storage>> {
    match FileStorage::create(directory) {
        Ok(storage) => Ok(Arc::new(storage)),
        Err(error) => {
            Err(Error::io("opening directory", directory.display().to_string(), None, error))
        }
    }
}
