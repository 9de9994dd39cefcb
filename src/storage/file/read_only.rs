//! A directory that is only read. Calls that would change it fail before they reach the operating
//! system.

use std::{io, path::Path, sync::Arc};

use super::{DirectoryFile, names::names_in, platform::Directory};
use crate::storage::{Locking, Place, Storage, StorageFile};

/// A directory of files, opened for reading only. Needs no write permission.
#[derive(Debug)]
pub(crate) struct ReadOnlyDirectory {
    location: String,
    directory: Directory,
}

impl ReadOnlyDirectory {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let directory = Directory::open(path)?;
        Ok(ReadOnlyDirectory { location: path.display().to_string(), directory })
    }

    /// Returns the process that has the log open for writing, if the system lists it. It does not
    /// try the lock, because that could fail an opening that runs at the same moment.
    pub(crate) fn owner_pid(&self) -> Option<u32> {
        #[cfg(target_os = "linux")]
        {
            let locks = std::fs::read_to_string("/proc/locks").ok()?;
            // If a directory cannot be locked, `LOCK` is the only lock.
            [None, Some(super::lock::LOCK_FILE)].into_iter().find_map(|name| {
                let (inode, dev) = self.directory.inode(name).ok()?;
                owner_in(&locks, inode, device(dev))
            })
        }
        #[cfg(not(target_os = "linux"))]
        None
    }
}

/// Formats a device's numbers as `/proc/locks` does.
#[cfg(target_os = "linux")]
fn device(dev: u64) -> String {
    let major = (dev >> 8) & 0xfff | (dev >> 32) & !0xfff;
    let minor = dev & 0xff | (dev >> 12) & 0xff_ff00;
    format!("{major:02x}:{minor:02x}")
}

/// Returns the holder of a file's lock. Some file systems list another device number there than
/// `stat` returns. So a line with another device counts if no line has the same one.
#[cfg(target_os = "linux")]
fn owner_in(locks: &str, inode: u64, device: String) -> Option<u32> {
    let held = locks.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        if words.next()? != "FLOCK" {
            return None;
        }
        let pid = words.nth(2)?.parse().ok()?;
        let (at, file) = words.next()?.rsplit_once(':')?;
        (file.parse() == Ok(inode)).then_some((at == device, pid))
    });
    held.max_by_key(|(is_same_device, _)| *is_same_device).map(|(_, pid)| pid)
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Storage for ReadOnlyDirectory {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn lock(&self) -> io::Result<Locking> {
        refused()
    }

    /// Fails if another directory has replaced this one. The log's own files would never be listed
    /// again.
    fn list(&self) -> io::Result<Vec<String>> {
        match self.check_place()? {
            Place::Kept => names_in(&self.directory),
            place => Err(io::Error::new(io::ErrorKind::StaleNetworkFileHandle, place.to_string())),
        }
    }

    fn stamp(&self) -> io::Result<Option<u128>> {
        self.directory.stamp()
    }

    fn check_place(&self) -> io::Result<Place> {
        self.directory.place()
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn StorageFile>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.directory.open_to_read(name)?;
        Ok(Box::new(DirectoryFile { file, copies_on_write: false, writes_zeroes: Arc::default() }))
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self) -> io::Result<()> {
        refused()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn lock_owner_is_read_from_proc_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 08:01:42 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 00:2a:42 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 10 00:2a:42 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 08:01:42 0 EOF\n";
        assert_eq!(owner_in(locks, 42, device(0x801)), Some(9));
        assert!(owner_in(locks, 42, "fd:00".to_owned()).is_some());
        assert_eq!(owner_in(locks, 43, device(0x801)), None);
    }
}
