//! A temporary file to measure a disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::Path,
};

use super::{failed, names, temporary::Temporary};
use crate::{
    exit::UNREADABLE,
    output::{Failure, failure},
    text::shown,
};

/// How a write is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    Data,
    All,
    /// Each write is synced by itself (`O_DSYNC`).
    EachWrite,
    /// The same, past the page cache (`O_DIRECT`).
    EachDirectWrite,
}

/// A multiple of the blocks of common devices. Others refuse a direct write.
const ALIGNMENT: usize = 4 << 10;

/// The start of the file names. A random number and the suffix follow.
const STEM: &str = "highwater-bench-fsync";
const SUFFIX: &str = ".tmp";

/// A temporary file to measure with, deleted on drop.
#[derive(Debug)]
pub(crate) struct Scratch {
    file: File,
    /// Holds the file lock while it is open.
    owner: File,
    /// True if the file is filled with zeros. Then a turn need not fill it again.
    is_zero_filled: bool,
    /// The last field, because the file is closed before it is deleted.
    name: Temporary,
}

impl Scratch {
    pub(crate) fn create(directory: &Path) -> Result<Self, Failure> {
        let refused = |error| failed("creating", &directory.join(STEM), &error);
        let (name, owner) =
            Temporary::file_beside(&directory.join(STEM), SUFFIX).map_err(refused)?;
        lock(&owner);
        let file = owner.try_clone().map_err(refused)?;
        Ok(Scratch { file, owner, is_zero_filled: false, name })
    }

    /// Returns the files that killed measurements left. Fails if another measurement runs here.
    pub(crate) fn leftovers(directory: &Path) -> Result<Vec<String>, Failure> {
        let is_ours = |name: &String| name.starts_with(STEM) && name.ends_with(SUFFIX);
        let names: Vec<_> = names(directory)?.into_iter().filter(is_ours).collect();
        for name in &names {
            let path = directory.join(name);
            if open_regular(&path).is_ok_and(|file| !lock(&file)) {
                let message = format!("{}: another bench-fsync runs here", shown(&path));
                return Err(failure(UNREADABLE, message));
            }
        }
        Ok(names)
    }

    fn with_context<T>(&self, what: &str, result: io::Result<T>) -> Result<T, Failure> {
        result.map_err(|error| failed(what, self.name.path(), &error))
    }

    /// Empties the file, and syncs its length.
    pub(crate) fn empty(&mut self) -> Result<(), Failure> {
        self.is_zero_filled = false;
        let emptied = self.file.set_len(0).and_then(|()| self.file.sync_all());
        self.with_context("truncating", emptied)
    }

    pub(crate) fn zero_fill(&mut self, bytes: u64) -> Result<(), Failure> {
        self.empty()?;
        let zeros = vec![0; 1 << 20];
        let mut fill = || {
            self.file.seek(SeekFrom::Start(0))?;
            let mut left = bytes;
            while left > 0 {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
                self.file.write_all(zeros.get(..count).unwrap_or_default())?;
                left -= count as u64;
            }
            self.file.sync_all()
        };
        let filled = fill();
        self.with_context("writing", filled)?;
        self.is_zero_filled = true;
        Ok(())
    }

    /// Reserves space without writing to it. Returns `false` if the system does not support that.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<bool, Failure> {
        self.empty()?;
        let reserved = reserve(&self.file, bytes).and_then(|done| {
            self.file.sync_all()?;
            Ok(done)
        });
        self.with_context("reserving", reserved)
    }

    /// Opens the zero-filled file for `sync`. Returns `false` if the system does not support that.
    pub(crate) fn open_for(&mut self, sync: Sync, bytes: u64) -> Result<bool, Failure> {
        if !self.is_zero_filled {
            self.zero_fill(bytes)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if !each_write_synced(&mut options, sync) {
            return Ok(false);
        }
        let opened = options.open(self.name.path()).and_then(|file| {
            if !is_same(&file, &self.owner)? {
                return Err(io::ErrorKind::NotFound.into());
            }
            if sync == Sync::EachDirectWrite {
                // Some file systems refuse only the write.
                (&file).write_all(aligned(&mut Vec::new(), ALIGNMENT))?;
            }
            Ok(file)
        });
        match opened {
            // The file system has no direct I/O.
            Err(error) if sync == Sync::EachDirectWrite && is_unsupported(&error) => Ok(false),
            opened => {
                self.file = self.with_context("opening", opened)?;
                Ok(true)
            }
        }
    }

    pub(crate) fn write_and_sync(
        &mut self,
        at: u64,
        bytes: &[u8],
        sync: Sync,
    ) -> Result<(), Failure> {
        let mut write = || {
            self.file.seek(SeekFrom::Start(at))?;
            self.file.write_all(bytes)?;
            match sync {
                Sync::Data => self.file.sync_data(),
                Sync::All => self.file.sync_all(),
                Sync::EachWrite | Sync::EachDirectWrite => Ok(()),
            }
        };
        let written = write();
        self.with_context("writing", written)
    }
}

/// Returns `count` zeros in memory that is aligned for a direct write.
pub(crate) fn aligned(memory: &mut Vec<u8>, count: usize) -> &mut [u8] {
    memory.resize(count + ALIGNMENT, 0);
    let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    memory.get_mut(start..start + count).unwrap_or_default()
}

/// Opens a regular file. Follows no link, and does not block on a pipe.
fn open_regular(path: &Path) -> io::Result<File> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
    }
    options.open(path)
}

/// Returns whether both handles are the same file.
#[cfg(unix)]
fn is_same(one: &File, other: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

#[cfg(not(unix))]
fn is_same(_: &File, _: &File) -> io::Result<bool> {
    Ok(true)
}

#[cfg(unix)]
fn lock(file: &File) -> bool {
    use rustix::fs::{FlockOperation, flock};
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[cfg(not(unix))]
fn lock(_: &File) -> bool {
    true
}

#[cfg(target_os = "linux")]
fn reserve(file: &File, bytes: u64) -> io::Result<bool> {
    use rustix::{
        fs::{FallocateFlags, fallocate},
        io::Errno,
    };
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(_: &File, _: u64) -> io::Result<bool> {
    Ok(false)
}

/// Sets the flags for `sync`. Returns `false` if this system has none.
#[cfg(target_os = "linux")]
fn each_write_synced(options: &mut OpenOptions, sync: Sync) -> bool {
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;
    let flags = match sync {
        Sync::Data | Sync::All => return true,
        Sync::EachWrite => OFlags::DSYNC,
        Sync::EachDirectWrite => OFlags::DSYNC | OFlags::DIRECT,
    };
    let flag = i32::try_from((flags | OFlags::NOFOLLOW).bits());
    flag.map(|flag| options.custom_flags(flag)).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn each_write_synced(_: &mut OpenOptions, sync: Sync) -> bool {
    matches!(sync, Sync::Data | Sync::All)
}

/// Returns whether a file can't be opened, or written, in this way.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}
