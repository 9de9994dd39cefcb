//! Copies a segment file in steps.

use std::{io, sync::Arc};

use crate::{
    error::{Error, Result},
    segments::SegmentFile,
    storage::{Storage, StorageFile, uninterrupted, write_full},
};

/// A copy of a segment file that is being made.
#[derive(Debug)]
pub(crate) struct SegmentCopy {
    from: Arc<SegmentFile>,
    to: Box<dyn StorageFile>,
    name: String,
    /// The directory of the copy, for errors.
    directory: String,
}

impl SegmentCopy {
    /// Creates the file `name` in `storage`.
    pub(crate) fn create(
        from: Arc<SegmentFile>,
        storage: &dyn Storage,
        name: &str,
    ) -> Result<Self> {
        let (name, directory) = (name.to_owned(), storage.location());
        match storage.create(&name) {
            Ok(to) => Ok(SegmentCopy { from, to, name, directory }),
            Err(error) => Err(Error::io("creating", name, None, error).in_log(&directory)),
        }
    }

    /// Makes the copy as long as the original, and allocates its space.
    ///
    /// The length matters: a file that is shorter than its header states has lost its end.
    pub(crate) fn reserve(&self) -> Result<()> {
        let bytes = self.from.bytes()?;
        uninterrupted(|| self.to.reserve(bytes))
            .map_err(|error| self.failed("allocating", 0, error).or_no_space(&self.name, bytes))
    }

    /// Copies up to `bytes` from `offset` on. Returns the number of bytes that the original has
    /// there.
    pub(crate) fn copy(&self, offset: u64, bytes: u64) -> Result<u64> {
        let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        let read = self.from.read_at(&mut buffer, offset)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        let written = write_full(self.to.as_ref(), bytes, offset);
        written.map_err(|error| {
            self.failed("writing", offset, error).or_no_space(&self.name, bytes.len() as u64)
        })?;
        Ok(read as u64)
    }

    /// Makes the copied bytes durable, but not the file's name.
    pub(crate) fn sync(&self) -> Result<()> {
        uninterrupted(|| self.to.sync_all()).map_err(|error| self.failed("syncing", 0, error))
    }

    fn failed(&self, operation: &'static str, offset: u64, error: io::Error) -> Error {
        Error::io(operation, &self.name, Some(offset), error).in_log(&self.directory)
    }
}
