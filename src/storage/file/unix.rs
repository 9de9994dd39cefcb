//! The file system calls of Linux, macOS and the BSDs.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

#[derive(Debug)]
pub(super) struct Directory(File);

impl Directory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Directory)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// `None` if somebody else holds the lock. It belongs to the open file, so it also keeps out a
/// second handle in this process, and goes with the last one that has it open.
pub(super) fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(buffer, offset)
}

/// Without the C library's, which makes each call a cancellation point: some 50 ns of a small write.
pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::pwrite(file, bytes, offset)?)
}

/// XFS can, and Btrfs at times; ext4 can't, nor can anything but Linux.
#[cfg(target_os = "linux")]
pub(super) fn write_at_nonblocking(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    use rustix::io::{Errno, ReadWriteFlags, pwritev2};
    pwritev2(file, &[io::IoSlice::new(bytes)], offset, ReadWriteFlags::NOWAIT).map_err(|error| {
        match error {
            // An older kernel doesn't know the flag, or the call.
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => io::ErrorKind::Unsupported.into(),
            error => error.into(),
        }
    })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn write_at_nonblocking(_: &File, _: &[u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// On Apple's systems this is `F_PREALLOCATE` and `ftruncate`.
#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_vendor = "apple"
))]
pub(super) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::{
        fs::{FallocateFlags, fallocate},
        io::Errno,
    };
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // A file system without it still works; a full disk is then found while writing. FreeBSD
        // says INVAL on ZFS, Apple NOTSUP, which elsewhere is the same number as OPNOTSUPP.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(bytes),
        Err(error) if error == Errno::NOTSUP => file.set_len(bytes),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_vendor = "apple"
)))]
pub(super) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)
}

pub(super) fn link_count(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.nlink())
}
