//! One open segment file. Its errors name the file and the offset; a failed sync stays failed.

use std::ops::Range;

use crate::{
    error::{Error, Result},
    sabotage::{self, Sabotage},
    segments::name::Sequence,
    storage::{Storage, StorageFile, read_full, uninterrupted, write_full, write_full_durably},
    sync::Mutex,
    turn::lock_always_over_io,
};

/// An open segment file. It closes with its last user.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    sequence: Sequence,
    name: String,
    /// The log's directory, for errors.
    directory: String,
    file: Box<dyn StorageFile>,
    /// The first failure of a sync. The lock is held during a sync, because the kernel reports a
    /// failed write-back once per open file. Of two concurrent syncs, one could return success for
    /// bytes that the other has just reported as lost.
    sync_failure: Mutex<Option<Error>>,
}

impl SegmentFile {
    pub(crate) fn create(storage: &dyn Storage, sequence: Sequence) -> Result<Self> {
        let name = sequence.file_name();
        match storage.create(&name) {
            Ok(file) => Ok(Self::new(storage, sequence, file)),
            Err(error) => Err(Error::io("creating", name, None, error).in_log(&storage.location())),
        }
    }

    pub(crate) fn open(storage: &dyn Storage, sequence: Sequence) -> Result<Self> {
        let name = sequence.file_name();
        match storage.open(&name) {
            Ok(file) => Ok(Self::new(storage, sequence, file)),
            Err(error) => Err(Error::io("opening", name, None, error).in_log(&storage.location())),
        }
    }

    fn new(storage: &dyn Storage, sequence: Sequence, file: Box<dyn StorageFile>) -> Self {
        let (name, directory) = (sequence.file_name(), storage.location());
        SegmentFile { sequence, name, directory, file, sync_failure: Mutex::new(None) }
    }

    /// Returns the log's directory, for errors.
    pub(crate) fn directory(&self) -> &str {
        &self.directory
    }

    pub(crate) fn sequence(&self) -> Sequence {
        self.sequence
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn bytes(&self) -> Result<u64> {
        self.file.len().map_err(|error| self.failed("reading the length of", None, error))
    }

    pub(crate) fn link_count(&self) -> Result<u64> {
        match self.file.link_count() {
            // Without a count, one name is assumed. The log overwrites only its newest file, and
            // never links that one.
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(1),
            Err(error) => Err(self.failed("counting the names of", None, error)),
            Ok(count) => Ok(count),
        }
    }

    pub(crate) fn reserve(&self, bytes: u64) -> Result<()> {
        uninterrupted(|| self.file.reserve(bytes))
            .map_err(|error| self.failed("allocating", bytes, error))
    }

    /// Returns whether the range reads as zeros now, in written space. A failure counts as a
    /// refusal, because the writes that follow report a failure that lasts.
    pub(crate) fn write_zeroes(&self, range: Range<u64>) -> bool {
        uninterrupted(|| self.file.write_zeroes(range.clone())).is_ok()
    }

    pub(crate) fn set_len(&self, bytes: u64) -> Result<()> {
        uninterrupted(|| self.file.set_len(bytes))
            .map_err(|error| self.failed("setting the length of", bytes, error))
    }

    /// Reads until `buffer` is full or the file ends, and returns the count.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        read_full(self.file.as_ref(), buffer, offset)
            .map_err(|error| self.failed("reading", offset, error))
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        write_full(self.file.as_ref(), bytes, offset)
            .map_err(|error| self.failed("writing", offset, error))
    }

    /// Writes as much as it can without blocking, and returns the count. `None` if the storage
    /// cannot write without blocking. A failure counts as 0 bytes, because the blocking write that
    /// follows reports it.
    pub(crate) fn write_at_nonblocking(&self, bytes: &[u8], offset: u64) -> Option<usize> {
        match self.file.write_at_nonblocking(bytes, offset) {
            Ok(count) => Some(count),
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => None,
            Err(_) => Some(0),
        }
    }

    /// Writes the bytes and makes them durable. Returns `false` if the storage cannot do that; then
    /// nothing was written. A failure counts as a failed sync.
    pub(crate) fn write_at_durably(&self, bytes: &[u8], offset: u64) -> Result<bool> {
        if sabotage::is_on(Sabotage::DropDurability) {
            return self.write_at(bytes, offset).map(|()| true);
        }
        let mut failure = lock_always_over_io(&self.sync_failure);
        if let Some(error) = failure.as_ref() {
            return Err(error.clone());
        }
        match write_full_durably(self.file.as_ref(), bytes, offset) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(false),
            Err(error) => {
                let error = self.failed("durably writing", offset, error);
                *failure = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Makes all written bytes durable. After one failure all later calls fail, because a later
    /// success would only mean that the lost pages are no longer dirty.
    pub(crate) fn sync_data(&self) -> Result<()> {
        self.sync_once(|file| file.sync_data())
    }

    pub(crate) fn sync_all(&self) -> Result<()> {
        self.sync_once(|file| file.sync_all())
    }

    fn sync_once(&self, sync: impl Fn(&dyn StorageFile) -> std::io::Result<()>) -> Result<()> {
        let mut failure = lock_always_over_io(&self.sync_failure);
        if let Some(error) = failure.as_ref() {
            return Err(error.clone());
        }
        uninterrupted(|| sync(self.file.as_ref())).or_else(|error| {
            let error = self.failed("syncing", None, error);
            if sabotage::is_on(Sabotage::RetryFailedFlush) {
                return sync(self.file.as_ref()).or(Err(error));
            }
            if sabotage::is_on(Sabotage::BlameOneWaiter) {
                return Err(error);
            }
            *failure = Some(error.clone());
            Err(error)
        })
    }

    fn failed(
        &self,
        operation: &'static str,
        offset: impl Into<Option<u64>>,
        error: std::io::Error,
    ) -> Error {
        Error::io(operation, &self.name, offset.into(), error).in_log(&self.directory)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::storage::MemoryStorage;

    #[derive(Debug)]
    struct FailsOnce(AtomicBool);

    impl StorageFile for FailsOnce {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(0)
        }
        fn write_at(&self, bytes: &[u8], _: u64) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync_data(&self) -> io::Result<()> {
            if self.0.swap(true, Ordering::Relaxed) {
                Ok(())
            } else {
                Err(io::ErrorKind::Other.into())
            }
        }
        fn sync_all(&self) -> io::Result<()> {
            self.sync_data()
        }
    }

    /// As on Linux: the second call succeeds although the pages are lost.
    #[test]
    fn failed_sync_fails_all_later_syncs() {
        let file = Box::new(FailsOnce(AtomicBool::new(false)));
        let file = SegmentFile::new(&MemoryStorage::new(), Sequence(1), file);
        assert!(file.sync_data().is_err());
        assert!(file.sync_data().is_err());
        assert!(file.sync_all().is_err());
    }
}
