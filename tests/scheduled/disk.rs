//! Files in memory, what of them a loss of power would leave, and a write or sync that fails.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// Every call on it is a place where shuttle may switch, as `MemoryStorage` is built of shuttle's
/// locks here. What this adds is not: std's locks are held for no longer than a line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    files: MemoryStorage,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// What the last successful sync of each file saw when it began.
    durable: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Files with a failed sync: their pages are clean now, so a later sync keeps nothing.
    lost: Mutex<BTreeSet<String>>,
    /// The operation that fails, and how many of its kind go well before.
    fault: Mutex<Option<(Op, u64)>>,
    /// Whether its files promise not to wait; then chance decides how often they do.
    is_promising: bool,
    /// The same "random" bytes in every run, so that a seed is all there is to a failure.
    random: AtomicU64,
}

impl Disk {
    /// One in two promises not to wait.
    pub(crate) fn new() -> Self {
        let is_promising = thread_rng().gen_range(0..2) == 0;
        let shared = Arc::new(Shared { is_promising, ..Shared::default() });
        Disk { files: MemoryStorage::new(), shared }
    }

    /// Has the operation fail that comes after `good_count` good ones from now on.
    pub(crate) fn fail(&self, op: Op, good_count: u64) {
        *self.shared.fault.lock().unwrap() = Some((op, good_count));
    }

    pub(crate) fn heal(&self) {
        *self.shared.fault.lock().unwrap() = None;
    }

    /// The files as they are after a loss of power that kept nothing but what was synced.
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
        // Another file, even if one of that name was there before.
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
        // A job finds out whether that is so.
        self.shared.attempt(Op::Write)?;
        self.file.write_at(&bytes[..count], offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        // What is written while the flush runs is not covered by it.
        let mut bytes = vec![0; usize::try_from(self.file.len()?).unwrap()];
        let read = self.file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        if let Err(error) = self.shared.attempt(Op::Sync) {
            self.shared.lost.lock().unwrap().insert(self.name.clone());
            return Err(error);
        }
        shuttle::thread::sleep(std::time::Duration::ZERO);
        if !self.shared.lost.lock().unwrap().contains(&self.name) {
            self.shared.durable.lock().unwrap().insert(self.name.clone(), bytes);
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}
