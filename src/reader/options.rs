//! [`ReaderOptions`]: the settings of a reader, and opening a reader with them.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::runtime::Handle;

use crate::{
    error::{ClosedBy, Error, Result},
    executor::{Executor, InPlace, start},
    options::Config,
    reader::{clock::Clock, handle::Reader, salvage::Salvage, view::judge},
    storage::{ReadOnlyDirectory, Storage},
    wal::pool,
};

/// The largest record that any log may hold.
const RECORD_BYTES_MAX: u64 = 1 << 30;
const INTERVAL_MIN: Duration = Duration::from_millis(1);
const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
const INTERVAL: Duration = Duration::from_millis(20);

/// The settings with which a log is opened for reading.
///
/// ```no_run
/// # async fn example() -> highwater::Result<()> {
/// use std::time::Duration;
/// use highwater::Reader;
/// let options = Reader::options().poll_interval(Duration::from_millis(5));
/// let reader = options.open("data/log").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a log is opened with them"]
pub struct ReaderOptions {
    shows_written: bool,
    interval: Duration,
    uses_runtime_clock: bool,
    record_bytes_max: u64,
    io_handle: Option<Handle>,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        ReaderOptions {
            shows_written: false,
            interval: INTERVAL,
            uses_runtime_clock: false,
            record_bytes_max: RECORD_BYTES_MAX,
            io_handle: None,
        }
    }
}

impl ReaderOptions {
    /// Sets whether intact records that may not be synced are also shown; `false` by default.
    ///
    /// Set it to see records one flush earlier. **Such records may be lost by a power loss**, and
    /// others may take their LSNs. A follower that has yielded a replaced record gets
    /// [`Error::Truncated`].
    pub fn written(mut self, written: bool) -> Self {
        self.shows_written = written;
        self
    }

    /// Sets how often a follower reads the files when it has yielded all records.
    ///
    /// From 1 ms to an hour; 20 ms by default. Set it lower for less delay. Reading a log that has
    /// not grown costs a few system calls, for any number of segments. It reads 4 KiB at the end
    /// and the times of the directory.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets whether followers wait with tokio's timer instead of a thread; `false` by default.
    ///
    /// Set it in tests that pause tokio's clock. The thread measures real time, so a timeout around
    /// a follower ends immediately in such a test. The runtime that polls the follower must have
    /// its time driver enabled, otherwise tokio panics.
    pub fn runtime_clock(mut self, uses_runtime_clock: bool) -> Self {
        self.uses_runtime_clock = uses_runtime_clock;
        self
    }

    /// Sets the size of the largest record that is read, in bytes.
    ///
    /// From 1 byte to 1 GiB, which is the default. Set it lower to bound the memory that a read
    /// allocates.
    pub fn record_bytes_max(mut self, bytes: u64) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// Sets the runtime whose blocking pool reads the files.
    ///
    /// By default, this is the runtime that opens the reader. Set it if other blocking work must
    /// not delay the reader.
    pub fn io_handle(mut self, handle: Handle) -> Self {
        self.io_handle = Some(handle);
        self
    }

    /// Opens the log in `directory` for reading, with these settings.
    ///
    /// # Errors
    ///
    /// Those of [`Reader::open`], and [`Error::InvalidOption`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future has no effect.
    pub async fn open(self, directory: impl AsRef<Path>) -> Result<Reader> {
        let path = directory.as_ref().to_path_buf();
        self.begin(None, move || look_into(&path)).await
    }

    /// Opens the log in `storage` for reading, with these settings.
    ///
    /// Only `list`, `open` and the reads of the storage are used.
    ///
    /// # Errors
    ///
    /// As [`ReaderOptions::open`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future has no effect.
    pub async fn open_with(self, storage: impl Storage) -> Result<Reader> {
        let in_place = in_place(&storage);
        let storage: Arc<dyn Storage> = Arc::new(storage);
        self.begin(in_place, move || Ok(storage)).await
    }

    /// Reads the intact records of a damaged log in `directory`: see [`Salvage`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the directory cannot be listed; [`Error::NotALog`],
    /// [`Error::UnsupportedVersion`], [`Error::InvalidOption`]. Any other problem is a gap in the
    /// stream.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future has no effect.
    pub async fn salvage(self, directory: impl AsRef<Path>) -> Result<Salvage> {
        let path = directory.as_ref().to_path_buf();
        let (config, executor) = (self.config()?, self.executor(None)?);
        Salvage::begin(executor, config, move || look_into(&path)).await
    }

    /// As [`ReaderOptions::salvage`], for the log in `storage`.
    ///
    /// # Errors
    ///
    /// As [`ReaderOptions::salvage`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future has no effect.
    pub async fn salvage_with(self, storage: impl Storage) -> Result<Salvage> {
        let (config, executor) = (self.config()?, self.executor(in_place(&storage))?);
        let storage: Arc<dyn Storage> = Arc::new(storage);
        Salvage::begin(executor, config, move || Ok(storage)).await
    }

    async fn begin(
        self,
        in_place: Option<Arc<dyn Executor>>,
        storage: impl FnOnce() -> Result<Arc<dyn Storage>> + Send + 'static,
    ) -> Result<Reader> {
        let (config, executor) = (self.config()?, self.executor(in_place)?);
        let looked = start(executor.as_ref(), move || {
            let storage = storage()?;
            let (view, report) = judge(&storage, &config)?;
            Ok((storage, view, report))
        });
        let (storage, view, report) =
            looked.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })??;
        let clock = Clock::new(self.interval, self.uses_runtime_clock);
        Ok(Reader::new((storage, config, executor), clock, self.shows_written, view, report))
    }

    fn executor(&self, in_place: Option<Arc<dyn Executor>>) -> Result<Arc<dyn Executor>> {
        in_place.map_or_else(|| pool(self.io_handle.as_ref()), Ok)
    }

    fn config(&self) -> Result<Config> {
        if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&self.interval) {
            return Err(Error::InvalidOption {
                option: "poll_interval (ms)",
                value: u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX),
                reason: "from 1 ms to an hour",
            });
        }
        let batch_bytes_max = self.record_bytes_max.saturating_mul(2);
        let config = Config { record_bytes_max: self.record_bytes_max, ..Config::default() };
        Config { batch_bytes_max, ..config }.check()
    }
}

impl Reader {
    /// Opens the log in `directory` for reading, with the default settings.
    ///
    /// An empty directory is a log without records. If a writer creates a log there later,
    /// followers yield its records.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`] if [`Wal::open`](crate::Wal::open) would refuse the log, too. Use
    ///   [`ReaderOptions::salvage`] in this case.
    /// - [`Error::NotALog`], [`Error::UnsupportedVersion`], [`Error::UnsupportedFrame`],
    ///   [`Error::RecordTooLarge`], [`Error::Io`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future has no effect.
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self> {
        ReaderOptions::default().open(directory).await
    }

    /// Returns the default settings, to change them and open a reader.
    pub fn options() -> ReaderOptions {
        ReaderOptions::default()
    }
}

fn in_place(storage: &impl Storage) -> Option<Arc<dyn Executor>> {
    storage.is_nonblocking().then(|| Arc::new(InPlace) as Arc<dyn Executor>)
}

fn look_into(path: &Path) -> Result<Arc<dyn Storage>> {
    match ReadOnlyDirectory::open(path) {
        Ok(directory) => Ok(Arc::new(directory)),
        Err(error) => Err(Error::io("opening directory", path.display().to_string(), None, error)),
    }
}
