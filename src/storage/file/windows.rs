//! The file system calls of Windows.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    ops::Range,
    os::windows::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::kind;
use crate::storage::Place;

/// Other processes may read the lock file (to learn its owner), but not write or remove it.
const FILE_SHARE_READ: u32 = 1;
const FILE_SHARE_WRITE: u32 = 2;
const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x0200_0000;
const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
const FILE_READ_ATTRIBUTES: u32 = 0x80;
const ERROR_ACCESS_DENIED: i32 = 5;
const ERROR_SHARING_VIOLATION: i32 = 32;

/// An open directory. Neither it nor its parents can be removed or renamed while it is open, so its
/// absolute path stays valid.
///
/// Directories cannot be synced here. NTFS keeps their entries in a journal. A flush of any file
/// with changed metadata writes that journal. The section "Other systems" of `docs/DURABILITY.md`
/// lists the remaining risk.
#[derive(Debug)]
pub(super) struct Directory {
    file: File,
    path: PathBuf,
}

/// The result of an attempt to lock a directory. The lock file suffices here, because it cannot be
/// removed.
#[derive(Debug)]
#[allow(dead_code, reason = "on Unix directories are locked too")]
pub(super) enum OnDirectory {
    Held(File),
    Busy,
    Unsupported,
}

impl Directory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let file = OpenOptions::new()
            .access_mode(FILE_READ_ATTRIBUTES)
            .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE)
            .custom_flags(FILE_FLAG_BACKUP_SEMANTICS)
            .open(&path)?;
        if !file.metadata()?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory"));
        }
        Ok(Directory { file, path })
    }

    /// Returns the path at which the directory was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Returns an identity that no other directory of this machine has.
    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        let found = winapi_util::file::information(&self.file)?;
        Ok((found.volume_serial_number(), found.file_index()))
    }

    pub(super) fn stamp(&self) -> io::Result<Option<u128>> {
        Ok(None)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn sync_own_entry(&self) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn place(&self) -> io::Result<Place> {
        Ok(Place::Kept)
    }

    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        fs::read_dir(&self.path)?.map(|entry| entry.map(name)).collect()
    }

    pub(super) fn create(&self, name: &str, _mode: u32) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(self.at(name))
    }

    pub(super) fn open_to_write(&self, name: &str) -> io::Result<File> {
        let path = self.at(name);
        regular(OpenOptions::new().read(true).write(true).open(&path), &path)
    }

    pub(super) fn open_to_read(&self, name: &str) -> io::Result<File> {
        let path = self.at(name);
        regular(File::open(&path), &path)
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.at(name);
        or_gone(fs::remove_file(&path), &path)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (path, to) = (self.at(from), self.at(to));
        or_gone(fs::rename(&path, &to), &path)?;
        // A directory cannot be flushed. The flush of the file writes the journal with its new
        // name.
        OpenOptions::new().write(true).open(to)?.sync_all()
    }

    pub(super) fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let path = self.at(from);
        or_gone(fs::hard_link(&path, self.at(to)), &path)
    }

    pub(super) fn link_from(&self, path: &Path, name: &str) -> io::Result<()> {
        or_gone(fs::hard_link(path, self.at(name)), path)
    }

    pub(super) fn lock(&self) -> io::Result<OnDirectory> {
        Ok(OnDirectory::Unsupported)
    }

    /// Opens or creates a plain file and locks it; `None` if another process has the lock. The lock
    /// is an open handle that does not share writing, so closing the handle frees it.
    pub(super) fn lock_file(&self, name: &str, _mode: u32) -> io::Result<Option<File>> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .share_mode(FILE_SHARE_READ)
            .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT)
            .open(self.at(name));
        match opened {
            Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
            Ok(_) => Err(not_plain(name)),
            Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a plain file for reading.
    pub(super) fn open_plain(&self, name: &str) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT)
            .open(self.at(name))?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(not_plain(name)) }
    }

    /// Returns `true`, because the lock file cannot lose its name while it is open.
    #[allow(clippy::unused_self, reason = "on Unix it can")]
    pub(super) fn is_named(&self, _file: &File, _name: &str) -> io::Result<bool> {
        Ok(true)
    }

    /// Returns `false`. ReFS copies on write only files with integrity streams, which a log does
    /// not request.
    #[allow(clippy::unused_self, reason = "on Unix it depends on the directory")]
    pub(super) fn copies_on_write(&self) -> bool {
        false
    }
}

fn not_plain(name: &str) -> io::Error {
    let what = format!("`{name}` is a link or no file at all; remove it");
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

fn regular(opened: io::Result<File>, path: &Path) -> io::Result<File> {
    match or_gone(opened, path) {
        Ok(file) => kind::regular_file(file),
        Err(error) => Err(kind::explained(error, path)),
    }
}

/// Returns `NotFound` for a removed file that a process still has open. Such a file keeps its name
/// until it is closed. Until then every open is refused, even one without access rights, which no
/// permission refuses.
fn or_gone<T>(done: io::Result<T>, path: &Path) -> io::Result<T> {
    let is_denied = |error: &io::Error| error.raw_os_error() == Some(ERROR_ACCESS_DENIED);
    match done {
        Err(error) if is_denied(&error) => match OpenOptions::new().access_mode(0).open(path) {
            Err(refused) if is_denied(&refused) => Err(io::ErrorKind::NotFound.into()),
            _ => Err(error),
        },
        done => done,
    }
}

/// Creates a directory, which inherits its permissions from its parent.
pub(super) fn create_directory(path: &Path, _file_mode: u32) -> io::Result<()> {
    DirBuilder::new().create(path)
}

/// Does nothing, because closing the file frees the lock.
pub(super) fn unlock(_file: &File) {}

pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.seek_read(buffer, offset)
}

pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    file.seek_write(bytes, offset)
}

/// NTFS allocates the clusters at once, because the file has no sparse attribute.
pub(super) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)
}

/// Returns `Ok`, because overwritten bytes keep their place.
pub(super) fn check_free(_file: &File, _bytes: u64) -> io::Result<()> {
    Ok(())
}

pub(super) fn link_count(file: &File) -> io::Result<u64> {
    Ok(winapi_util::file::information(file)?.number_of_links())
}

pub(super) fn write_at_nonblocking(_: &File, _: &[u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn write_at_durably(_: &File, _: &[u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn write_zeroes(_: &File, _: Range<u64>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
