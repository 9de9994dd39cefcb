//! Opening a reader with settings of one's own.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::runtime::Handle;

use crate::{
    error::{Error, Result},
    executor::{Executor, InPlace, start},
    options::Config,
    reader::{Reader, salvage::Salvage, view::judge},
    storage::{ReadOnlyDirectory, Storage},
    wal::{RUNTIME_GONE, pool},
};

/// The largest record that any log may hold.
const RECORD_BYTES_MAX: u64 = 1 << 30;
const INTERVAL_MIN: Duration = Duration::from_millis(1);
const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
const INTERVAL: Duration = Duration::from_millis(20);

/// The settings with which a log is opened for reading alone.
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
    pub(super) shows_written: bool,
    pub(super) interval: Duration,
    record_bytes_max: u64,
    io_handle: Option<Handle>,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        ReaderOptions {
            shows_written: false,
            interval: INTERVAL,
            record_bytes_max: RECORD_BYTES_MAX,
            io_handle: None,
        }
    }
}

impl ReaderOptions {
    /// Whether to show also what is intact and not known to be synced; `false` by default.
    ///
    /// **Such records may be gone after a loss of power**, or be replaced by others at the same
    /// LSNs: a follower that has given some of those gets [`Error::Truncated`].
    pub fn written(mut self, written: bool) -> Self {
        self.shows_written = written;
        self
    }

    /// How often a follower looks for more when it has given all there is. From 1 ms to an hour;
    /// 20 ms by default. A look at a log that has not grown lists the directory and reads up to
    /// 256 KiB at its end.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The largest record that is read, in bytes. From 1 byte to 1 GiB, which is the default.
    pub fn record_bytes_max(mut self, bytes: u64) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// The runtime whose blocking pool does the reading; by default the one that opens the reader.
    pub fn io_handle(mut self, handle: Handle) -> Self {
        self.io_handle = Some(handle);
        self
    }

    /// Opens the log in `directory`, as [`Reader::open`] does.
    ///
    /// # Errors
    ///
    /// As [`Reader::open`], and [`Error::InvalidOption`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn open(self, directory: impl AsRef<Path>) -> Result<Reader> {
        let path = directory.as_ref().to_path_buf();
        self.begin(None, move || look_into(&path)).await
    }

    /// Opens the log in any storage, of which only `list`, `open` and reading are used.
    ///
    /// # Errors
    ///
    /// As [`ReaderOptions::open`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn open_with(self, storage: impl Storage) -> Result<Reader> {
        let in_place = in_place(&storage);
        let storage: Arc<dyn Storage> = Arc::new(storage);
        self.begin(in_place, move || Ok(storage)).await
    }

    /// Reads what is left of the log in `directory`, however damaged it is: see [`Salvage`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the directory can't be listed, [`Error::NotALog`],
    /// [`Error::UnsupportedVersion`], [`Error::InvalidOption`]. All else is a gap.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn salvage(self, directory: impl AsRef<Path>) -> Result<Salvage> {
        let path = directory.as_ref().to_path_buf();
        let (config, executor) = (self.config()?, self.executor(None)?);
        Salvage::begin(executor, config, move || look_into(&path)).await
    }

    /// As [`ReaderOptions::salvage`], from any storage.
    ///
    /// # Errors
    ///
    /// As [`ReaderOptions::salvage`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
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
            looked.await.map_err(|_| Error::Closed { reason: RUNTIME_GONE })??;
        Ok(Reader::new(&self, (storage, config, executor), view, report))
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

fn in_place(storage: &impl Storage) -> Option<Arc<dyn Executor>> {
    storage.is_nonblocking().then(|| Arc::new(InPlace) as Arc<dyn Executor>)
}

fn look_into(path: &Path) -> Result<Arc<dyn Storage>> {
    match ReadOnlyDirectory::open(path) {
        Ok(directory) => Ok(Arc::new(directory)),
        Err(error) => Err(Error::io("opening directory", path.display().to_string(), None, error)),
    }
}
