//! A simulated disk with a clock that the test sets.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use highwater::{
    simulation::Disk,
    storage::{Locking, Storage, StorageFile},
};

/// A disk with a clock that the test sets.
#[derive(Clone, Debug)]
pub(crate) struct Clocked {
    pub(crate) disk: Disk,
    unix_ms: Arc<AtomicU64>,
}

impl Clocked {
    pub(crate) fn new(disk: Disk) -> Self {
        Clocked { disk, unix_ms: Arc::new(AtomicU64::new(1_000_000)) }
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
        self.unix_ms.load(Ordering::Relaxed)
    }
}
