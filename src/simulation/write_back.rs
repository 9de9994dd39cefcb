//! [`WriteBack`]: a page cache of the process's own, so that killing the process is a power cut.

mod cached;
mod directory;
mod early;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::{
    cached::{CachedFile, Opened},
    directory::{Change, Directory, TEMPORARY_PREFIX, not_found},
    early::Early,
};
use crate::storage::{Locking, Storage, StorageFile};

/// A storage that keeps what isn't synced in the memory of the process, as a kernel keeps it in its
/// page cache, and hands it to the storage within at a sync only. What a `SIGKILL` leaves there is
/// what a power cut would have left on the device: no root, no virtual machine, no special device.
///
/// - Written bytes (by sectors of 512) and changes of length reach the storage within at
///   [`sync_data`](StorageFile::sync_data) or [`sync_all`](StorageFile::sync_all) of their file.
///   A sync covers every write that had returned when it began; those that run beside it, or not.
/// - A creation, renaming or removal reaches it at [`sync_dir`](Storage::sync_dir), in the order in
///   which they were made. A file whose creation isn't synced can be read, written and synced all
///   the same; within, it has a name that begins with `.unsynced-`, and it is lost under that name.
///   What an earlier process lost so is never listed, and removed when the lock is taken; before the
///   storage within is opened plainly, [`discard_lost`](WriteBack::discard_lost) does it.
/// - Everybody in the process sees the newest bytes and names, through any handle of any clone.
///
/// With [`with_early_write_back`](WriteBack::with_early_write_back) some of it goes ahead of its
/// sync, at random, as a kernel may do at any time: a kill then leaves *any* part of the unsynced
/// sectors, and not just none of them.
///
/// Dropping it writes nothing: in one process, drop it and open the storage within again.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use futures::TryStreamExt;
/// use highwater::{Wal, simulation::WriteBack, storage::MemoryStorage};
///
/// let disk = MemoryStorage::new(); // a `FileStorage`, for a process that is to be killed
/// let wal = Wal::options().open_with(WriteBack::new(disk.clone())).await?;
/// let kept = wal.append_and_sync(b"on stable storage").await?;
/// wal.append(b"in the page cache").await?;
/// drop(wal); // the power goes
///
/// let wal = Wal::options().open_with(disk).await?;
/// let records: Vec<_> = wal.replay(..).try_collect().await?;
/// assert_eq!(records.len(), 1);
/// assert_eq!((records[0].lsn, &records[0].payload[..]), (kept, &b"on stable storage"[..]));
/// # wal.close().await }
/// ```
///
/// # What it doesn't simulate
///
/// - A device that lies, fails or rots: what the storage within has been given counts as durable. A
///   sync fails only if that storage does: if it refuses bytes, they stay unsynced here, while a
///   kernel might have marked them clean.
/// - Torn sectors: each is handed over whole, with what it held at that moment. Without early
///   write-back a kill in the midst of a sync leaves the first sectors of it.
/// - Directory changes out of their order: a kill leaves some of the first of them.
/// - Space: [`reserve`](StorageFile::reserve) only makes the file longer, so a full device is met at
///   the sync. What isn't synced takes as much memory as it takes; nothing limits it.
/// - Anybody else who changes the directory within while this is in use.
pub struct WriteBack<S: Storage> {
    shared: Arc<Shared<S>>,
    early: Option<Arc<Early>>,
}

struct Shared<S> {
    inner: S,
    /// Taken before a file's own lock, never after it.
    directory: Mutex<Directory>,
}

impl<S: Storage> WriteBack<S> {
    /// Puts a page cache in front of a storage.
    #[must_use]
    pub fn new(inner: S) -> Self {
        WriteBack { shared: Arc::new(Shared { inner, directory: Mutex::default() }), early: None }
    }

    /// Lets some of it be handed over before its sync: for each sector that is written, one time in
    /// `one_in`, some unsynced sector of the same file; after each change of the directory, one time
    /// in `one_in`, some of the first of the unsynced changes. A sync then hands its sectors over in
    /// any order. 1 is always, 0 never.
    ///
    /// What is chosen depends on `seed` and on the order of the calls: one thread gets the same
    /// again. It holds for what is done through this handle and through clones made of it later.
    #[must_use]
    pub fn with_early_write_back(mut self, seed: u64, one_in: u32) -> Self {
        self.early = (one_in > 0).then(|| Arc::new(Early::new(seed, one_in)));
        self
    }

    /// Removes the files that a killed process had created and whose names it hadn't synced: no
    /// device would have them. For opening the storage within plainly; nobody may have it in use.
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
    /// What the storage answers.
    pub fn discard_lost(inner: &S) -> io::Result<()> {
        Directory::default().discard_lost(inner)
    }

    /// No user code runs under this lock but the storage within; if that panics, what is kept here
    /// is as it was before or after a whole step.
    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.shared.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, file: Arc<CachedFile>) -> Box<dyn StorageFile> {
        Box::new(Opened { file, early: self.early.clone() })
    }

    fn change(&self, directory: &mut Directory, change: Change) {
        directory.push(change);
        if let Some(early) = self.early.as_ref().filter(|early| early.hits()) {
            let count = early.below(directory.unsynced_count() + 1);
            // A failure is met again, and told, at the sync.
            let _ = directory.hand_over(&self.shared.inner, count);
        }
    }
}

impl<S: Storage> Clone for WriteBack<S> {
    /// Another handle of the same cache: for opening a log again without a loss of power between.
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

    fn lock(&self) -> io::Result<Locking> {
        let locking = self.shared.inner.lock()?;
        // Not before it is held: until then they may be the unsynced files of a process that lives.
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
        self.change(&mut directory, Change::Create { temporary, name: name.to_owned() });
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
        self.change(&mut directory, Change::Remove { name: name.to_owned() });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        refuse_reserved(to)?;
        let mut directory = self.directory();
        if !directory.view(&self.shared.inner)?.contains_key(from) {
            return Err(not_found());
        }
        self.change(&mut directory, Change::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory().hand_over(&self.shared.inner, u64::MAX)?;
        // Without the lock, as a flush takes its time: what was handed over is covered by it.
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
            "the name is one of those of files whose creation isn't synced",
        ));
    }
    Ok(())
}
