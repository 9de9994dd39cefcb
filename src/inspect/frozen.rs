//! Shows a storage as of one moment, while the log may be written.
//!
//! A log is written in order: a byte exists only if all bytes before it exist. So a look that reads
//! the end first and earlier bytes later sees no false hole. From the newest file to the oldest, a
//! snapshot notes the used length of each file and then its header. Later reads return zeros above
//! the used length. Otherwise a frame that is appended between two reads of the judge would look
//! like a frame after damage.

use std::{collections::BTreeMap, io, sync::Arc};

use crate::{
    error::{Error, Result},
    format::{
        frame::Seed,
        header::{FILE_BYTES_MAX, SEGMENT_HEADER_BYTES, file_end, file_offset},
        scan::{WalkBounds, to_usize},
    },
    lsn::Lsn,
    recovery::list,
    segments::{SegmentFile, SegmentReader, Sequence},
    storage::{Locking, Storage, StorageFile, read_full},
};

/// The maximum number of attempts if a file is missing after the listing.
const ATTEMPTS: u32 = 16;

/// The state of a file at the moment of the snapshot.
#[derive(Clone, Debug)]
pub(crate) struct FileSnapshot {
    pub(crate) bytes: u64,
    /// The end of the last byte that is not zero, including the header block.
    pub(crate) used_bytes: u64,
    header: Arc<[u8]>,
}

#[derive(Debug)]
pub(crate) struct Frozen {
    storage: Arc<dyn Storage>,
    names: Vec<String>,
    /// The readable files. All others return the errors of the storage.
    files: BTreeMap<String, FileSnapshot>,
}

impl Frozen {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Result<Self> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match Self::try_new(&storage) {
                // The file was removed after the listing, because a writer freed space or
                // recovered.
                Err(Error::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {}
                frozen => return frozen,
            }
        }
    }

    fn try_new(storage: &Arc<dyn Storage>) -> Result<Self> {
        let names = list(storage.as_ref())?;
        let mut files = BTreeMap::new();
        // Names sort by age.
        for (name, sequence) in
            names.iter().rev().filter_map(|name| Some((name, Sequence::parse(name)?)))
        {
            match freeze_file(storage.as_ref(), sequence) {
                Ok(file) => drop(files.insert(name.clone(), file)),
                Err(gone) if gone.is_not_found() => return Err(gone),
                Err(error) => tracing::debug!(
                    log = storage.location(),
                    name,
                    error = format_args!("{error:#}"),
                    "cannot read a segment file"
                ),
            }
        }
        Ok(Frozen { storage: Arc::clone(storage), names, files })
    }

    pub(crate) fn file(&self, name: &str) -> Option<&FileSnapshot> {
        self.files.get(name)
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }
}

fn freeze_file(storage: &dyn Storage, sequence: Sequence) -> Result<FileSnapshot> {
    let file = Arc::new(SegmentFile::open(storage, sequence)?);
    let bytes = file.bytes()?;
    let end = file_end(Lsn::ZERO, bytes.min(FILE_BYTES_MAX));
    let place = WalkBounds { seed: Seed::new([0; 16], 0), end, record_bytes_max: 0 };
    let reader = SegmentReader { file: Arc::clone(&file), base: Lsn::ZERO, place };
    let used = reader.used_end(Lsn::ZERO, end)?;
    // Read after the frames: if there are frames, the header was written before them.
    let mut header = vec![0; to_usize(SEGMENT_HEADER_BYTES)];
    let read = file.read_at(&mut header, 0)?;
    header.truncate(read);
    let header_used = header.iter().rposition(|&byte| byte != 0).map_or(0, |at| at as u64 + 1);
    let used_bytes = if used > Lsn::ZERO { file_offset(Lsn::ZERO, used) } else { header_used };
    Ok(FileSnapshot { bytes, used_bytes, header: header.into() })
}

#[derive(Debug)]
struct FrozenFile {
    file: Box<dyn StorageFile>,
    at: FileSnapshot,
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
