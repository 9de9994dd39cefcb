//! A storage whose unreadable sectors read as zeros: damage like any other, for who reads on.

use std::{io, sync::Arc};

use crate::storage::{Locking, Storage, StorageFile, read_full};

/// What is tried by itself where more at once can't be read.
const PIECE_BYTES: u64 = 512;

#[derive(Debug)]
pub(super) struct Forgiving(pub(super) Arc<dyn Storage>);

#[derive(Debug)]
struct ForgivingFile(Box<dyn StorageFile>);

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl StorageFile for ForgivingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Ok(read) = read_full(self.0.as_ref(), buffer, offset) {
            return Ok(read);
        }
        let length = self.0.len()?;
        let mut done = 0;
        while done < buffer.len() as u64 && offset + done < length {
            let at = offset + done;
            let count = PIECE_BYTES - at % PIECE_BYTES;
            let rest = buffer.iter_mut().skip(usize::try_from(done).unwrap_or(usize::MAX));
            let mut piece = vec![0; usize::try_from(count.min(length - at)).unwrap_or(0)];
            if let Err(error) = read_full(self.0.as_ref(), &mut piece, at) {
                tracing::warn!(at, %error, "a sector can't be read");
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
        self.0.len()
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
        Ok(Box::new(ForgivingFile(self.0.open(name)?)))
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
