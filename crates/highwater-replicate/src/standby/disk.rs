//! [`Disk`]: the storage of a copy, with errors that name the call.

use std::{io, sync::Arc};

use highwater::storage::{Storage, StorageFile};

use crate::error::{Error, Result};

/// The storage of a copy.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    storage: Arc<dyn Storage>,
}

impl Disk {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Self {
        Disk { storage }
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Returns the error of a call.
    pub(crate) fn failed(&self, operation: &'static str, name: &str, source: io::Error) -> Error {
        let directory = self.storage.location();
        Error::Storage { directory, operation, name: name.to_owned(), source }
    }

    pub(crate) fn damaged(&self, name: &str, offset: u64, reason: &str) -> Error {
        let directory = self.storage.location();
        Error::Damaged { directory, name: name.to_owned(), offset, reason: reason.to_owned() }
    }

    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let names = self.storage.list();
        names.map_err(|error| self.failed("listing", ".", error))
    }

    pub(crate) fn sync_dir(&self) -> Result<()> {
        self.storage.sync_dir().map_err(|error| self.failed("flushing the directory", ".", error))
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.storage.remove(name).map_err(|error| self.failed("removing", name, error))
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.storage.rename(from, to).map_err(|error| self.failed("renaming", from, error))
    }

    pub(crate) fn open(&self, name: &str) -> Result<OpenFile> {
        let file = self.storage.open(name).map_err(|error| self.failed("opening", name, error))?;
        Ok(OpenFile { disk: self.clone(), name: name.to_owned(), file })
    }

    /// Creates a file, and removes an old one with that name before.
    pub(crate) fn create_again(&self, name: &str) -> Result<OpenFile> {
        if self.names()?.iter().any(|taken| taken == name) {
            self.remove(name)?;
        }
        let file = self.storage.create(name);
        let file = file.map_err(|error| self.failed("creating", name, error))?;
        Ok(OpenFile { disk: self.clone(), name: name.to_owned(), file })
    }
}

/// An open file of a copy.
#[derive(Debug)]
pub(crate) struct OpenFile {
    disk: Disk,
    name: String,
    file: Box<dyn StorageFile>,
}

impl OpenFile {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Notes the new name of the file.
    pub(crate) fn renamed(&mut self, name: String) {
        self.name = name;
    }

    fn failed(&self, operation: &'static str, error: io::Error) -> Error {
        self.disk.failed(operation, &self.name, error)
    }

    pub(crate) fn set_len(&self, bytes: u64) -> Result<()> {
        self.file.set_len(bytes).map_err(|error| self.failed("extending", error))
    }

    pub(crate) fn reserve(&self, bytes: u64) -> Result<()> {
        self.file.reserve(bytes).map_err(|error| self.failed("reserving space for", error))
    }

    pub(crate) fn sync_data(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| self.failed("flushing", error))
    }

    pub(crate) fn sync_all(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| self.failed("flushing", error))
    }

    pub(crate) fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> Result<()> {
        while !bytes.is_empty() {
            let count = match self.file.write_at(bytes, offset) {
                Ok(0) => return Err(self.failed("writing", io::ErrorKind::WriteZero.into())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed("writing", error)),
            };
            bytes = bytes.get(count..).unwrap_or_default();
            offset += count as u64;
        }
        Ok(())
    }

    /// Reads until the buffer is full or the file ends. Returns the count.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut count = 0;
        while let Some(rest) = buffer.get_mut(count..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + count as u64) {
                Ok(0) => break,
                Ok(read) => count += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("reading", error)),
            }
        }
        Ok(count)
    }
}
