//! [`WriteBack`]: a page cache in the process, so that killing the process is a power cut.

mod cached;
mod directory;
mod early;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard},
};

use self::{
    cached::{CachedFile, CachedHandle},
    directory::{Directory, NameChange, TEMPORARY_PREFIX},
    early::Early,
};
use crate::{
    storage::{Locking, Place, Storage, StorageFile, not_found},
    sync::LockAlways,
};

/// A storage that keeps unsynced changes in memory, as a kernel keeps them in its page cache. It
/// writes them back to the inner storage only at a sync. So a `SIGKILL` leaves what a power cut
/// would leave on the device, without root, a virtual machine or a special device.
///
/// - Written bytes (in sectors of 512) and changes of length are written back by
///   [`sync_data`](StorageFile::sync_data) or [`sync_all`](StorageFile::sync_all) of their file. A
///   sync covers every write that had returned when it began. It may cover concurrent writes.
/// - Created, renamed and removed names are written back by [`sync_dir`](Storage::sync_dir), in
///   their order. A file with an unsynced name can be read, written and synced. Its inner name
///   begins with `.unsynced-`. A kill leaves the file under that name, so it is lost. Such
///   leftovers are never listed, and they are removed when the lock is taken. Before the inner
///   storage is opened directly, call [`discard_lost`](WriteBack::discard_lost).
/// - All handles and clones in the process see the newest bytes and names.
///
/// With [`with_early_write_back`](WriteBack::with_early_write_back) some changes are written back
/// before their sync, at random, as a kernel may do at any time. A kill then leaves *any* part of
/// the unsynced sectors, not just none.
///
/// Dropping a `WriteBack` writes nothing. So a test in one process simulates a kill: it drops the
/// `WriteBack` and opens the inner storage again.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use futures::TryStreamExt;
/// use highwater::{Wal, simulation::WriteBack, storage::MemoryStorage};
///
/// let disk = MemoryStorage::new(); // use a `FileStorage` if the process is killed
/// let wal = Wal::options().open_with(WriteBack::new(disk.clone())).await?;
/// let kept = wal.append_and_sync(b"on stable storage").await?;
/// wal.append(b"in the page cache").await?;
/// drop(wal); // a power cut
///
/// let wal = Wal::options().open_with(disk).await?;
/// let records: Vec<_> = wal.replay(..).try_collect().await?;
/// assert_eq!(records.len(), 1);
/// assert_eq!((records[0].lsn, &records[0].payload[..]), (kept, &b"on stable storage"[..]));
/// # wal.close().await }
/// ```
///
/// # Limits
///
/// A `WriteBack` does not simulate:
///
/// - A device that lies, fails or rots: bytes in the inner storage count as durable. A sync fails
///   only if the inner storage fails. Refused bytes then stay unsynced here, while a kernel might
///   mark them clean.
/// - Torn sectors: each is written back whole, with its contents at that moment. Without early
///   write-back, a kill during a sync leaves the first sectors.
/// - Directory changes out of order: a kill leaves some of the first changes.
/// - Space: [`reserve`](StorageFile::reserve) only extends the file, so a full device is found by
///   the sync. The memory for unsynced bytes is not limited.
/// - Other users of the inner directory while this is in use.
pub struct WriteBack<S: Storage> {
    shared: Arc<CachedStorage<S>>,
    early: Option<Arc<Early>>,
}

struct CachedStorage<S> {
    inner: S,
    /// Locked before a file's own lock, never after it.
    directory: Mutex<Directory>,
}

impl<S: Storage> WriteBack<S> {
    /// Adds a page cache to a storage.
    #[must_use]
    pub fn new(inner: S) -> Self {
        WriteBack {
            shared: Arc::new(CachedStorage { inner, directory: Mutex::default() }),
            early: None,
        }
    }

    /// Writes some changes back before their sync. Each written sector writes back, with a chance
    /// of one in `one_in`, some unsynced sector of the same file. Each change of the directory
    /// writes back, with the same chance, some of the first unsynced changes. A sync then writes
    /// its sectors in any order. 1 means always, 0 means never.
    ///
    /// The choice depends on `seed` and on the order of the calls, so a single thread can repeat
    /// it. The setting applies to this handle and to its later clones.
    #[must_use]
    pub fn with_early_write_back(mut self, seed: u64, one_in: u32) -> Self {
        self.early = (one_in > 0).then(|| Arc::new(Early::new(seed, one_in)));
        self
    }

