//! A deterministic storage in memory: no random bytes and no clock.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use highwater::storage::{Locking, MemoryStorage, Storage, StorageFile};

use crate::directory::Directory;

#[derive(Clone, Debug)]
pub struct Repeatable {
    memory: MemoryStorage,
    drawn: Arc<AtomicU64>,
    /// The number of changes to files that still succeed. Later changes fail, as if the process had
    /// ended.
    pub changes_left: Arc<AtomicU64>,
}

/// A file whose changes are counted.
#[derive(Debug)]
struct Counted {
    file: Box<dyn StorageFile>,
    changes_left: Arc<AtomicU64>,
}

fn change(left: &AtomicU64) -> io::Result<()> {
    let one_less = |left: u64| if left == u64::MAX { Some(left) } else { left.checked_sub(1) };
    let counted = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    counted.map(drop).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

impl Repeatable {
    /// Creates an empty storage. Logs with different `salt` have different IDs.
    pub fn new(salt: u64) -> Self {
        Repeatable {
            memory: MemoryStorage::new(),
            drawn: Arc::new(AtomicU64::new(salt << 32)),
            changes_left: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    pub fn with(directory: &Directory, salt: u64) -> Self {
        let storage = Self::new(salt);
        for (name, bytes) in &directory.0 {
            storage.memory.create(name).unwrap().write_at(bytes, 0).unwrap();
        }
        storage
    }

    fn counted(&self, file: Box<dyn StorageFile>) -> Box<dyn StorageFile> {
        Box::new(Counted { file, changes_left: Arc::clone(&self.changes_left) })
    }

    pub fn directory(&self) -> Directory {
        let read = |name: String| {
            let file = self.memory.open(&name).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
            (name, bytes)
        };
        Directory(self.memory.list().unwrap().into_iter().map(read).collect())
    }
}

impl Storage for Repeatable {
    fn location(&self) -> String {
        self.memory.location()
    }

    fn is_nonblocking(&self) -> bool {
        true
    }

    fn lock(&self) -> io::Result<Locking> {
        self.memory.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.memory.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        change(&self.changes_left)?;
        self.memory.create(name).map(|file| self.counted(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.memory.open(name).map(|file| self.counted(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        change(&self.changes_left)?;
        self.memory.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        change(&self.changes_left)?;
        self.memory.rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.memory.sync_dir()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let word = drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let mut bytes = [0x5a; 16];
        bytes[..8].copy_from_slice(&word);
        Ok(bytes)
    }

    fn unix_ms(&self) -> u64 {
        1
    }
}

impl StorageFile for Counted {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        change(&self.changes_left)?;
        self.file.write_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        change(&self.changes_left)?;
        // Lengths that no disk has space for.
        if bytes > 1 << 30 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
