//! A directory that is only looked at: whatever would change it is refused before it reaches the
//! operating system.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{DirectoryFile, names_in};
use crate::storage::{Locking, Storage, StorageFile};

/// A directory of files, opened for reading alone. Needs no right to write there.
#[derive(Debug)]
pub(crate) struct ReadOnlyDirectory {
    directory: PathBuf,
}

impl ReadOnlyDirectory {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        if !fs::metadata(directory)?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory"));
        }
        Ok(ReadOnlyDirectory { directory: directory.to_path_buf() })
    }

    /// The process that has the log open for writing, where that can be told without trying the
    /// lock: a try would make an opening fail that comes at the same moment.
    pub(crate) fn owner_pid(&self) -> Option<u32> {
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::fs::MetadataExt;
            let lock = fs::metadata(self.directory.join(super::LOCK_FILE)).ok()?;
            owner_in(&fs::read_to_string("/proc/locks").ok()?, lock.ino(), device(lock.dev()))
        }
        #[cfg(not(target_os = "linux"))]
        None
    }
}

/// The device's numbers, as `/proc/locks` writes them.
#[cfg(target_os = "linux")]
fn device(dev: u64) -> String {
    let major = (dev >> 8) & 0xfff | (dev >> 32) & !0xfff;
    let minor = dev & 0xff | (dev >> 12) & 0xff_ff00;
    format!("{major:02x}:{minor:02x}")
}

/// Who holds the lock on a file. Some file systems show another device number there than to those
/// who ask for the file's, so a line with another device counts if none has the same one.
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
        self.directory.display().to_string()
    }

    fn lock(&self) -> io::Result<Locking> {
        refused()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        names_in(&self.directory)
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn StorageFile>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(DirectoryFile { file: File::open(self.directory.join(name))? }))
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
    fn the_owner_of_a_lock_is_read_from_the_kernels_table() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 08:01:42 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 00:2a:42 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 10 00:2a:42 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 08:01:42 0 EOF\n";
        assert_eq!(owner_in(locks, 42, device(0x801)), Some(9));
        assert!(owner_in(locks, 42, "fd:00".to_owned()).is_some());
        assert_eq!(owner_in(locks, 43, device(0x801)), None);
    }
}
