//! A storage as it stood at one moment, although somebody may be writing to it.
//!
//! A log is written in order: a byte is there only if all before it are. So whoever looks at the
//! end first and at what comes before later sees no hole that isn't there. From the newest file to
//! the oldest, this notes how far each is used and then its header; what is read later is zero
//! past that place. Without it a frame appended between two reads of the judge would look as if it
//! stood behind damage.

use std::{collections::BTreeMap, io, sync::Arc};

use crate::{
    error::{Error, Result},
    format::{
        frame::Seed,
        header::{FILE_BYTES_MAX, SEGMENT_HEADER_BYTES},
        scan::{Place, to_usize},
    },
    lsn::Lsn,
    recovery::list,
    segments::{SegmentFile, SegmentReader, Sequence},
    storage::{Locking, Storage, StorageFile, read_full},
};

/// How often a file may be gone between listing and opening before that is an error.
const ATTEMPTS: u32 = 16;

/// A file as it was when the storage was frozen.
#[derive(Clone, Debug)]
pub(crate) struct FileAt {
    pub(crate) bytes: u64,
    /// One past the last byte that isn't zero, the header's block included.
    pub(crate) used_bytes: u64,
    header: Arc<[u8]>,
}

#[derive(Debug)]
pub(crate) struct Frozen {
    storage: Arc<dyn Storage>,
    names: Vec<String>,
    /// Those that could be read; the others answer as the storage does.
    files: BTreeMap<String, FileAt>,
}

impl Frozen {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Result<Self> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match Self::try_new(&storage) {
                // Removed since it was listed, by a writer that made room or recovered.
                Err(Error::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {}
                frozen => return frozen,
            }
        }
    }

    fn try_new(storage: &Arc<dyn Storage>) -> Result<Self> {
        let names = list(storage.as_ref())?;
        let mut files = BTreeMap::new();
        // Sorted by name is sorted by age.
        for (name, sequence) in
            names.iter().rev().filter_map(|name| Some((name, Sequence::parse(name)?)))
        {
            match look(storage.as_ref(), sequence) {
                Ok(file) => drop(files.insert(name.clone(), file)),
                Err(Error::Io { source, operation, path, offset })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    return Err(Error::Io { source, operation, path, offset });
                }
                Err(error) => tracing::debug!(name, %error, "a segment file can't be read"),
            }
        }
        Ok(Frozen { storage: Arc::clone(storage), names, files })
    }

    pub(crate) fn file(&self, name: &str) -> Option<&FileAt> {
        self.files.get(name)
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }
}

fn look(storage: &dyn Storage, sequence: Sequence) -> Result<FileAt> {
    let file = Arc::new(SegmentFile::open(storage, sequence)?);
    let bytes = file.bytes()?;
    let end = Lsn::new(bytes.min(FILE_BYTES_MAX).saturating_sub(SEGMENT_HEADER_BYTES));
    let place = Place { seed: Seed::new([0; 16], 0), end, record_bytes_max: 0 };
    let reader = SegmentReader { file: Arc::clone(&file), base: Lsn::ZERO, place };
    let used = reader.used_end(Lsn::ZERO, end)?;
    // After what it heads: frames without the header that was written before them can't be.
    let mut header = vec![0; to_usize(SEGMENT_HEADER_BYTES)];
    let read = file.read_at(&mut header, 0)?;
    header.truncate(read);
    let header_used = header.iter().rposition(|&byte| byte != 0).map_or(0, |at| at as u64 + 1);
    let used_bytes =
        if used > Lsn::ZERO { SEGMENT_HEADER_BYTES + used.as_u64() } else { header_used };
    Ok(FileAt { bytes, used_bytes, header: header.into() })
}

#[derive(Debug)]
struct FrozenFile {
    file: Box<dyn StorageFile>,
    at: FileAt,
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl StorageFile for FrozenFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.at.bytes.saturating_sub(offset).min(buffer.len() as u64);
        let Some(buffer) = buffer.get_mut(..to_usize(bytes)) else { return Ok(0) };
        let used = self.at.used_bytes.saturating_sub(offset);
        let (there, zeros) = buffer.split_at_mut(to_usize(used.min(bytes)));
        zeros.fill(0);
        let held = self.at.header.get(to_usize(offset)..).unwrap_or_default();
        let held_bytes = held.len().min(there.len());
        let (front, rest) = there.split_at_mut(held_bytes);
        front.copy_from_slice(held.get(..held_bytes).unwrap_or_default());
        if rest.is_empty() {
            return Ok(buffer.len());
        }
        let rest_bytes = rest.len();
        let read = read_full(self.file.as_ref(), rest, offset + held_bytes as u64)?;
        Ok(if read < rest_bytes { held_bytes + read } else { buffer.len() })
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        refused()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.at.bytes)
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

impl Storage for Frozen {
    fn location(&self) -> String {
        self.storage.location()
    }

    fn lock(&self) -> io::Result<Locking> {
        refused()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names.clone())
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn StorageFile>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.storage.open(name)?;
        Ok(match self.files.get(name) {
            Some(at) => Box::new(FrozenFile { file, at: at.clone() }),
            None => file,
        })
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
