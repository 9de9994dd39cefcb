//! Files in memory with the state that a power cut would leave, and a write or sync that fails.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use highwater::storage::{Locking, MemoryStorage, Storage, StorageFile};
use shuttle::rand::{Rng, thread_rng};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Write,
    Sync,
}

/// A storage whose calls are switch points, because `MemoryStorage` uses shuttle's locks here. The
/// state added here uses std's locks, which are held for one line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    files: MemoryStorage,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The contents at the beginning of each file's last successful sync.
    durable: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The contents on the disk of files with a failed sync. Their pages are clean, so a later sync
    /// covers only later writes.
    lost: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The operation that fails, and how many of its kind succeed before.
    fault: Mutex<Option<(Op, u64)>>,
    /// True if nonblocking writes are supported; chance decides how often they succeed.
    is_promising: bool,
    /// Counts up instead of random bytes, so that a seed reproduces a run.
    random: AtomicU64,
}

impl Disk {
    /// Returns a disk; one in two supports nonblocking writes.
    pub(crate) fn new() -> Self {
        let is_promising = thread_rng().gen_range(0..2) == 0;
        let shared = Arc::new(Shared { is_promising, ..Shared::default() });
        Disk { files: MemoryStorage::new(), shared }
    }

    /// Makes one operation fail, after `good_count` successful ones.
    pub(crate) fn fail(&self, op: Op, good_count: u64) {
        *self.shared.fault.lock().unwrap() = Some((op, good_count));
    }

    pub(crate) fn heal(&self) {
        *self.shared.fault.lock().unwrap() = None;
    }

    /// Returns the files after a power cut that keeps only synced bytes.
    pub(crate) fn after_power_loss(&self) -> MemoryStorage {
        let storage = MemoryStorage::new();
        let durable = self.shared.durable.lock().unwrap().clone();
        for (name, bytes) in durable {
            storage.create(&name).unwrap().write_at(&bytes, 0).unwrap();
        }
        storage
    }

    fn opened(&self, name: &str, file: Box<dyn StorageFile>) -> Box<dyn StorageFile> {
        Box::new(File { name: name.to_owned(), file, shared: Arc::clone(&self.shared) })
    }
}

impl Shared {
    /// A write to a file with a failed sync makes its pages dirty again.
    fn rewrite(&self, name: &str, bytes: &[u8], offset: u64) {
        if let Some(lost) = self.lost.lock().unwrap().get_mut(name) {
            let from = usize::try_from(offset).unwrap();
            let end = from + bytes.len();
            lost.resize(lost.len().max(end), 0);
            lost[from..end].copy_from_slice(bytes);
        }
    }

    fn attempt(&self, op: Op) -> io::Result<()> {
        let mut fault = self.fault.lock().unwrap();
        match &mut *fault {
            Some((kind, left)) if *kind == op && *left == 0 => {
                *fault = None;
                Err(io::Error::other("made to fail"))
            }
            Some((kind, left)) if *kind == op => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Storage for Disk {
    fn location(&self) -> String {
        self.files.location()
    }

    fn is_nonblocking(&self) -> bool {
        self.files.is_nonblocking()
    }

    fn lock(&self) -> io::Result<Locking> {
        self.files.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.files.create(name)?;
        // A new file has no failed sync, even if an older one of this name had.
        self.shared.lost.lock().unwrap().remove(name);
        Ok(self.opened(name, file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(self.opened(name, self.files.open(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)?;
        self.shared.durable.lock().unwrap().remove(name);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)?;
        let mut durable = self.shared.durable.lock().unwrap();
        if let Some(bytes) = durable.remove(from) {
            durable.insert(to.to_owned(), bytes);
        }
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.files.sync_dir()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let count = self.shared.random.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(u128::from(count).to_le_bytes())
    }

    fn unix_ms(&self) -> u64 {
        0
    }
}

#[derive(Debug)]
struct File {
    name: String,
    file: Box<dyn StorageFile>,
    shared: Arc<Shared>,
}

impl StorageFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.shared.attempt(Op::Write)?;
        self.shared.rewrite(&self.name, bytes, offset);
        self.file.write_at(bytes, offset)
    }

    fn write_at_nonblocking(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if !self.shared.is_promising {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let whole = bytes.len();
        let count = match thread_rng().gen_range(0..8) {
            0 => return Err(io::ErrorKind::WouldBlock.into()),
            1 => thread_rng().gen_range(0..=whole),
            _ => whole,
        };
        // A job repeats the write and meets the failure.
        self.shared.attempt(Op::Write)?;
        self.shared.rewrite(&self.name, &bytes[..count], offset);
        self.file.write_at(&bytes[..count], offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        // Bytes written during the flush are not covered by it.
        let mut bytes = vec![0; usize::try_from(self.file.len()?).unwrap()];
        let read = self.file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        if let Err(error) = self.shared.attempt(Op::Sync) {
            let durable = self.shared.durable.lock().unwrap().get(&self.name).cloned();
            let mut lost = self.shared.lost.lock().unwrap();
            lost.entry(self.name.clone()).or_insert(durable.unwrap_or_default());
            return Err(error);
        }
        let lost = self.shared.lost.lock().unwrap().get(&self.name).cloned();
        shuttle::thread::sleep(std::time::Duration::ZERO);
        let is_lost = self.shared.lost.lock().unwrap().contains_key(&self.name);
        // A failed sync during this flush has dropped the pages that it covered.
        if lost.is_some() || !is_lost {
            let bytes = lost.unwrap_or(bytes);
            self.shared.durable.lock().unwrap().insert(self.name.clone(), bytes);
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}
