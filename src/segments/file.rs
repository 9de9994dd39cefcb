//! One open segment file: positional calls whose errors say where, and a sync that never lies.

use std::sync::PoisonError;

use crate::{
    error::{Error, Result},
    sabotage::{self, Sabotage},
    segments::name::Sequence,
    storage::{Storage, StorageFile, read_full, uninterrupted, write_full},
    sync::Mutex,
    turn::lock_over_io,
};

/// A segment file, open for as long as somebody uses it.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    sequence: Sequence,
    name: String,
    file: Box<dyn StorageFile>,
    /// The first failure of a sync. Held while one runs: the kernel reports a failed write-back
    /// once per open file, so of two syncs side by side one could answer Ok for bytes that the
    /// other has just been told are lost.
    sync_failure: Mutex<Option<Error>>,
}

impl SegmentFile {
    pub(crate) fn create(storage: &dyn Storage, sequence: Sequence) -> Result<Self> {
        let name = sequence.file_name();
        match storage.create(&name) {
            Ok(file) => Ok(Self::new(sequence, name, file)),
            Err(error) => Err(Error::io("creating", name, None, error)),
        }
    }

    pub(crate) fn open(storage: &dyn Storage, sequence: Sequence) -> Result<Self> {
        let name = sequence.file_name();
        match storage.open(&name) {
            Ok(file) => Ok(Self::new(sequence, name, file)),
            Err(error) => Err(Error::io("opening", name, None, error)),
        }
    }

    fn new(sequence: Sequence, name: String, file: Box<dyn StorageFile>) -> Self {
        SegmentFile { sequence, name, file, sync_failure: Mutex::new(None) }
    }

    pub(crate) fn sequence(&self) -> Sequence {
        self.sequence
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn bytes(&self) -> Result<u64> {
        self.file.len().map_err(|error| Error::io("reading the length of", &self.name, None, error))
    }

    pub(crate) fn link_count(&self) -> Result<u64> {
        match self.file.link_count() {
            // What the log itself links is never written to, as it is never the newest.
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(1),
            Err(error) => Err(Error::io("counting the names of", &self.name, None, error)),
            Ok(count) => Ok(count),
        }
    }

    pub(crate) fn reserve(&self, bytes: u64) -> Result<()> {
        uninterrupted(|| self.file.reserve(bytes))
            .map_err(|error| self.failed("allocating", bytes, error))
    }

    pub(crate) fn set_len(&self, bytes: u64) -> Result<()> {
        uninterrupted(|| self.file.set_len(bytes))
            .map_err(|error| self.failed("setting the length of", bytes, error))
    }

    /// Fills `buffer` as far as the file goes and says how far that was.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        read_full(self.file.as_ref(), buffer, offset)
            .map_err(|error| self.failed("reading", offset, error))
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        write_full(self.file.as_ref(), bytes, offset)
            .map_err(|error| self.failed("writing", offset, error))
    }

    /// Writes as much as can be without waiting, and says how much that was; `None` if the storage
    /// can't promise not to wait. A failure counts as nothing written: whoever writes it again, and
    /// may wait, learns of it.
    pub(crate) fn write_at_nonblocking(&self, bytes: &[u8], offset: u64) -> Option<usize> {
        match self.file.write_at_nonblocking(bytes, offset) {
            Ok(count) => Some(count),
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => None,
            Err(_) => Some(0),
        }
    }

    /// Makes what was written durable. After one failure it fails for good: a later Ok of the
    /// operating system would only mean that the lost pages are no longer dirty.
    pub(crate) fn sync_data(&self) -> Result<()> {
        self.sync_once(|file| file.sync_data())
    }

    pub(crate) fn sync_all(&self) -> Result<()> {
        self.sync_once(|file| file.sync_all())
    }

    fn sync_once(&self, sync: impl Fn(&dyn StorageFile) -> std::io::Result<()>) -> Result<()> {
        let mut failure = lock_over_io(&self.sync_failure).unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure.as_ref() {
            return Err(error.clone());
        }
        uninterrupted(|| sync(self.file.as_ref())).or_else(|error| {
            let error = Error::io("syncing", &self.name, None, error);
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

    fn failed(&self, operation: &'static str, offset: u64, error: std::io::Error) -> Error {
        Error::io(operation, &self.name, Some(offset), error)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

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

    /// As Linux does it: the second call answers Ok, the pages are gone all the same.
    #[test]
    fn a_failed_sync_is_never_forgotten() {
        let file = Box::new(FailsOnce(AtomicBool::new(false)));
        let file = SegmentFile::new(Sequence(1), "1.wal".to_owned(), file);
        assert!(file.sync_data().is_err());
        assert!(file.sync_data().is_err());
        assert!(file.sync_all().is_err());
    }
}
