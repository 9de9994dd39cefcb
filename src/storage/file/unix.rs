//! The file system calls of Linux, macOS and the BSDs.

use std::{
    fs::{DirBuilder, File},
    io,
    ops::Range,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, linkat,
        openat, renameat, stat, statat, unlinkat,
    },
    io::{Errno, retry_on_intr},
};

use super::kind;
use crate::storage::Place;

/// An open directory. It stays the same directory even if its name changes.
#[derive(Debug)]
pub(super) struct Directory {
    file: File,
    /// Absolute, so that it does not depend on the working directory.
    path: PathBuf,
}

/// The result of an attempt to lock a directory.
#[derive(Debug)]
pub(super) enum OnDirectory {
    Held(File),
    Busy,
    /// The file system cannot lock directories.
    Unsupported,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How many times `LOCK` may be removed between its opening and its locking.
const LOCK_ATTEMPTS: u32 = 8;

impl Directory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        match retry_on_intr(|| openat(CWD, &path, DIRECTORY, Mode::empty())) {
            Ok(file) => Ok(Directory { file: File::from(file), path }),
            Err(Errno::NOTDIR) => {
                Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the path at which the directory was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns device and inode, which identify the directory on this machine.
    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Returns the times of the directory, which change with its names.
    pub(super) fn stamp(&self) -> io::Result<Option<u128>> {
        let found = self.file.metadata()?;
        let nanoseconds = |seconds: i64, rest: i64| {
            (i128::from(seconds) * 1_000_000_000 + i128::from(rest)).unsigned_abs()
        };
        let modified = nanoseconds(found.mtime(), found.mtime_nsec());
        let changed = nanoseconds(found.ctime(), found.ctime_nsec());
        Ok(Some(modified << 64 | (changed & u128::from(u64::MAX))))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Makes the directory's own entry durable.
    pub(super) fn sync_own_entry(&self) -> io::Result<()> {
        match retry_on_intr(|| openat(&self.file, "..", DIRECTORY, Mode::empty())) {
            Ok(parent) => File::from(parent).sync_all(),
            // A parent that cannot be read cannot be synced by itself.
            Err(Errno::ACCESS | Errno::PERM) => self.sync_file_system(),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn sync_file_system(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.file)?)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn sync_file_system(&self) -> io::Result<()> {
        rustix::fs::sync();
        self.sync()
    }

    /// Returns whether the directory is still at its path.
    pub(super) fn place(&self) -> io::Result<Place> {
        let own = fstat(&self.file)?;
        if own.st_nlink == 0 {
            return Ok(Place::Removed);
        }
        match stat(&self.path) {
            Ok(found) if is_same(&own, &found) => Ok(Place::Kept),
            Ok(_) => Ok(Place::Replaced),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Place::Moved),
            // For example, a process that dropped its permissions cannot find out whether the
            // directory moved.
            Err(_) => Ok(Place::Kept),
        }
    }

    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.file)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    fn open_with(&self, name: &str, flags: OFlags, mode: Mode) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC;
        Ok(File::from(retry_on_intr(|| openat(&self.file, name, flags, mode))?))
    }

    pub(super) fn create(&self, name: &str, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        self.open_with(name, flags, permissions(mode))
    }

    pub(super) fn open_to_write(&self, name: &str) -> io::Result<File> {
        self.open_regular(name, OFlags::RDWR)
    }

    pub(super) fn open_to_read(&self, name: &str) -> io::Result<File> {
        self.open_regular(name, OFlags::RDONLY)
    }

