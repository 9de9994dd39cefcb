//! A log in a directory of a real file system. No other module of this crate uses `std::fs`.
//!
//! A storage keeps the directory that it opened. Every call is relative to it. So neither a new
//! working directory nor a rename leads to another log.

mod create;
mod kind;
mod lock;
mod names;
mod owner;
mod read_only;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::{
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

pub(crate) use read_only::ReadOnlyDirectory;

#[cfg(unix)]
use self::unix as platform;
#[cfg(windows)]
use self::windows as platform;
use self::{lock::HeldLock, names::names_in, platform::Directory};
use super::{Locking, Place, Storage, StorageFile};
use crate::{error::Result, options::FILE_MODE, sync::LockAlways};

/// A directory of files. It syncs with `fdatasync` on Linux, `F_FULLFSYNC` on macOS and
/// `FlushFileBuffers` on Windows.
///
/// It keeps the directory that it opened, even if that directory is renamed or the working
/// directory changes. [`check_place`](Storage::check_place) then reports the rename.
///
/// ```no_run
/// # async fn example() -> highwater::Result<()> {
/// use highwater::{Wal, storage::FileStorage};
/// let storage = FileStorage::create("data/log")?;
/// let wal = Wal::options().open_with(storage).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct FileStorage {
    /// The path as the user gave it.
    location: String,
    directory: Directory,
    file_mode: u32,
    copies_on_write: bool,
    writes_zeroes: Arc<AtomicBool>,
    lock: Mutex<Weak<HeldLock>>,
}

impl FileStorage {
    /// Opens the directory. If it does not exist, creates it durably with its parents.
    ///
    /// New files have mode 0600 and new directories 0700, so that only the user can access them.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) with the path of the directory that failed, such as
    /// `NotADirectory` for a file.
    pub fn create(directory: impl AsRef<Path>) -> Result<Self> {
        Self::create_with_mode(directory, FILE_MODE)
    }

    /// As [`create`](FileStorage::create), with another mode for new files on Unix.
    ///
    /// A new directory can be entered by all users that can read the files: 0640 gives 0750. The
    /// process's umask applies to both. The owner can always read and write.
    ///
    /// # Errors
    ///
    /// As [`create`](FileStorage::create).
    pub fn create_with_mode(directory: impl AsRef<Path>, file_mode: u32) -> Result<Self> {
        let (path, file_mode) = (directory.as_ref(), file_mode | FILE_MODE);
        let directory = create::open_or_create(path, file_mode)?;
        Ok(FileStorage {
            location: path.display().to_string(),
            copies_on_write: directory.copies_on_write(),
            directory,
            file_mode,
            writes_zeroes: Arc::new(AtomicBool::new(true)),
            lock: Mutex::default(),
        })
    }

    fn opened(&self, file: File) -> DirectoryFile {
        let writes_zeroes = Arc::clone(&self.writes_zeroes);
        DirectoryFile { file, copies_on_write: self.copies_on_write, writes_zeroes }
    }

    fn held_lock(&self) -> Option<Arc<HeldLock>> {
        self.lock.lock_always().upgrade()
    }
}

impl Storage for FileStorage {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn lock(&self) -> io::Result<Locking> {
        match lock::lock(&self.directory, self.file_mode)? {
            Ok(held) => {
                *self.lock.lock_always() = Arc::downgrade(&held);
                Ok(Locking::Held(Box::new(held)))
            }
            Err(owner) => Ok(Locking::Busy { owner }),
        }
    }

    fn check_place(&self) -> io::Result<Place> {
        match (self.directory.place()?, self.held_lock()) {
            (Place::Kept, Some(lock)) => lock.check(&self.directory, self.file_mode),
            (place, _) => Ok(place),
        }
    }

    fn overwrites_in_place(&self) -> bool {
        !self.copies_on_write
    }

    fn list(&self) -> io::Result<Vec<String>> {
        names_in(&self.directory)
    }

    fn stamp(&self) -> io::Result<Option<u128>> {
        self.directory.stamp()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.directory.create(name, self.file_mode)?;
        Ok(Box::new(self.opened(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.directory.open_to_write(name)?;
        Ok(Box::new(self.opened(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.directory.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.directory.rename(from, to)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.directory.link(from, to)
    }

    fn link_from(&self, source: &dyn Storage, name: &str) -> io::Result<()> {
        let Some(path) = source.path_of(name) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.directory.link_from(&path, name)?;
        // The path may have led to another directory.
        if source.check_place()? == Place::Kept {
            return Ok(());
        }
        self.directory.remove(name)?;
        Err(io::ErrorKind::NotFound.into())
    }

    fn path_of(&self, name: &str) -> Option<PathBuf> {
        Some(self.directory.path().join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync()
    }
}

#[derive(Debug)]
struct DirectoryFile {
    file: File,
    copies_on_write: bool,
    /// True until the file system has refused `write_zeroes`. The files of a directory share it.
    writes_zeroes: Arc<AtomicBool>,
}

impl StorageFile for DirectoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        platform::read_at(&self.file, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        platform::write_at(&self.file, bytes, offset)
    }

    fn write_at_nonblocking(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        platform::write_at_nonblocking(&self.file, bytes, offset)
    }

    fn write_at_durably(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        platform::write_at_durably(&self.file, bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn link_count(&self) -> io::Result<u64> {
        platform::link_count(&self.file)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        platform::reserve(&self.file, bytes)?;
        if self.copies_on_write {
            // The space is for this file and the previous one, which the log may still write to.
            platform::check_free(&self.file, bytes.saturating_mul(2))?;
        }
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        // Two threads may both find out. That costs a system call.
        if !self.writes_zeroes.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let written = platform::write_zeroes(&self.file, range);
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Unsupported) {
            self.writes_zeroes.store(false, Ordering::Relaxed);
        }
        written
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
