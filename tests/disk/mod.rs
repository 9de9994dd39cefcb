//! A simulated disk that can lose power: what a file system promises, and nothing more.
//!
//! Each file has a volatile image (the page cache) and a durable one; directory entries are durable
//! apart from contents. Nothing runs in the background and nothing is random but by seed.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "shared by tests that each use a part; a mistake here must stop the test"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use highwater::storage::{Locking, Storage, StorageFile};

pub(crate) const SECTOR: usize = 512;

/// xorshift64*, seeded so that near seeds give far sequences.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mut random = Random(mixed | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((self.next() >> 11) % end as u64) as usize
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// How this disk breaks its promises; each is a mistake that the sweep must be able to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lie {
    #[default]
    None,
    /// A flush answers before anything is durable.
    SkipSync,
    /// A flush of the directory does nothing.
    SkipSyncDir,
    /// The chosen flush fails, and somebody answers Ok for it after a retry.
    HideFailedSync,
}

/// How much of what wasn't synced survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    Nothing,
    Everything,
    /// Each sector, length and directory entry by itself.
    Random(u64),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Arc<Vec<u8>>,
    volatile: Arc<Vec<u8>>,
    /// Sectors of the volatile image that are on their way to the durable one.
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum Change {
    Create(String, usize),
    Remove(String),
    Rename(String, String),
}

type Entries = BTreeMap<String, usize>;

/// Everything on the disk at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    inodes: Vec<Inode>,
    entries: Entries,
    durable_entries: Entries,
    changes: Vec<Change>,
}

#[derive(Debug)]
struct State {
    image: Image,
    random: Random,
    operation_count: u64,
    sync_count: u64,
    cut_after: u64,
    fail_sync: Option<u64>,
    lie: Lie,
    /// The image after each operation, if that is wanted.
    history: Option<Vec<Image>>,
}

#[derive(Clone, Debug)]
pub(crate) struct CrashDisk {
    state: Arc<Mutex<State>>,
    locked: Arc<AtomicBool>,
}

impl Image {
    fn new() -> Self {
        Image {
            inodes: Vec::new(),
            entries: Entries::new(),
            durable_entries: Entries::new(),
            changes: Vec::new(),
        }
    }

