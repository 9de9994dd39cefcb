//! The storage of a log: a small blocking trait, and the types that implement it.
//!
//! A storage knows names and bytes, and nothing of records. The log does all its I/O through this
//! trait. So a decorator sees all of it, and can delay it, fail it or drop it.

mod file;
mod memory;
mod rw;

use std::{any::Any, fmt, io, ops::Range, path::PathBuf};

pub use file::FileStorage;
pub(crate) use file::ReadOnlyDirectory;
#[cfg(feature = "simulation")]
pub(crate) use memory::LockFlag;
pub use memory::MemoryStorage;
pub(crate) use rw::{
    copy_out, not_found, read_full, to_usize, uninterrupted, write_full, write_full_durably,
};

use crate::lock_owner::LockOwner;

/// The directory of one log: files by name.
///
/// Calls block. The log makes them on its runtime's blocking pool, or in place if
/// [`is_nonblocking`](Storage::is_nonblocking).
///
/// # To ensure correctness
///
/// - The log calls a storage under its own locks. So neither a call nor the drop of a file or lock
///   may call the log, or wait for something that does.
/// - Bytes that `sync_data` or `sync_all` of a file covered survive a loss of power. So does the
///   file's length.
/// - A created, linked, renamed or removed name survives a loss of power once a later `sync_dir`
///   has returned.
/// - The new bytes of a file that was made longer read as zeros.
/// - A read error is returned as an error, never as a short read. A short read means the end of the
///   file or a shorter transfer; 0 bytes mean the end.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Returns the location for error messages.
    fn location(&self) -> String;

    /// Returns whether calls never wait for a device. The log then runs its I/O in place, on the
    /// task that needs it, which makes the log deterministic.
    fn is_nonblocking(&self) -> bool {
        false
    }

    /// Takes the lock that excludes a second writer, or returns its owner.
    ///
    /// # Errors
    ///
    /// The device's error.
    fn lock(&self) -> io::Result<Locking>;

    /// Returns the names of all files.
    ///
    /// # Errors
    ///
    /// The device's error.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Returns a value that changes when a file is created, renamed or removed.
    ///
    /// A follower of the log lists the files when the value changes, and otherwise looks at the
    /// newest file only. Two changes within two seconds may give the same value. With `None`, the
    /// default, a follower lists the files at each poll.
    ///
    /// # Errors
    ///
    /// The device's error.
    fn stamp(&self) -> io::Result<Option<u128>> {
        Ok(None)
    }

    /// Creates a file. The name must not be taken.
    ///
    /// # Errors
    ///
    /// The device's error; `AlreadyExists` if the name is taken.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    ///
    /// The device's error; `NotFound` if there is no such file.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// The device's error.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Renames a file. A file that has the new name is replaced.
    ///
    /// # Errors
    ///
    /// The device's error.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives a file a second name for the same bytes. The name must not be taken. A log never
    /// writes to a file that it has linked.
    ///
    /// # Errors
    ///
    /// The device's error; `Unsupported` if files cannot have two names. The log then copies the
    /// file. This is what the default implementation returns.
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let _ = (from, to);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives a file of another storage a second name in this one. The name stays the same.
    ///
    /// # Errors
    ///
    /// As [`link`](Storage::link). The device's error, for instance if the storages are on two file
    /// systems.
    fn link_from(&self, source: &dyn Storage, name: &str) -> io::Result<()> {
        let _ = (source, name);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the absolute path of a file, if the files are in the file system.
    fn path_of(&self, name: &str) -> Option<PathBuf> {
        let _ = name;
        None
    }

    /// Returns whether the directory was removed, renamed or replaced since it was opened.
    ///
    /// The log checks this before each new segment and when it is closed. It stops if the result is
    /// not [`Place::Kept`].
    ///
    /// # Errors
    ///
    /// The operating system's error, if the check fails.
    fn check_place(&self) -> io::Result<Place> {
        Ok(Place::Kept)
    }

    /// Returns whether overwritten bytes keep their place on the device.
    ///
    /// If not (btrfs, ZFS), zeros that are written ahead of need would take space twice. The log
    /// then only reserves the space of its segments, and reuses no file.
    fn overwrites_in_place(&self) -> bool {
        true
    }

    /// Makes all creations, links, renames and removals so far durable.
    ///
    /// # Errors
    ///
    /// The device's error.
    fn sync_dir(&self) -> io::Result<()>;

    /// Returns 16 random bytes, for the ids of logs and segments.
    ///
    /// # Errors
    ///
    /// The system's error, if it has no source of randomness.
    fn random(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }

    /// Returns the time in ms since 1970, for people who read a segment's header.
    fn unix_ms(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// An open file. All calls are positional, and may come from any thread.
pub trait StorageFile: fmt::Debug + Send + Sync {
    /// Reads at `offset` and returns the count. The count may be short; it is 0 at the end of the
    /// file.
    ///
    /// # Errors
    ///
    /// The device's error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset` and returns the count, which may be short.
    ///
    /// # Errors
    ///
    /// The device's error.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// As [`write_at`](StorageFile::write_at), but never waits for the device, memory or a lock. It
    /// returns a short count or `WouldBlock` instead. An append then writes on its own thread, and
    /// only the rest goes to the blocking pool.
    ///
    /// # Errors
    ///
    /// `WouldBlock`; `Unsupported` if the file cannot guarantee that, which is the default. An open
    /// log then never calls this method again. Else the device's error.
    fn write_at_nonblocking(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let _ = (bytes, offset);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// As [`write_at`](StorageFile::write_at), and makes these bytes durable before it returns, with
    /// the metadata that is needed to read them. Other bytes of the file may stay unsynced.
    ///
    /// A log calls it only with [`SyncMethod::Dsync`](crate::SyncMethod::Dsync). On Linux it is
    /// `pwritev2` with `RWF_DSYNC`.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the file cannot do that, which is the default. Nothing was written then,
    /// and an open log never calls this method again. Else the device's error. Then the state of
    /// the file's unsynced bytes is unknown, as after a failed
    /// [`sync_data`](StorageFile::sync_data).
    fn write_at_durably(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let _ = (bytes, offset);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the length of the file in bytes.
    ///
    /// # Errors
    ///
    /// The device's error.
    fn len(&self) -> io::Result<u64>;

    /// Returns how many names the file has. A log does not overwrite a file that has more than one.
    ///
    /// # Errors
    ///
    /// The device's error; `Unsupported` if the count is unknown. Then
    /// [`recycle_segments`](crate::Options::recycle_segments) recycles no segment.
    fn link_count(&self) -> io::Result<u64> {
        Ok(1)
    }

    /// Returns whether the file has no bytes.
    ///
    /// # Errors
    ///
    /// The device's error.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Shortens the file, or extends it with zeros.
    ///
    /// # Errors
    ///
    /// The device's error.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Sets the length and reserves the space, if the platform can. Otherwise only sets the length.
    ///
    /// # Errors
    ///
    /// `StorageFull` if there is too little space; else the device's error.
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    /// Makes a range of the file read as zeros, as written bytes, without a transfer of zeros to
    /// the device. A file that ends before the range's end becomes longer.
    ///
    /// Unlike [`reserve`](StorageFile::reserve), a later write into the range changes no metadata.
    /// The log reads the range back, and writes zeros if it finds other bytes. On Linux it is
    /// `fallocate` with `FALLOC_FL_WRITE_ZEROES`.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the file cannot do that, which is the default; else the device's error.
    /// After an error the log writes zeros.
    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        let _ = range;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes the file's bytes durable, with the metadata that is needed to read them.
    ///
    /// # Errors
    ///
    /// The device's error. After a failure the state of unsynced bytes is unknown.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`sync_data`](StorageFile::sync_data), with all of the metadata.
    ///
    /// # Errors
    ///
    /// As `sync_data`.
    fn sync_all(&self) -> io::Result<()>;
}

/// The result of [`Storage::lock`].
#[derive(Debug)]
pub enum Locking {
    /// The lock is held until the value is dropped.
    Held(Box<dyn Any + Send + Sync>),
    /// Another process or handle has the lock.
    Busy {
        /// The owner, if it is known.
        owner: LockOwner,
    },
}

/// The result of [`Storage::check_place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The directory is unchanged since the storage was opened.
    Kept,
    /// The directory was removed.
    Removed,
    /// The directory was renamed, and its path does not exist.
    Moved,
    /// Another directory is at its path.
    Replaced,
    /// The file `LOCK`, which is the only lock here, was removed or replaced. A second writer may
    /// exist.
    Unlocked,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Kept => "the directory is in its place",
            Place::Removed => "the directory was removed",
            Place::Moved => "the directory was renamed",
            Place::Replaced => "another directory is at the log's path",
            Place::Unlocked => "the file LOCK, the only lock here, was removed or replaced",
        })
    }
}
