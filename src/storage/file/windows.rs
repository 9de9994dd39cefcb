//! The file system calls of Windows.

use std::{
    fs::{File, OpenOptions},
    io,
    os::windows::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// Others may read the lock file (to learn who holds it), not write it.
const FILE_SHARE_READ: u32 = 1;
const ERROR_SHARING_VIOLATION: i32 = 32;

/// Directories can't be synced here: NTFS has its entries in a journal, which a flush of any file
/// with changed metadata writes out. `docs/DURABILITY.md`, "Other systems", says what that leaves.
#[derive(Debug)]
pub(super) struct Directory;

impl Directory {
    pub(super) fn open(_path: &Path) -> io::Result<Self> {
        Ok(Directory)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// `None` if somebody else has the file open for writing: an open that doesn't share writing is
/// the lock, and it goes with the handle.
pub(super) fn lock(path: &Path) -> io::Result<Option<File>> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .share_mode(FILE_SHARE_READ)
        .open(path);
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.seek_read(buffer, offset)
}

pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    file.seek_write(bytes, offset)
}

/// Without the attribute of a sparse file, NTFS takes the clusters at once.
pub(super) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)
}

/// Not to be had with what std has. What the log itself links it never writes to: only the newest
/// segment is gone on with, and that one it copies; and no file is used again.
pub(super) fn link_count(_file: &File) -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn write_at_nonblocking(_: &File, _: &[u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}
