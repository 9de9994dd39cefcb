//! A log in a directory of a real file system. Nothing else in this crate names `std::fs`.

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod platform;
mod read_only;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

pub(crate) use read_only::ReadOnlyDirectory;

use super::{Locking, Storage, StorageFile};

/// The name of the lock file. It holds the owner's process id, for people; it is the lock on it
/// that counts, and losing the file loses nothing.
const LOCK_FILE: &str = "LOCK";

/// A directory of files, synced with what the platform has: `fdatasync` on Linux, `F_FULLFSYNC` on
/// macOS, `FlushFileBuffers` on Windows.
///
/// ```no_run
/// # async fn example() -> highwater::Result<()> {
/// use highwater::{Wal, storage::FileStorage};
/// let storage = FileStorage::create("data/log").expect("a directory to write to");
/// let wal = Wal::options().open_with(storage).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct FileStorage {
    directory: PathBuf,
    directory_file: platform::Directory,
}

impl FileStorage {
    /// Opens the directory, creating it (durably, with its parents) if it isn't there.
    ///
    /// # Errors
    ///
    /// What the operating system answers, such as `NotADirectory` for a file.
    pub fn create(directory: impl AsRef<Path>) -> io::Result<Self> {
        let directory = directory.as_ref();
        create_durably(directory)?;
        if !fs::metadata(directory)?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory"));
        }
        if fs::read_dir(directory)?.next().is_none() {
            // Whoever made it may not have synced its own entry, and with that the log would go.
            platform::Directory::open(&parent_of(directory))?.sync()?;
        }
        Ok(FileStorage {
            directory: directory.to_path_buf(),
            directory_file: platform::Directory::open(directory)?,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Creates each missing directory and syncs the one that holds it: an entry that isn't durable
/// could take the whole log with it.
fn create_durably(directory: &Path) -> io::Result<()> {
    if directory.as_os_str().is_empty() || directory.exists() {
        return Ok(());
    }
    let parent = parent_of(directory);
    create_durably(&parent)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    platform::Directory::open(&parent)?.sync()
}

/// The names in a log's directory, without that of the lock file.
fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != LOCK_FILE {
            names.push(name);
        }
    }
    Ok(names)
}

fn parent_of(directory: &Path) -> PathBuf {
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        Some(_) => PathBuf::from("."),
        None => directory.to_path_buf(),
    }
}

impl Storage for FileStorage {
    fn location(&self) -> String {
        self.directory.display().to_string()
    }

    fn lock(&self) -> io::Result<Locking> {
        let path = self.path(LOCK_FILE);
        let Some(mut file) = platform::lock(&path)? else {
            let mut owner = String::new();
            let read = File::open(&path).and_then(|mut file| file.read_to_string(&mut owner));
            let owner_pid = read.ok().and_then(|_| owner.trim().parse().ok());
            return Ok(Locking::Busy { owner_pid });
        };
        // For people only, so a full disk keeps nobody from opening the log.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Locking::Held(Box::new(file)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        names_in(&self.directory)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let options = OpenOptions::new().read(true).write(true).create_new(true).clone();
        Ok(Box::new(DirectoryFile { file: options.open(self.path(name))? }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let options = OpenOptions::new().read(true).write(true).clone();
        Ok(Box::new(DirectoryFile { file: options.open(self.path(name))? }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.path(from), self.path(to))
    }

    fn link_from(&self, source: &dyn Storage, name: &str) -> io::Result<()> {
        match source.path_of(name) {
            Some(path) => fs::hard_link(path, self.path(name)),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn path_of(&self, name: &str) -> Option<PathBuf> {
        Some(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory_file.sync()
    }
}

#[derive(Debug)]
struct DirectoryFile {
    file: File,
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
        platform::reserve(&self.file, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
