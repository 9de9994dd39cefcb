//! A simulated disk with a clock that the test sets.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use highwater::{
    simulation::Disk,
    storage::{Locking, Storage, StorageFile},
};

type Once = Box<dyn FnOnce() + Send>;

/// A disk with a clock that the test sets.
#[derive(Clone)]
pub(crate) struct Clocked {
    pub(crate) disk: Disk,
    unix_ms: Arc<AtomicU64>,
    /// Runs once, after the clock was read and before the log gets the time.
    pub(crate) after_reading: Arc<Mutex<Option<Once>>>,
}

impl fmt::Debug for Clocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl Clocked {
    pub(crate) fn new(disk: Disk) -> Self {
        let unix_ms = Arc::new(AtomicU64::new(1_000_000));
        Clocked { disk, unix_ms, after_reading: Arc::default() }
    }

    pub(crate) fn set(&self, unix_ms: u64) {
        self.unix_ms.store(unix_ms, Ordering::Relaxed);
    }
}

impl Storage for Clocked {
    fn location(&self) -> String {
        self.disk.location()
    }
    fn is_nonblocking(&self) -> bool {
        self.disk.is_nonblocking()
    }
    fn lock(&self) -> io::Result<Locking> {
        self.disk.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.disk.create(name)
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.disk.open(name)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
    fn random(&self) -> io::Result<[u8; 16]> {
        self.disk.random()
    }
    fn unix_ms(&self) -> u64 {
        let unix_ms = self.unix_ms.load(Ordering::Relaxed);
        let after_reading = self.after_reading.lock().unwrap().take();
        after_reading.into_iter().for_each(|run| run());
        unix_ms
    }
}
