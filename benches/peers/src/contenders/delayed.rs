//! A storage whose flushes take 1 ms more, as on a laptop's NVMe without power-loss protection.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use highwater::storage::{FileStorage, Locking, Place, Storage, StorageFile};

/// The time that is added to each flush.
const DELAY: Duration = Duration::from_millis(1);

/// Waits as long as the slow device takes longer. Call it after each flush.
///
/// The floor and the storage share this function, so that both sleep equally precisely.
pub fn wait() {
    thread_local! {
        // SAFETY: only sets this thread's timer slack, to 1 ns instead of 50 µs.
        static PRECISE: i32 = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    }
    PRECISE.with(|result| assert_eq!(*result, 0, "the timer slack can be set"));
    thread::sleep(DELAY);
}

/// The files of a directory, with slow flushes. Everything else is that of [`FileStorage`].
#[derive(Debug)]
pub struct DelayedStorage(FileStorage);

impl DelayedStorage {
    pub fn create(directory: &Path) -> Self {
        DelayedStorage(FileStorage::create(directory).unwrap())
    }
}

impl Storage for DelayedStorage {
    fn location(&self) -> String {
        self.0.location()
    }

    fn is_nonblocking(&self) -> bool {
        self.0.is_nonblocking()
    }

    fn lock(&self) -> io::Result<Locking> {
        self.0.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn stamp(&self) -> io::Result<Option<u128>> {
        self.0.stamp()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(DelayedFile(self.0.create(name)?)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(DelayedFile(self.0.open(name)?)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.link(from, to)
    }

    fn link_from(&self, source: &dyn Storage, name: &str) -> io::Result<()> {
        self.0.link_from(source, name)
    }

    fn path_of(&self, name: &str) -> Option<PathBuf> {
        self.0.path_of(name)
    }

    fn check_place(&self) -> io::Result<Place> {
        self.0.check_place()
    }

    fn overwrites_in_place(&self) -> bool {
        self.0.overwrites_in_place()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()?;
        wait();
        Ok(())
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.0.random()
    }

    fn unix_ms(&self) -> u64 {
        self.0.unix_ms()
    }
}

#[derive(Debug)]
struct DelayedFile(Box<dyn StorageFile>);

impl StorageFile for DelayedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn write_at_nonblocking(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at_nonblocking(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn link_count(&self) -> io::Result<u64> {
        self.0.link_count()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.0.reserve(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()?;
        wait();
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()?;
        wait();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn wait_takes_the_delay() {
        let begun = Instant::now();
        wait();
        assert!(begun.elapsed() >= DELAY);
    }
}
