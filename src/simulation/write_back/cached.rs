//! One cached file: the inner file, below the changes that were not written back yet.

use std::{
    collections::BTreeMap,
    fmt, io,
    ops::Range,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::early::Early;
use crate::{
    storage::{StorageFile, read_full, write_full},
    sync::ReadWriteAlways,
};

/// The bytes that a device writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
const SECTOR_BYTES_U64: u64 = 512;

type Sector = Box<[u8; SECTOR_BYTES]>;

pub(super) struct CachedFile {
    inner: Box<dyn StorageFile>,
    cache: RwLock<Cache>,
}

struct Cache {
    /// The outer length.
    bytes: u64,
    /// Set if the inner length may differ.
    is_resized: bool,
    /// The file was cut here, but not the inner file. Inner bytes from here on count as zeros.
    cut: Option<u64>,
    /// The unsynced sectors by number; zeros past the end of the file.
    sectors: BTreeMap<u64, Sector>,
}

/// Converts an offset to an index. Offsets that do not fit are past the end of every buffer.
fn to_index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Returns the sectors that contain any of the `bytes` bytes at `offset`.
fn sectors(offset: u64, bytes: u64) -> Range<u64> {
    offset / SECTOR_BYTES_U64..offset.saturating_add(bytes).div_ceil(SECTOR_BYTES_U64)
}

/// Copies the overlap of `from`, at `from_offset`, to `to`, at `to_offset`. Returns its length.
fn copy_overlap(to: &mut [u8], to_offset: u64, from: &[u8], from_offset: u64) -> usize {
    let start = to_offset.max(from_offset);
    let end = (to_offset + to.len() as u64).min(from_offset + from.len() as u64);
    let part = |offset: u64| to_index(start - offset)..to_index(end.max(start) - offset);
    match (to.get_mut(part(to_offset)), from.get(part(from_offset))) {
        (Some(to), Some(from)) => {
            to.copy_from_slice(from);
            from.len()
        }
        _ => 0,
    }
}

impl CachedFile {
    pub(super) fn new(inner: Box<dyn StorageFile>) -> io::Result<Self> {
        let cache =
            Cache { bytes: inner.len()?, is_resized: false, cut: None, sectors: BTreeMap::new() };
        Ok(CachedFile { inner, cache: RwLock::new(cache) })
    }

    pub(super) fn is_unsynced(&self) -> bool {
        let cache = self.read();
        cache.is_resized || cache.cut.is_some() || !cache.sectors.is_empty()
    }

    fn read(&self) -> RwLockReadGuard<'_, Cache> {
        self.cache.read_always()
    }

    /// The inner file is called under this lock. So every reader sees a write-back at once or not
    /// at all. If the inner file panics, nothing has left the cache.
    fn write(&self) -> RwLockWriteGuard<'_, Cache> {
        self.cache.write_always()
    }

    /// Reads the valid part of the inner file, and fills the rest with zeros.
    fn read_inner(&self, cache: &Cache, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        buffer.fill(0);
        let count = to_index(cache.cut.unwrap_or(u64::MAX).saturating_sub(offset));
        let count = count.min(buffer.len());
        let counts = buffer.get_mut(..count).unwrap_or_default();
        read_full(self.inner.as_ref(), counts, offset).map(drop)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let cache = self.read();
        let count = to_index(cache.bytes.saturating_sub(offset)).min(buffer.len());
        let buffer = buffer.get_mut(..count).unwrap_or_default();
        if count == 0 {
            return Ok(0);
        }
        self.read_inner(&cache, buffer, offset)?;
        for (number, sector) in cache.sectors.range(sectors(offset, count as u64)) {
            copy_overlap(buffer, offset, sector.as_slice(), number * SECTOR_BYTES_U64);
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64, early: Option<&Early>) -> io::Result<usize> {
        offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        let mut cache = self.write();
        let mut done = 0;
        for number in sectors(offset, bytes.len() as u64) {
            let mut sector = match cache.sectors.remove(&number) {
                Some(sector) => sector,
                None => match self.load(&cache, number, offset, bytes.len() as u64) {
                    Ok(sector) => sector,
                    Err(error) if done == 0 => return Err(error),
                    Err(_) => break,
                },
            };
            let sector_offset = number * SECTOR_BYTES_U64;
            done += copy_overlap(sector.as_mut_slice(), sector_offset, bytes, offset);
            cache.sectors.insert(number, sector);
            let end = offset + done as u64;
            if end > cache.bytes {
                cache.bytes = end;
                cache.is_resized = true;
            }
            if let Some(early) = early.filter(|early| early.hits()) {
                // The sync repeats the attempt, and reports a failure.
                let _ = self.write_back_one(&mut cache, early);
            }
        }
        Ok(done)
    }

    /// Reads a sector of the inner file, unless all of it will be overwritten.
    fn load(&self, cache: &Cache, number: u64, offset: u64, bytes: u64) -> io::Result<Sector> {
        let mut sector = Box::new([0; SECTOR_BYTES]);
        let start = number * SECTOR_BYTES_U64;
        let is_covered = offset <= start && start + SECTOR_BYTES_U64 <= offset + bytes;
        if !is_covered {
            self.read_inner(cache, sector.as_mut_slice(), start)?;
        }
        Ok(sector)
    }

    fn set_len(&self, bytes: u64) {
        let mut cache = self.write();
        if bytes < cache.bytes {
            cache.cut = Some(cache.cut.unwrap_or(u64::MAX).min(bytes));
            drop(cache.sectors.split_off(&bytes.div_ceil(SECTOR_BYTES_U64)));
            let last = bytes / SECTOR_BYTES_U64;
            if let Some(sector) = cache.sectors.get_mut(&last) {
                let kept = to_index(bytes % SECTOR_BYTES_U64);
                sector.get_mut(kept..).unwrap_or_default().fill(0);
            }
        }
        cache.is_resized |= bytes != cache.bytes;
        cache.bytes = bytes;
    }

    /// As `fallocate`: never shortens a file.
    fn reserve(&self, bytes: u64) {
        let mut cache = self.write();
        cache.is_resized |= bytes > cache.bytes;
        cache.bytes = cache.bytes.max(bytes);
    }

    /// Writes a pending cut back. The cut comes before anything else, because no file system shows
    /// cut bytes after newer bytes of the file.
    fn write_back_cut(&self, cache: &mut Cache) -> io::Result<()> {
        if let Some(cut) = cache.cut {
            if self.inner.len()? > cut {
                self.inner.set_len(cut)?;
            }
            cache.cut = None;
        }
        Ok(())
    }

    fn write_back_one(&self, cache: &mut Cache, early: &Early) -> io::Result<()> {
        self.write_back_cut(cache)?;
        let end = cache.bytes.div_ceil(SECTOR_BYTES_U64);
        let from = early.below(end);
        let mut from_there = cache.sectors.range(from..).chain(&cache.sectors);
        if let Some((&number, sector)) = from_there.next() {
            self.write_inner(cache, sector.as_slice(), number)?;
            cache.sectors.remove(&number);
        }
        Ok(())
    }

    /// Writes sectors from number `first` on, but nothing past the end of the file.
    fn write_inner(&self, cache: &Cache, bytes: &[u8], first: u64) -> io::Result<()> {
        let offset = first * SECTOR_BYTES_U64;
        let count = to_index(cache.bytes.saturating_sub(offset)).min(bytes.len());
        write_full(self.inner.as_ref(), bytes.get(..count).unwrap_or_default(), offset)
    }

    /// Writes everything back, with neighbouring sectors in one write. With early write-back, each
    /// sector is written by itself, in any order.
    fn write_back(&self, early: Option<&Early>) -> io::Result<()> {
        let mut cache = self.write();
        self.write_back_cut(&mut cache)?;
        if cache.is_resized {
            if self.inner.len()? != cache.bytes {
                self.inner.set_len(cache.bytes)?;
            }
            cache.is_resized = false;
        }
        let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
        for (&number, sector) in &cache.sectors {
            let behind = |run: &(u64, Vec<u8>)| {
                early.is_none() && run.0 + run.1.len() as u64 / SECTOR_BYTES_U64 == number
            };
            match runs.last_mut().filter(|run| behind(run)) {
                Some((_, run)) => run.extend_from_slice(sector.as_slice()),
                None => runs.push((number, sector.to_vec())),
            }
        }
        if let Some(early) = early {
            early.shuffle(&mut runs);
        }
        for (first, run) in &runs {
            self.write_inner(&cache, run, *first)?;
        }
        cache.sectors.clear();
        Ok(())
    }
}

impl fmt::Debug for CachedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedFile").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// An open handle of a cached file.
#[derive(Debug)]
pub(super) struct CachedHandle {
    pub(super) file: Arc<CachedFile>,
    pub(super) early: Option<Arc<Early>>,
}

impl StorageFile for CachedHandle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset, self.early.as_deref())
    }

    /// Writes to the process's memory, which never blocks.
    fn write_at_nonblocking(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.write_at(bytes, offset)
    }

    /// Also covers all earlier writes of the file, as a flush does.
    fn write_at_durably(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let count = self.write_at(bytes, offset)?;
        self.sync_data().map(|()| count)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.read().bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes);
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.file.reserve(bytes);
        Ok(())
    }

    /// Writes back under the lock, then flushes without it. The flush covers all earlier writes,
    /// and delays only its caller.
    fn sync_data(&self) -> io::Result<()> {
        self.file.write_back(self.early.as_deref())?;
        self.file.inner.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.write_back(self.early.as_deref())?;
        self.file.inner.sync_all()
    }
}