    /// What a power cut leaves of this.
    pub(crate) fn crash(&self, survival: Survival) -> Image {
        let mut random = match survival {
            Survival::Random(seed) => Random::new(seed),
            _ => Random::new(0),
        };
        let mut survives = |one_in: usize| match survival {
            Survival::Nothing => 0,
            Survival::Everything => SECTOR,
            // In some images most of it survives, in others little; some sectors are torn.
            Survival::Random(seed) => match random.below(8) {
                0 => random.below(SECTOR),
                n if n % 4 < 1 + (seed % 3) as usize && one_in > 0 => SECTOR,
                _ => 0,
            },
        };
        let mut entries = self.durable_entries.clone();
        for change in &self.changes {
            if survives(2) == SECTOR {
                apply(&mut entries, change);
            }
        }
        let inodes = self.inodes.iter().map(|inode| {
            let mut bytes = (*inode.durable).clone();
            if inode.volatile.len() != bytes.len() && survives(2) == SECTOR {
                bytes.resize(inode.volatile.len(), 0);
            }
            for &sector in &inode.dirty {
                // The front of a torn sector is new, the rest is old.
                let count = survives(2);
                let (start, limit) = (sector * SECTOR, bytes.len().min(inode.volatile.len()));
                let end = (start + count).min(limit);
                if start < end {
                    bytes[start..end].copy_from_slice(&inode.volatile[start..end]);
                }
            }
            let bytes = Arc::new(bytes);
            Inode { durable: Arc::clone(&bytes), volatile: bytes, dirty: BTreeSet::new() }
        });
        Image {
            inodes: inodes.collect(),
            durable_entries: entries.clone(),
            entries,
            changes: Vec::new(),
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        &self.inodes[self.entries[name]].volatile
    }

    /// Puts a file there, durably: for tests that damage a disk by hand.
    pub(crate) fn put(&mut self, name: &str, bytes: Vec<u8>) {
        let bytes = Arc::new(bytes);
        self.inodes.push(Inode {
            durable: Arc::clone(&bytes),
            volatile: bytes,
            dirty: BTreeSet::new(),
        });
        self.entries.insert(name.to_owned(), self.inodes.len() - 1);
        self.durable_entries = self.entries.clone();
        self.changes.clear();
    }

    pub(crate) fn delete(&mut self, name: &str) {
        self.entries.remove(name);
        self.durable_entries = self.entries.clone();
        self.changes.clear();
    }
}

fn apply(entries: &mut Entries, change: &Change) {
    match change {
        Change::Create(name, inode) => drop(entries.insert(name.clone(), *inode)),
        Change::Remove(name) => drop(entries.remove(name)),
        Change::Rename(from, to) => {
            if let Some(inode) = entries.remove(from) {
                entries.insert(to.clone(), inode);
            }
        }
    }
}

impl CrashDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(Image::new(), seed)
    }

    /// A machine that has just started, with this on its disk.
    pub(crate) fn with(image: Image, seed: u64) -> Self {
        let state = State {
            image,
            random: Random::new(seed),
            operation_count: 0,
            sync_count: 0,
            cut_after: u64::MAX,
            fail_sync: None,
            lie: Lie::None,
            history: None,
        };
        CrashDisk { state: Arc::new(Mutex::new(state)), locked: Arc::default() }
    }

    pub(crate) fn lying(self, lie: Lie) -> Self {
        self.state().lie = lie;
        self
    }

    /// Keeps the image after each operation.
    pub(crate) fn recording(self) -> Self {
        {
            let mut state = self.state();
            let image = state.image.clone();
            state.history = Some(vec![image]);
        }
        self
    }

    /// Lets `count` changing operations pass, and no operation at all after them.
    pub(crate) fn cut_after(self, count: u64) -> Self {
        self.state().cut_after = count;
        self
    }

    /// Fails the flush number `index`, and with it drops what it was to make durable.
    pub(crate) fn failing_sync(self, index: u64) -> Self {
        self.state().fail_sync = Some(index);
        self
    }

    pub(crate) fn heal(&self) {
        self.state().fail_sync = None;
    }

    pub(crate) fn operation_count(&self) -> u64 {
        self.state().operation_count
    }

    pub(crate) fn sync_count(&self) -> u64 {
        self.state().sync_count
    }

    pub(crate) fn history(&self) -> Vec<Image> {
        self.state().history.take().unwrap_or_default()
    }

    pub(crate) fn image(&self) -> Image {
        self.state().image.clone()
    }

    pub(crate) fn crash(&self, survival: Survival, seed: u64) -> CrashDisk {
        Self::with(self.image().crash(survival), seed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.operation_count >= state.cut_after {
            return Err(io::Error::other("the power is gone"));
        }
        Ok(state)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.alive()?;
        let changed = change(&mut state);
        state.operation_count += 1;
        let image = state.history.is_some().then(|| state.image.clone());
        if let (Some(history), Some(image)) = (&mut state.history, image) {
            history.push(image);
        }
        changed
    }

    fn change_entries(&self, change: Change) -> io::Result<()> {
        self.change(|state| {
            apply(&mut state.image.entries, &change);
            state.image.changes.push(change);
            Ok(())
        })
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

struct Unlock(Arc<AtomicBool>);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Storage for CrashDisk {
    fn location(&self) -> String {
        "simulated".to_owned()
    }

    fn is_nonblocking(&self) -> bool {
        true
    }

    fn lock(&self) -> io::Result<Locking> {
        if self.locked.swap(true, Ordering::Acquire) {
            return Ok(Locking::Busy { owner_pid: None });
        }
        Ok(Locking::Held(Box::new(Unlock(Arc::clone(&self.locked)))))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.alive()?.image.names())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let inode = {
            let mut state = self.alive()?;
            if state.image.entries.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.image.inodes.push(Inode::default());
            state.image.inodes.len() - 1
        };
        self.change_entries(Change::Create(name.to_owned(), inode))?;
        Ok(Box::new(Opened(self.clone(), inode)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let inode = self.alive()?.image.entries.get(name).copied();
        Ok(Box::new(Opened(self.clone(), inode.ok_or_else(not_found)?)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if !self.alive()?.image.entries.contains_key(name) {
            return Err(not_found());
        }
        self.change_entries(Change::Remove(name.to_owned()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if !self.alive()?.image.entries.contains_key(from) {
            return Err(not_found());
        }
        self.change_entries(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.change(|state| {
            if state.lie != Lie::SkipSyncDir {
                state.image.durable_entries = state.image.entries.clone();
                state.image.changes.clear();
            }
            Ok(())
        })
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut state = self.alive()?;
        let (a, b) = (state.random.next(), state.random.next());
        Ok((u128::from(a) << 64 | u128::from(b)).to_le_bytes())
    }

    fn unix_ms(&self) -> u64 {
        1_800_000_000_000
    }
}

#[derive(Debug)]
struct Opened(CrashDisk, usize);

impl Opened {
    fn sync(&self) -> io::Result<()> {
        self.0.change(|state| {
            let index = state.sync_count;
            state.sync_count += 1;
            if state.lie == Lie::SkipSync {
                return Ok(());
            }
            let fails = state.fail_sync == Some(index);
            let random = &mut state.random;
            let inode = &mut state.image.inodes[self.1];
            let volatile = Arc::clone(&inode.volatile);
            let durable = Arc::make_mut(&mut inode.durable);
            durable.resize(volatile.len(), 0);
            for sector in std::mem::take(&mut inode.dirty) {
                // A flush that fails still gets some of it through; the rest is clean from now on.
                if fails && !random.one_in(3) {
                    continue;
                }
                let start = (sector * SECTOR).min(volatile.len());
                let end = (start + SECTOR).min(volatile.len());
                durable[start..end].copy_from_slice(&volatile[start..end]);
            }
            if fails && state.lie != Lie::HideFailedSync {
                return Err(io::Error::other("the device failed to flush"));
            }
            Ok(())
        })
    }
}

impl StorageFile for Opened {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.0.alive()?;
        let bytes = &state.image.inodes[self.1].volatile;
        let from = bytes.get(offset as usize..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<usize> {
        self.0.change(|state| {
            let inode = &mut state.image.inodes[self.1];
            let bytes = Arc::make_mut(&mut inode.volatile);
            let (start, end) = (offset as usize, offset as usize + new.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(new);
            inode.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
            Ok(new.len())
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.alive()?.image.inodes[self.1].volatile.len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        if bytes > 1 << 30 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.change(|state| {
            let inode = &mut state.image.inodes[self.1];
            Arc::make_mut(&mut inode.volatile).resize(bytes as usize, 0);
            Ok(())
        })
    }

    /// As `fallocate`: never makes a file shorter.
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let longer = self.len()?.max(bytes);
        self.set_len(longer)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}