    /// Opens a regular file. It neither waits for the other end of a FIFO nor makes a terminal the
    /// controlling one.
    fn open_regular(&self, name: &str, access: OFlags) -> io::Result<File> {
        let at_once = access | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self.open_with(name, at_once, Mode::empty()) {
            Ok(file) => kind::regular_file(file),
            // A regular file on which another process holds a lease.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.open_with(name, access, Mode::empty()).and_then(kind::regular_file)
            }
            Err(error) => Err(kind::explained(error, &self.path.join(name))),
        }
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.file, name, AtFlags::empty())?)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.file, from, &self.file, to)?)
    }

    pub(super) fn link(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(linkat(&self.file, from, &self.file, to, AtFlags::empty())?)
    }

    pub(super) fn link_from(&self, path: &Path, name: &str) -> io::Result<()> {
        Ok(linkat(CWD, path, &self.file, name, AtFlags::empty())?)
    }

    /// Locks the directory itself. The lock belongs to the open file, so it also excludes a second
    /// handle in this process. It is freed when the last descriptor of that file is closed.
    pub(super) fn lock(&self) -> io::Result<OnDirectory> {
        let file = self.open_with(".", DIRECTORY, Mode::empty())?;
        match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => Ok(OnDirectory::Held(file)),
            Err(Errno::WOULDBLOCK) => Ok(OnDirectory::Busy),
            // NFS locks only files that are open for writing, which no directory is.
            Err(
                Errno::BADF
                | Errno::INVAL
                | Errno::NOLCK
                | Errno::NOSYS
                | Errno::ISDIR
                | Errno::OPNOTSUPP
                | Errno::ACCESS
                | Errno::PERM,
            ) => Ok(OnDirectory::Unsupported),
            Err(error) if error == Errno::NOTSUP => Ok(OnDirectory::Unsupported),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens or creates a plain file and locks it; `None` if another process has the lock. It
    /// follows no link, so that no foreign file is written.
    pub(super) fn lock_file(&self, name: &str, mode: u32) -> io::Result<Option<File>> {
        for _ in 0..LOCK_ATTEMPTS {
            // A device may react to being opened.
            match self.look(name) {
                Ok(found) if !is_plain(&found) => return Err(not_plain(name)),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let file = self.open_with(name, flags, permissions(mode))?;
            if !is_plain(&fstat(&file)?) {
                return Err(not_plain(name));
            }
            match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
                Ok(()) if self.is_named(&file, name)? => return Ok(Some(file)),
                // The file was removed meanwhile: the lock is on a file that no other process can
                // find.
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Opens a plain file for reading.
    pub(super) fn open_plain(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        if !is_plain(&self.look(name)?) {
            return Err(not_plain(name));
        }
        self.open_with(name, flags, Mode::empty())
    }

    /// Returns whether `file` still has this name.
    pub(super) fn is_named(&self, file: &File, name: &str) -> io::Result<bool> {
        match self.look(name) {
            Ok(found) => Ok(is_same(&found, &fstat(file)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn look(&self, name: &str) -> io::Result<Stat> {
        Ok(statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Returns whether overwritten bytes go to new blocks.
    pub(super) fn copies_on_write(&self) -> bool {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            // The type has 32 bits, and is signed on some machines.
            let kind = rustix::fs::fstatfs(&self.file).map(|found| found.f_type as u64);
            kind.is_ok_and(|kind| is_copy_on_write(kind & 0xffff_ffff))
        }
        // Apple's systems use APFS.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            cfg!(target_vendor = "apple")
        }
    }

    /// Returns inode and device of a file as `/proc/locks` lists them; those of the directory for
    /// `None`.
    #[cfg(target_os = "linux")]
    pub(super) fn inode(&self, name: Option<&str>) -> io::Result<(u64, u64)> {
        let found = match name {
            Some(name) => self.look(name)?,
            None => fstat(&self.file)?,
        };
        Ok((found.st_ino, found.st_dev))
    }
}

/// Returns whether a file system of this kind never overwrites a block in place.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_copy_on_write(kind: u64) -> bool {
    const BTRFS: u64 = 0x9123_683e;
    const BCACHEFS: u64 = 0xca45_1a4e;
    const ZFS: u64 = 0x2fc1_2fc1;
    const NILFS: u64 = 0x3434;
    const F2FS: u64 = 0xf2f5_2010;
    [BTRFS, BCACHEFS, ZFS, NILFS, F2FS].contains(&kind)
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    one.st_dev == other.st_dev && one.st_ino == other.st_ino
}

fn is_plain(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn not_plain(name: &str) -> io::Error {
    let what = format!("`{name}` is not a plain file; remove it");
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Returns the permissions of a new file. The process's umask applies too.
fn permissions(mode: u32) -> Mode {
    let bits = [
        (0o400, Mode::RUSR),
        (0o200, Mode::WUSR),
        (0o040, Mode::RGRP),
        (0o020, Mode::WGRP),
        (0o004, Mode::ROTH),
        (0o002, Mode::WOTH),
    ];
    bits.into_iter().filter(|(bit, _)| mode & bit != 0).map(|(_, flag)| flag).collect()
}

/// Creates a directory for files of this mode. All users that can read the files can enter it.
pub(super) fn create_directory(path: &Path, file_mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(file_mode | (file_mode & 0o444) >> 2).create(path)
}

/// Frees the lock, even if a forked process inherited the descriptor.
pub(super) fn unlock(file: &File) {
    // Closing the file frees the lock only if no other process has it open.
    let _ = flock(file, FlockOperation::Unlock);
}

pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(buffer, offset)
}

/// Bypasses the C library, which makes each call a cancellation point. That would add about 50 ns
/// to a small write.
pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::pwrite(file, bytes, offset)?)
}

/// Supported by XFS, and by Btrfs at times. Not supported by ext4, nor outside Linux.
#[cfg(target_os = "linux")]
pub(super) fn write_at_nonblocking(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    write_with(rustix::io::ReadWriteFlags::NOWAIT, file, bytes, offset)
}

/// Supported by every file system since Linux 4.7.
#[cfg(target_os = "linux")]
pub(super) fn write_at_durably(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    write_with(rustix::io::ReadWriteFlags::DSYNC, file, bytes, offset)
}

#[cfg(target_os = "linux")]
fn write_with(
    flags: rustix::io::ReadWriteFlags,
    file: &File,
    bytes: &[u8],
    offset: u64,
) -> io::Result<usize> {
    rustix::io::pwritev2(file, &[io::IoSlice::new(bytes)], offset, flags).map_err(|error| {
        match error {
            // Older kernels do not know the flag or the call.
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => io::ErrorKind::Unsupported.into(),
            error => error.into(),
        }
    })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn write_at_durably(_: &File, _: &[u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn write_at_nonblocking(_: &File, _: &[u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Uses `F_PREALLOCATE` and `ftruncate` on Apple's systems.
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
        // A file system without `fallocate` still works; a full disk is then found by a write.
        // FreeBSD returns INVAL on ZFS. Apple returns NOTSUP, which elsewhere has the same number
        // as OPNOTSUPP.
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

/// Supported since Linux 6.17 by ext4 and XFS, on devices that zero without a transfer and then
/// read zeros.
#[cfg(target_os = "linux")]
pub(super) fn write_zeroes(file: &File, range: Range<u64>) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    // `FALLOC_FL_WRITE_ZEROES`, which rustix does not name yet.
    let flag = FallocateFlags::from_bits_retain(0x80);
    let bytes = range.end.saturating_sub(range.start);
    fallocate(file, flag, range.start, bytes).map_err(|error| match error {
        Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => io::ErrorKind::Unsupported.into(),
        error => error.into(),
    })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn write_zeroes(_: &File, _: Range<u64>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Fails if fewer bytes are free. A copy-on-write file system writes a rewritten page to a new
/// block and keeps the old one reserved. So a file may take twice its length.
pub(super) fn check_free(file: &File, bytes: u64) -> io::Result<()> {
    let found = rustix::fs::fstatvfs(file)?;
    if found.f_bavail.saturating_mul(found.f_frsize) < bytes {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

pub(super) fn link_count(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.nlink())
}
