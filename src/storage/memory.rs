//! A log in memory: for tests, for logs that need not outlive the process, and deterministic.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, PoisonError},
};

use super::{Locking, Storage, StorageFile};
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering, RwLock};

/// Files in memory. Clones share them, so a log can be closed and opened again.
///
/// Its calls never block, so the log runs them in place: an append on it resolves at once, and a
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
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    files: Mutex<BTreeMap<String, Arc<MemoryFile>>>,
    locked: Arc<AtomicBool>,
}

impl MemoryStorage {
    /// An empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No user code runs under this lock, so a poisoned one is as good as any other.
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Arc<MemoryFile>>> {
        self.shared.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Unlock(Arc<AtomicBool>);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Storage for MemoryStorage {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn is_nonblocking(&self) -> bool {
        // Under shuttle jobs are threads of their own, so that they run beside all else.
        !cfg!(shuttle)
    }

    fn lock(&self) -> io::Result<Locking> {
        if self.shared.locked.swap(true, Ordering::Acquire) {
            return Ok(Locking::Busy { owner_pid: Some(std::process::id()) });
        }
        Ok(Locking::Held(Box::new(Unlock(Arc::clone(&self.shared.locked)))))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut files = self.files();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Arc::new(MemoryFile::default());
        files.insert(name.to_owned(), Arc::clone(&file));
        Ok(Box::new(Opened(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.files().get(name).map(Arc::clone).ok_or_else(not_found)?;
        Ok(Box::new(Opened(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name).map(drop).ok_or_else(not_found)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let file = files.remove(from).ok_or_else(not_found)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
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
struct Opened(Arc<MemoryFile>);

fn to_usize(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::ErrorKind::StorageFull.into())
}

impl StorageFile for Opened {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.0.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let from = bytes.get(to_usize(offset)?..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), from.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<usize> {
        let mut bytes = self.0.bytes.write().unwrap_or_else(PoisonError::into_inner);
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
        Ok(self.0.bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let length = to_usize(bytes)?;
        self.0.bytes.write().unwrap_or_else(PoisonError::into_inner).resize(length, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }
}
