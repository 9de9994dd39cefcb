//! A read-only storage whose unreadable sectors read as zeros, which the salvage treats as damage.

use std::{io, sync::Arc};

use crate::storage::{Locking, Storage, StorageFile, read_full};

/// The size of a read after a larger one has failed.
const PIECE_BYTES: u64 = 512;

#[derive(Debug)]
pub(super) struct Forgiving(pub(super) Arc<dyn Storage>);

#[derive(Debug)]
struct ForgivingFile {
    file: Box<dyn StorageFile>,
    /// The location of the log, for events.
    log: String,
    name: String,
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl StorageFile for ForgivingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Ok(read) = read_full(self.file.as_ref(), buffer, offset) {
            return Ok(read);
        }
        let length = self.file.len()?;
        let mut done = 0;
        while done < buffer.len() as u64 && offset + done < length {
            let at = offset + done;
            let count = PIECE_BYTES - at % PIECE_BYTES;
            let rest = buffer.iter_mut().skip(usize::try_from(done).unwrap_or(usize::MAX));
            let mut piece = vec![0; usize::try_from(count.min(length - at)).unwrap_or(0)];
            if let Err(error) = read_full(self.file.as_ref(), &mut piece, at) {
                let (log, name) = (&self.log, &self.name);
                tracing::warn!(
                    log,
                    name,
                    at,
                    error = format_args!("{error:#}"),
                    "a sector is unreadable"
                );
                piece.fill(0);
            }
            rest.zip(&piece).for_each(|(to, from)| *to = *from);
            done += piece.len() as u64;
        }
        Ok(usize::try_from(done).unwrap_or(usize::MAX).min(buffer.len()))
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        refused()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn sync_data(&self) -> io::Result<()> {
        refused()
    }

    fn sync_all(&self) -> io::Result<()> {
        refused()
    }
}

impl Storage for Forgiving {
    fn location(&self) -> String {
        self.0.location()
    }

    fn is_nonblocking(&self) -> bool {
        self.0.is_nonblocking()
    }

    fn lock(&self) -> io::Result<Locking> {
        refused()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn StorageFile>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let (file, log) = (self.0.open(name)?, self.0.location());
        Ok(Box::new(ForgivingFile { file, log, name: name.to_owned() }))
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self) -> io::Result<()> {
        refused()
    }
}