    /// Removes files whose names a killed process had not synced, because no device would have
    /// them. Call it before the inner storage is opened directly, while no `WriteBack` uses that
    /// storage.
    ///
    /// ```
    /// use highwater::{simulation::WriteBack, storage::{MemoryStorage, Storage}};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let disk = MemoryStorage::new();
    /// WriteBack::new(disk.clone()).create("a name that is never synced")?;
    /// WriteBack::discard_lost(&disk)?;
    /// assert!(disk.list()?.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The storage's error.
    pub fn discard_lost(inner: &S) -> io::Result<()> {
        Directory::default().discard_lost(inner)
    }

    /// Only the inner storage runs under this lock. If the inner storage panics, the directory is
    /// as it was before or after a whole step.
    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.shared.directory.lock_always()
    }

    fn opened(&self, file: Arc<CachedFile>) -> Box<dyn StorageFile> {
        Box::new(CachedHandle { file, early: self.early.clone() })
    }

    fn change(&self, directory: &mut Directory, change: NameChange) {
        directory.push(change);
        if let Some(early) = self.early.as_ref().filter(|early| early.hits()) {
            let count = early.below(directory.unsynced_count() + 1);
            // The sync repeats the attempt, and reports a failure.
            let _ = directory.write_back(&self.shared.inner, count);
        }
    }
}

impl<S: Storage> Clone for WriteBack<S> {
    /// Returns another handle of the same cache, to open a log again without a power cut.
    fn clone(&self) -> Self {
        WriteBack { shared: Arc::clone(&self.shared), early: self.early.clone() }
    }
}

impl<S: Storage> fmt::Debug for WriteBack<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBack").field("inner", &self.shared.inner).finish_non_exhaustive()
    }
}

impl<S: Storage> Storage for WriteBack<S> {
    fn location(&self) -> String {
        self.shared.inner.location()
    }

    fn is_nonblocking(&self) -> bool {
        self.shared.inner.is_nonblocking()
    }

    fn check_place(&self) -> io::Result<Place> {
        self.shared.inner.check_place()
    }

    fn overwrites_in_place(&self) -> bool {
        self.shared.inner.overwrites_in_place()
    }

    fn lock(&self) -> io::Result<Locking> {
        let locking = self.shared.inner.lock()?;
        // Only with the lock held, because the leftovers may belong to a live process.
        if matches!(locking, Locking::Held(_)) {
            self.directory().discard_lost(&self.shared.inner)?;
        }
        Ok(locking)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.directory().view(&self.shared.inner)?.into_keys().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        refuse_reserved(name)?;
        let mut directory = self.directory();
        if directory.view(&self.shared.inner)?.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (temporary, file) = directory.create_temporary(&self.shared.inner)?;
        self.change(&mut directory, NameChange::Create { temporary, name: name.to_owned() });
        Ok(self.opened(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut directory = self.directory();
        let inner_name = directory.view(&self.shared.inner)?.remove(name).ok_or_else(not_found)?;
        let file = directory.open(&self.shared.inner, &inner_name)?;
        Ok(self.opened(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut directory = self.directory();
        if !directory.view(&self.shared.inner)?.contains_key(name) {
            return Err(not_found());
        }
        self.change(&mut directory, NameChange::Remove { name: name.to_owned() });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        refuse_reserved(to)?;
        let mut directory = self.directory();
        if !directory.view(&self.shared.inner)?.contains_key(from) {
            return Err(not_found());
        }
        self.change(
            &mut directory,
            NameChange::Rename { from: from.to_owned(), to: to.to_owned() },
        );
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory().write_back(&self.shared.inner, u64::MAX)?;
        // Without the lock, because a flush takes long. The flush covers everything that was
        // written back.
        self.shared.inner.sync_dir()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.shared.inner.random()
    }

    fn unix_ms(&self) -> u64 {
        self.shared.inner.unix_ms()
    }
}

fn refuse_reserved(name: &str) -> io::Result<()> {
    if name.starts_with(TEMPORARY_PREFIX) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "names with this prefix are reserved for files whose creation isn't synced",
        ));
    }
    Ok(())
}
