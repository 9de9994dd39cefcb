//! Files in memory: for tests, and for logs that need not outlive the process.

use std::{collections::BTreeMap, io, sync::Arc};

use super::{Locking, Storage, StorageFile, copy_out, not_found, to_usize};
use crate::{
    lock_owner::LockOwner,
    sync::{
        AtomicBool, AtomicU64, LockAlways, Mutex, MutexGuard, Ordering, ReadWriteAlways, RwLock,
    },
};

/// A storage in memory. Clones share the files, so a log can be closed and opened again.
///
/// Its calls never block, so the log runs them in place. An append resolves at once, and a
/// single-threaded test is deterministic.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use highwater::{Wal, storage::MemoryStorage};
/// let storage = MemoryStorage::new();
/// let wal = Wal::options().open_with(storage.clone()).await?;
/// wal.append_and_sync(b"kept as long as the storage").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    shared: Arc<MemoryFiles>,
}

#[derive(Debug, Default)]
struct MemoryFiles {
    files: Mutex<BTreeMap<String, Arc<MemoryFile>>>,
    lock: LockFlag,
    /// The number of changes of names.
    changes: AtomicU64,
}

impl MemoryStorage {
    /// Creates an empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No user code runs under this lock, so the files are whole even if it is poisoned.
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Arc<MemoryFile>>> {
        self.shared.files.lock_always()
    }
}

impl MemoryStorage {
    /// Locks the files for a change of names. The stamp changes under the lock.
    fn changing(&self) -> MutexGuard<'_, BTreeMap<String, Arc<MemoryFile>>> {
        let files = self.files();
        self.shared.changes.fetch_add(1, Ordering::Release);
        files
    }
}

/// The lock of a storage in memory. At most one handle holds it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LockFlag(Arc<AtomicBool>);

impl LockFlag {
    pub(crate) fn lock(&self) -> Locking {
        if self.0.swap(true, Ordering::Acquire) {
            return Locking::Busy { owner: LockOwner::ThisProcess };
        }
        Locking::Held(Box::new(Unlock(Arc::clone(&self.0))))
    }
}

struct Unlock(Arc<AtomicBool>);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Storage for MemoryStorage {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn is_nonblocking(&self) -> bool {
        // Under shuttle, jobs run on threads, so that they interleave with the other tasks.
        !cfg!(shuttle)
    }

    fn lock(&self) -> io::Result<Locking> {
        Ok(self.shared.lock.lock())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn stamp(&self) -> io::Result<Option<u128>> {
        Ok(Some(u128::from(self.shared.changes.load(Ordering::Acquire))))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut files = self.changing();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Arc::new(MemoryFile::default());
        files.insert(name.to_owned(), Arc::clone(&file));
        Ok(Box::new(MemoryHandle(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.files().get(name).map(Arc::clone).ok_or_else(not_found)?;
        Ok(Box::new(MemoryHandle(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.changing().remove(name).map(drop).ok_or_else(not_found)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.changing();
        let file = files.remove(from).ok_or_else(not_found)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.changing();
        let file = files.get(from).map(Arc::clone).ok_or_else(not_found)?;
        if files.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Default)]
struct MemoryFile {
    bytes: RwLock<Vec<u8>>,
}

#[derive(Debug)]
struct MemoryHandle(Arc<MemoryFile>);

impl StorageFile for MemoryHandle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        copy_out(&self.0.bytes.read_always(), buffer, offset)
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<usize> {
        let mut bytes = self.0.bytes.write_always();
        let start = to_usize(offset)?;
        let end = to_usize(offset.saturating_add(new.len() as u64))?;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(place) = bytes.get_mut(start..end) {
            place.copy_from_slice(new);
        }
        Ok(new.len())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.read_always().len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let length = to_usize(bytes)?;
        self.0.bytes.write_always().resize(length, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }
}
