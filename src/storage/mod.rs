//! Where a log keeps its bytes: a small blocking trait, and the storages that implement it.
//!
//! A storage knows names and bytes and nothing of records. Everything the log does to a disk goes
//! through here, so a decorator sees (and can delay, fail or drop) all of it.

mod file;
mod memory;
mod rw;

use std::{any::Any, fmt, io, path::PathBuf};

pub use file::FileStorage;
pub(crate) use file::ReadOnlyDirectory;
pub use memory::MemoryStorage;
pub(crate) use rw::{read_full, uninterrupted, write_full};

/// The directory of one log.
///
/// Calls block; the log makes them from its runtime's blocking pool, or in place if
/// [`is_nonblocking`](Storage::is_nonblocking).
///
/// # To ensure correctness
///
/// - What `sync_data` or `sync_all` of a file covered survives a loss of power, with the length.
/// - A creation, link, renaming or removal survives a loss of power once a later `sync_dir` returned.
/// - New bytes of a file that was made longer read as zeros.
/// - A read error is an error, never a short read; a short read is the end of the file or a
///   shorter transfer, and 0 bytes mean the end.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// The place as error messages name it.
    fn location(&self) -> String;

    /// Whether no call ever waits for a device. The log then runs its I/O in place, on the task
    /// that asks for it, which makes it deterministic.
    fn is_nonblocking(&self) -> bool {
        false
    }

    /// Takes the lock that keeps a second writer out, or says who has it.
    ///
    /// # Errors
    ///
    /// What the device answers.
    fn lock(&self) -> io::Result<Locking>;

    /// The names of all files.
    ///
    /// # Errors
    ///
    /// What the device answers.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates a file that must not exist yet.
    ///
    /// # Errors
    ///
    /// What the device answers; `AlreadyExists` if the name is taken.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;

    /// Opens a file that exists, for reading and writing.
    ///
    /// # Errors
    ///
    /// What the device answers; `NotFound` if there is no such file.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// What the device answers.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, replacing what has it.
    ///
    /// # Errors
    ///
    /// What the device answers.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives a file a second name, which must not be taken; both are the same bytes from then on.
    /// A log never writes to a file that it has linked.
    ///
    /// # Errors
    ///
    /// What the device answers; `Unsupported` where files can't have two names, which is what this
    /// does unless it is implemented: the log copies then.
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let _ = (from, to);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives a file of another storage a second name here, the same as it has there.
    ///
    /// # Errors
    ///
    /// As [`link`](Storage::link); what the device answers, for instance if the two are not on one
    /// file system.
    fn link_from(&self, source: &dyn Storage, name: &str) -> io::Result<()> {
        let _ = (source, name);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Where a file stands in the file system, if that is where this storage keeps its files.
    fn path_of(&self, name: &str) -> Option<PathBuf> {
        let _ = name;
        None
    }

    /// Makes creations, links, renamings and removals so far durable.
    ///
    /// # Errors
    ///
    /// What the device answers.
    fn sync_dir(&self) -> io::Result<()>;

    /// Sixteen random bytes, for the ids of logs and segments.
    ///
    /// # Errors
    ///
    /// If the system has no source of randomness.
    fn random(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }

    /// The time, for people who look at a segment's header.
    fn unix_ms(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// One open file. Positional calls only, from any thread.
pub trait StorageFile: fmt::Debug + Send + Sync {
    /// Reads at `offset`; may be short; 0 at the end of the file.
    ///
    /// # Errors
    ///
    /// What the device answers.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`; may be short.
    ///
    /// # Errors
    ///
    /// What the device answers.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// As [`write_at`](StorageFile::write_at), without waiting for the device, for memory or for
    /// anybody: short or `WouldBlock` instead. An append then writes on its own thread, and only what
    /// is left goes to the blocking pool.
    ///
    /// # Errors
    ///
    /// `WouldBlock`; `Unsupported` if that can't be promised, which is what this answers unless it is
    /// implemented, and which is taken to be so for good; what the device answers.
    fn write_at_nonblocking(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let _ = (bytes, offset);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The length of the file.
    ///
    /// # Errors
    ///
    /// What the device answers.
    fn len(&self) -> io::Result<u64>;

    /// How many names the file has. A log doesn't write in place to one that has more than one.
    ///
    /// # Errors
    ///
    /// What the device answers; `Unsupported` where that can't be told, and then
    /// [`recycle_segments`](crate::Options::recycle_segments) recycles none.
    fn link_count(&self) -> io::Result<u64> {
        Ok(1)
    }

    /// Whether the file has no bytes.
    ///
    /// # Errors
    ///
    /// What the device answers.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file or makes it longer, with zeros.
    ///
    /// # Errors
    ///
    /// What the device answers.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Makes the file this long and reserves the space, where the platform can; elsewhere only
    /// makes it this long.
    ///
    /// # Errors
    ///
    /// `StorageFull` if the space isn't there; what the device answers.
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    /// Makes the file's bytes, and what of its metadata is needed to read them, durable.
    ///
    /// # Errors
    ///
    /// What the device answers. After a failure nothing may be assumed of unsynced bytes.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`sync_data`](StorageFile::sync_data), with all metadata.
    ///
    /// # Errors
    ///
    /// As `sync_data`.
    fn sync_all(&self) -> io::Result<()>;
}

/// The answer of [`Storage::lock`].
#[derive(Debug)]
pub enum Locking {
    /// The lock is held until the value is dropped.
    Held(Box<dyn Any + Send + Sync>),
    /// Somebody else has it: the process with this id, if it could be read.
    Busy {
        /// The owner's process id.
        owner_pid: Option<u32>,
    },
}
