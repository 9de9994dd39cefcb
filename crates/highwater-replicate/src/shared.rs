//! [`Shared`]: one storage for a copy, and for the log that it becomes.

use std::{io, path::PathBuf, sync::Arc};

use highwater::storage::{Locking, Place, Storage, StorageFile};

/// A storage with several owners.
#[derive(Clone, Debug)]
pub(crate) struct Shared(pub(crate) Arc<dyn Storage>);

impl Storage for Shared {
    fn location(&self) -> String {
        self.0.location()
    }

    fn is_nonblocking(&self) -> bool {
        self.0.is_nonblocking()
    }

    fn lock(&self) -> io::Result<Locking> {
        self.0.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn stamp(&self) -> io::Result<Option<u128>> {
        self.0.stamp()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.0.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.0.open(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.link(from, to)
    }

    fn link_from(&self, source: &dyn Storage, name: &str) -> io::Result<()> {
        self.0.link_from(source, name)
    }

    fn path_of(&self, name: &str) -> Option<PathBuf> {
        self.0.path_of(name)
    }

    fn check_place(&self) -> io::Result<Place> {
        self.0.check_place()
    }

    fn overwrites_in_place(&self) -> bool {
        self.0.overwrites_in_place()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.0.random()
    }

    fn unix_ms(&self) -> u64 {
        self.0.unix_ms()
    }
}
