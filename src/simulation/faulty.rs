//! [`Faulty`]: the decorator that applies faults to a storage.

use std::{fmt, io, path::PathBuf, sync::Arc};

use crate::{
    simulation::{
        event::{Event, Op, Wrote},
        fault::{Faults, Verdict},
        image::SECTOR_BYTES,
        random::Random,
    },
    storage::{Locking, Place, Storage, StorageFile},
    turn,
};

/// A storage whose operations meet [`Faults`]. Created by [`Faults::over`], over memory or real
/// files.
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
    is_on_pool: bool,
}

impl Faults {
    /// Returns a storage that behaves as `inner`, except for these faults.
    pub fn over<S: Storage>(&self, inner: S) -> Faulty<S> {
        Faulty { inner, faults: self.clone(), is_on_pool: false }
    }
}

impl<S> Faulty<S> {
    /// Makes the log run its I/O on the runtime's pool, even if the storage never blocks.
    #[must_use]
    pub fn on_pool(mut self) -> Self {
        self.is_on_pool = true;
        self
    }
}

impl<S: fmt::Debug> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Faulty").field(&self.inner).finish()
    }
}

impl<S: Storage> Storage for Faulty<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    /// Returns `false` in a simulation, so that I/O runs on threads and another thread may run at
    /// every operation.
    fn is_nonblocking(&self) -> bool {
        self.inner.is_nonblocking() && !self.is_on_pool && turn::simulated().is_none()
    }

    fn lock(&self) -> io::Result<Locking> {
        self.inner.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.faults.meet(Op::Create, name)?;
        let file = self.inner.create(name)?;
        self.faults.push(|| Event::Created { file: name.to_owned() });
        Ok(FaultyFile::boxed(name, Arc::from(file), &self.faults))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.faults.meet(Op::Open, name)?;
        let file = self.inner.open(name)?;
        self.faults.push(|| Event::Opened { file: name.to_owned() });
        Ok(FaultyFile::boxed(name, Arc::from(file), &self.faults))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if matches!(self.faults.meet(Op::Remove, name)?, Verdict::Ignore) {
            return Ok(());
        }
        self.inner.remove(name)?;
        self.faults.push(|| Event::Removed { file: name.to_owned() });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if matches!(self.faults.meet(Op::Rename, from)?, Verdict::Ignore) {
            return Ok(());
        }
        self.inner.rename(from, to)?;
        self.faults.push(|| Event::Renamed { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        if matches!(self.faults.meet(Op::Link, from)?, Verdict::Ignore) {
            return Ok(());
        }
        self.inner.link(from, to)?;
        self.faults.push(|| Event::Linked { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn link_from(&self, source: &dyn Storage, name: &str) -> io::Result<()> {
        if matches!(self.faults.meet(Op::Link, name)?, Verdict::Ignore) {
            return Ok(());
        }
        self.inner.link_from(source, name)?;
        self.faults.push(|| Event::Linked { from: name.to_owned(), to: name.to_owned() });
        Ok(())
    }

    fn path_of(&self, name: &str) -> Option<PathBuf> {
        self.inner.path_of(name)
    }

    fn check_place(&self) -> io::Result<Place> {
        self.inner.check_place()
    }

    fn overwrites_in_place(&self) -> bool {
        self.inner.overwrites_in_place()
    }

    fn sync_dir(&self) -> io::Result<()> {
        let begin = self.faults.push(|| Event::SyncDirBegan);
        let done = match self.faults.meet(Op::SyncDir, "") {
            Ok(Verdict::Ignore) => Ok(()),
            Ok(_) => self.inner.sync_dir(),
            Err(error) => Err(error),
        };
        let done = done.and_then(|()| self.faults.leave(Op::SyncDir, ""));
        self.faults.push(|| Event::SyncDirEnded { begin, ok: done.is_ok() });
        done
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.inner.random()
    }

    fn unix_ms(&self) -> u64 {
        self.inner.unix_ms()
    }
}

/// Called when a fault fails a sync. Simulates the effect on the file.
pub(super) type OnFailedSync = Box<dyn Fn() + Send + Sync>;

pub(super) struct FaultyFile {
    name: String,
    inner: Arc<dyn StorageFile>,
    faults: Faults,
    on_failed_sync: Option<OnFailedSync>,
}

impl fmt::Debug for FaultyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultyFile").field(&self.name).field(&self.inner).finish()
    }
}

impl FaultyFile {
    pub(super) fn new(name: &str, inner: Arc<dyn StorageFile>, faults: &Faults) -> Self {
        FaultyFile { name: name.to_owned(), inner, faults: faults.clone(), on_failed_sync: None }
    }

    fn boxed(name: &str, inner: Arc<dyn StorageFile>, faults: &Faults) -> Box<dyn StorageFile> {
        Box::new(Self::new(name, inner, faults))
    }

    pub(super) fn on_failed_sync(mut self, then: OnFailedSync) -> Self {
        self.on_failed_sync = Some(then);
        self
    }

    fn resize(
        &self,
        bytes: u64,
        resize: impl Fn(&dyn StorageFile) -> io::Result<()>,
    ) -> io::Result<()> {
        if !matches!(self.faults.meet(Op::Resize, &self.name)?, Verdict::Ignore) {
            resize(self.inner.as_ref())?;
        }
        self.faults.push(|| Event::Resized { file: self.name.clone(), bytes });
        Ok(())
    }

    fn sync(&self, sync: impl Fn(&dyn StorageFile) -> io::Result<()>) -> io::Result<()> {
        let begin = self.faults.push(|| Event::SyncBegan { file: self.name.clone() });
        let done = match self.faults.meet(Op::Sync, &self.name) {
            Ok(Verdict::Ignore) => Ok(()),
            Ok(_) => sync(self.inner.as_ref()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.on_failed_sync.iter().for_each(|then| then());
                Err(error)
            }
        };
        let done = done.and_then(|()| self.faults.leave(Op::Sync, &self.name));
        let (file, ok) = (self.name.clone(), done.is_ok());
        self.faults.push(|| Event::SyncEnded { file, begin, ok });
        done
    }

    /// Runs a write of either kind: applies faults and records it.
    fn write(
        &self,
        op: Op,
        bytes: &[u8],
        offset: u64,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let verdict = self.faults.meet(op, &self.name)?;
        let count = match verdict {
            Verdict::Go(limit) => write(bytes.get(..limit).unwrap_or(bytes))?,
            verdict => self.write_wrongly(op, verdict, bytes, offset)?,
        };
        self.faults.leave(op, &self.name)?;
        self.faults.push(|| {
            let written = bytes.get(..count).unwrap_or_default();
            Event::Wrote(Wrote {
                file: self.name.clone(),
                offset,
                count,
                head: written.iter().take(64).copied().collect(),
                is_blank: written.iter().all(|&byte| byte == 0),
                is_nonblocking: op == Op::WriteNonblocking,
                is_durable: op == Op::WriteDurably,
            })
        });
        Ok(count)
    }

    /// Does a write with a fault, and returns how many bytes it claims to have written.
    fn write_wrongly(
        &self,
        op: Op,
        verdict: Verdict,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<usize> {
        match verdict {
            Verdict::Go(_) => Ok(0),
            // The flag is lost on the way to the device.
            Verdict::Ignore if op == Op::WriteDurably => self.inner.write_at(bytes, offset),
            Verdict::Ignore => Ok(bytes.len()),
            Verdict::FlipBit(bit) => {
                let mut wrong = bytes.to_vec();
                flip_bit(&mut wrong, bit);
                self.inner.write_at(&wrong, offset)
            }
            Verdict::Stale(random) => self.write_some_sectors(random, bytes, offset),
            Verdict::Misdirect(mut random) => {
                let sector = SECTOR_BYTES as u64;
                let sectors = usize::try_from(self.inner.len()? / sector).unwrap_or(usize::MAX);
                let place = random.below(sectors) as u64 * sector + offset % sector;
                self.inner.write_at(bytes, place)?;
                Ok(bytes.len())
            }
            Verdict::LandLate(after) => {
                self.faults.orphans().add(&self.inner, bytes, offset, after);
                self.faults.push(|| Event::Failed { op, file: self.name.clone() });
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    fn write_some_sectors(
        &self,
        mut random: Random,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            let in_sector = SECTOR_BYTES - usize::try_from(at).unwrap_or(0) % SECTOR_BYTES;
            let piece = rest.get(..in_sector).unwrap_or(rest);
            if random.one_in(2) {
                self.inner.write_at(piece, at)?;
            }
            done += piece.len();
        }
        Ok(bytes.len())
    }
}

fn flip_bit(bytes: &mut [u8], bit: u64) {
    let index = bit / 8 % (bytes.len() as u64).max(1);
    if let Some(byte) = usize::try_from(index).ok().and_then(|index| bytes.get_mut(index)) {
        *byte ^= 1 << (bit % 8);
    }
}

impl StorageFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let verdict = self.faults.meet(Op::Read, &self.name)?;
        self.faults.push(|| Event::Read { file: self.name.clone(), offset });
        let limit = if let Verdict::Go(limit) = verdict { limit } else { usize::MAX };
        let limit = limit.min(buffer.len());
        let buffer = buffer.get_mut(..limit).unwrap_or_default();
        let count = self.inner.read_at(buffer, offset)?;
        if let Verdict::FlipBit(bit) = verdict {
            flip_bit(buffer.get_mut(..count).unwrap_or_default(), bit);
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.write(Op::Write, bytes, offset, |bytes| self.inner.write_at(bytes, offset))
    }

    fn write_at_nonblocking(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.write(Op::WriteNonblocking, bytes, offset, |bytes| {
            self.inner.write_at_nonblocking(bytes, offset)
        })
    }

    fn write_at_durably(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let written = self.write(Op::WriteDurably, bytes, offset, |bytes| {
            self.inner.write_at_durably(bytes, offset)
        });
        let refusals = [io::ErrorKind::Interrupted, io::ErrorKind::Unsupported];
        written.inspect_err(|error| {
            if !refusals.contains(&error.kind()) {
                // The page cache has the bytes, and their flush has failed.
                let _ = self.inner.write_at(bytes, offset);
                self.on_failed_sync.iter().for_each(|then| then());
            }
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn link_count(&self) -> io::Result<u64> {
        self.inner.link_count()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.resize(bytes, |file| file.set_len(bytes))
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.resize(bytes, |file| file.reserve(bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(|file| file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(|file| file.sync_all())
    }
}
