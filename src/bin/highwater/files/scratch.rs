//! A file to measure a disk with.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::{
    check::UNREADABLE,
    files::failed,
    output::{Failure, told},
};

/// How a write is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    Data,
    All,
    /// By the write itself (`O_DSYNC`).
    EachWrite,
}

/// A file to measure with, deleted when that is over.
#[derive(Debug)]
pub(crate) struct Scratch {
    file: File,
    /// Holds the lock while it is open.
    _owner: File,
    /// What a measurement needs is prepared but once.
    is_zero_filled: bool,
    path: PathBuf,
}

impl Scratch {
    /// `number` tells apart those that are there at the same time.
    pub(crate) fn create(directory: &Path, number: u32) -> Result<Self, Failure> {
        let path = directory.join(format!("highwater-bench-fsync-{number}.tmp"));
        let mut options = OpenOptions::new();
        // One that a killed run left behind is taken over.
        options.read(true).write(true).create(true).truncate(false);
        let opened = options.open(&path).and_then(|owner| Ok((owner.try_clone()?, owner)));
        let (file, owner) = opened.map_err(|error| failed("creating", &path, &error))?;
        if !lock(&owner) {
            let message = format!("{}: another bench-fsync runs here", path.display());
            return Err(told(UNREADABLE, message));
        }
        Ok(Scratch { file, _owner: owner, is_zero_filled: false, path })
    }

    fn done<T>(&self, what: &str, result: io::Result<T>) -> Result<T, Failure> {
        result.map_err(|error| failed(what, &self.path, &error))
    }

    /// Empty, and its length durable.
    pub(crate) fn empty(&mut self) -> Result<(), Failure> {
        self.is_zero_filled = false;
        let emptied = self.file.set_len(0).and_then(|()| self.file.sync_all());
        self.done("truncating", emptied)
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
        self.done("writing", filled)?;
        self.is_zero_filled = true;
        Ok(())
    }

    /// Reserves space and writes none of it; `false` if this system can't.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<bool, Failure> {
        self.empty()?;
        let reserved = reserve(&self.file, bytes).and_then(|done| {
            self.file.sync_all()?;
            Ok(done)
        });
        self.done("reserving", reserved)
    }

    /// Zero-filled, and open the way that `sync` needs; `false` if this system can't.
    pub(crate) fn open_for(&mut self, sync: Sync, bytes: u64) -> Result<bool, Failure> {
        if !self.is_zero_filled {
            self.zero_fill(bytes)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if sync == Sync::EachWrite && !each_write_synced(&mut options) {
            return Ok(false);
        }
        let opened = options.open(&self.path);
        self.file = self.done("opening", opened)?;
        Ok(true)
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
                Sync::EachWrite => Ok(()),
            }
        };
        let written = write();
        self.done("writing", written)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
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

#[cfg(target_os = "linux")]
fn each_write_synced(options: &mut OpenOptions) -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    let flag = i32::try_from(rustix::fs::OFlags::DSYNC.bits());
    flag.map(|flag| options.custom_flags(flag)).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn each_write_synced(_: &mut OpenOptions) -> bool {
    false
}
