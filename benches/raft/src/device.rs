//! A simulated device: files in memory, and flushes that take a fixed time.
//!
//! Each node gets its own, as nodes on three machines do. On one real disk the flushes of three
//! nodes wait for each other.

use std::{
    fs::OpenOptions,
    io,
    num::NonZeroU64,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use highwater::storage::{Locking, MemoryStorage, Storage, StorageFile};

/// The size of the file that the raw loop writes to.
const FILE_BYTES: usize = 16 << 20;
/// The bytes of one write of the raw loop.
const WRITE_BYTES: usize = 4 << 10;
/// How long the raw loop runs.
const MEASURED: Duration = Duration::from_secs(2);

/// Returns the median time of a write of 4 KiB and its flush, in a loop without a log, in a file
/// that is filled with zeros. The directory must be on a disk.
pub(crate) fn raw_flush_time(directory: &Path) -> io::Result<Duration> {
    let path = directory.join("raw-flush");
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    file.write_all_at(&vec![0; FILE_BYTES], 0)?;
    file.sync_all()?;
    let mut times = Vec::new();
    let begun = Instant::now();
    let mut offset = 0;
    while begun.elapsed() < MEASURED {
        let bytes = vec![times.len() as u8 | 1; WRITE_BYTES];
        let started = Instant::now();
        file.write_all_at(&bytes, offset)?;
        file.sync_data()?;
        times.push(started.elapsed());
        offset = (offset + WRITE_BYTES as u64) % FILE_BYTES as u64;
    }
    drop(file);
    std::fs::remove_file(path)?;
    times.sort_unstable();
    times.get(times.len() / 2).copied().ok_or_else(|| io::Error::other("no flush was measured"))
}

/// The device of one node. It does one flush at a time.
#[derive(Debug)]
pub(crate) struct SimulatedDevice {
    files: MemoryStorage,
    device: Arc<Device>,
}

#[derive(Debug)]
struct Device {
    flush_time: Duration,
    one_at_a_time: Mutex<()>,
}

impl Device {
    fn flush(&self) {
        thread_local! {
            /// A sleep of a thread ends up to its slack late: 50 µs, unless it is set.
            static SLACK: io::Result<()> =
                rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).map_err(Into::into);
        }
        SLACK.with(|result| assert!(result.is_ok(), "the timer slack can be set: {result:?}"));
        let _one_at_a_time = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        thread::sleep(self.flush_time);
    }
}

impl SimulatedDevice {
    pub(crate) fn new(flush_time: Duration) -> Self {
        let device = Device { flush_time, one_at_a_time: Mutex::default() };
        SimulatedDevice { files: MemoryStorage::new(), device: Arc::new(device) }
    }

    fn opened(&self, file: Box<dyn StorageFile>) -> Box<dyn StorageFile> {
        Box::new(SimulatedFile { file, device: Arc::clone(&self.device) })
    }
}

impl Storage for SimulatedDevice {
    fn location(&self) -> String {
        "simulated device".to_owned()
    }

    fn lock(&self) -> io::Result<Locking> {
        self.files.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn stamp(&self) -> io::Result<Option<u128>> {
        self.files.stamp()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(self.opened(self.files.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(self.opened(self.files.open(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.link(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.device.flush();
        Ok(())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    file: Box<dyn StorageFile>,
    device: Arc<Device>,
}

impl StorageFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.device.flush();
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.device.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flush_takes_its_time_and_waits_for_others() {
        const FLUSH_TIME: Duration = Duration::from_millis(5);
        let device = SimulatedDevice::new(FLUSH_TIME);
        let (one, other) = (device.create("one").unwrap(), device.create("other").unwrap());
        let begun = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| one.sync_data().unwrap());
            scope.spawn(|| other.sync_data().unwrap());
        });
        assert!(begun.elapsed() >= 2 * FLUSH_TIME);
    }

    #[test]
    fn log_on_a_device_waits_for_flushes() {
        const FLUSH_TIME: Duration = Duration::from_millis(5);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let device = SimulatedDevice::new(FLUSH_TIME);
            let wal = highwater::Wal::options().open_with(device).await.unwrap();
            let begun = Instant::now();
            wal.append_and_sync("one").await.unwrap();
            assert!(begun.elapsed() >= FLUSH_TIME);
            wal.close().await.unwrap();
        });
    }
}
