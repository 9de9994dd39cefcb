//! [`Image`]: the contents of a simulated disk, before and after a power cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use crate::simulation::random::Random;

/// The bytes that a disk writes whole or not at all. A [`Survival::Random`] may still tear a
/// sector, because some disks do.
pub const SECTOR_BYTES: usize = 512;

/// The unsynced changes that survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// No unsynced change survives.
    Nothing,
    /// All unsynced changes survive, as if they had just been written back.
    Everything,
    /// The seed decides separately for each sector, length and directory entry. Some sectors are
    /// torn.
    Random(u64),
}

/// The contents of a disk at one moment: the durable and the cached bytes and directory entries.
#[derive(Clone, Debug, Default)]
pub struct Image {
    inodes: Vec<Inode>,
    entries: Entries,
    durable_entries: Entries,
    /// Changes of the directory since its last sync.
    changes: Vec<EntryChange>,
}

/// The number of a file. It stays the same when the name changes.
pub(super) type InodeNumber = usize;

type Entries = BTreeMap<String, InodeNumber>;

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Arc<Vec<u8>>,
    volatile: Arc<Vec<u8>>,
    /// Sectors with newer contents in the page cache than on the medium.
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum EntryChange {
    Create(String, InodeNumber),
    Remove(String),
    Rename(String, String),
}

impl Image {
    /// Creates an empty image.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the names of all files, as the running system sees them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// Returns the bytes of a file, as the running system sees them.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let inode = self.inodes.get(*self.entries.get(name)?)?;
        Some(inode.volatile.as_slice())
    }

    /// Writes a file durably, and replaces a file with the same name. Use it to damage a file.
    pub fn put(&mut self, name: &str, bytes: Vec<u8>) {
        let bytes = Arc::new(bytes);
        let inode = Inode { durable: Arc::clone(&bytes), volatile: bytes, dirty: BTreeSet::new() };
        self.inodes.push(inode);
        self.entries.insert(name.to_owned(), self.inodes.len() - 1);
        self.sync_entries();
    }

    /// Removes a file durably.
    pub fn delete(&mut self, name: &str) {
        self.entries.remove(name);
        self.sync_entries();
    }

    /// Returns the contents after a power cut, as the next start of the system finds them.
    #[must_use]
    pub fn crash(&self, survival: Survival) -> Image {
        let mut fate = Fate::new(survival);
        let mut entries = self.durable_entries.clone();
        for change in &self.changes {
            if fate.is_kept() {
                apply(&mut entries, change);
            }
        }
        let inodes = self.inodes.iter().map(|inode| inode.crash(&mut fate)).collect();
        Image { inodes, durable_entries: entries.clone(), entries, changes: Vec::new() }
    }

    pub(super) fn find(&self, name: &str) -> Option<InodeNumber> {
        self.entries.get(name).copied()
    }

    pub(super) fn add_inode(&mut self) -> InodeNumber {
        self.inodes.push(Inode::default());
        self.inodes.len() - 1
    }

    pub(super) fn change(&mut self, change: EntryChange) {
        apply(&mut self.entries, &change);
        self.changes.push(change);
    }

    pub(super) fn sync_entries(&mut self) {
        self.durable_entries = self.entries.clone();
        self.changes.clear();
    }

    pub(super) fn file(&self, number: InodeNumber) -> &[u8] {
        self.inodes.get(number).map_or(&[], |inode| inode.volatile.as_slice())
    }

    /// Returns the bytes of all files with a name.
    pub(super) fn used_bytes(&self) -> u64 {
        let numbers: BTreeSet<_> = self.entries.values().collect();
        numbers.into_iter().map(|&number| self.file(number).len() as u64).sum()
    }

    pub(super) fn link_count(&self, number: InodeNumber) -> u64 {
        self.entries.values().filter(|&&linked| linked == number).count() as u64
    }

    pub(super) fn write(&mut self, number: InodeNumber, new: &[u8], start: usize) {
        let Some(inode) = self.inodes.get_mut(number) else { return };
        let end = start + new.len();
        let bytes = Arc::make_mut(&mut inode.volatile);
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(place) = bytes.get_mut(start..end) {
            place.copy_from_slice(new);
        }
        inode.dirty.extend(start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
    }

    pub(super) fn set_len(&mut self, number: InodeNumber, length: usize) {
        let Some(inode) = self.inodes.get_mut(number) else { return };
        let before = inode.volatile.len();
        Arc::make_mut(&mut inode.volatile).resize(length, 0);
        // Cut sectors are dirty, because they read as zeros if the file grows again.
        inode.dirty.extend(length / SECTOR_BYTES..before.div_ceil(SECTOR_BYTES));
    }

    /// Writes back a file's length, because it is needed to read the bytes, and its dirty sectors
    /// in this range of bytes.
    pub(super) fn write_back_range(&mut self, number: InodeNumber, bytes: Range<usize>) {
        let Some(inode) = self.inodes.get_mut(number) else { return };
        let sectors = bytes.start / SECTOR_BYTES..bytes.end.div_ceil(SECTOR_BYTES);
        let volatile = Arc::clone(&inode.volatile);
        let durable = Arc::make_mut(&mut inode.durable);
        durable.resize(volatile.len(), 0);
        for sector in sectors.filter(|sector| inode.dirty.remove(sector)) {
            copy_sector(durable, &volatile, sector, SECTOR_BYTES);
        }
    }

    /// Writes back a file's length and its dirty sectors, each if `is_kept` returns true. All
    /// sectors are clean afterwards.
    pub(super) fn write_back(&mut self, number: InodeNumber, mut is_kept: impl FnMut() -> bool) {
        let Some(inode) = self.inodes.get_mut(number) else { return };
        let volatile = Arc::clone(&inode.volatile);
        let durable = Arc::make_mut(&mut inode.durable);
        if durable.len() != volatile.len() && is_kept() {
            durable.resize(volatile.len(), 0);
        }
        for sector in std::mem::take(&mut inode.dirty) {
            if is_kept() {
                copy_sector(durable, &volatile, sector, SECTOR_BYTES);
            }
        }
    }
}

impl Inode {
    fn crash(&self, fate: &mut Fate) -> Inode {
        let mut bytes = (*self.durable).clone();
        if self.volatile.len() != bytes.len() {
            bytes.resize(fate.length(bytes.len(), self.volatile.len()), 0);
        }
        for &sector in &self.dirty {
            copy_sector(&mut bytes, &self.volatile, sector, fate.sector_bytes());
        }
        let bytes = Arc::new(bytes);
        Inode { durable: Arc::clone(&bytes), volatile: bytes, dirty: BTreeSet::new() }
    }
}

/// Copies the first `count` bytes of a sector. The rest of a torn sector stays old.
fn copy_sector(to: &mut [u8], from: &[u8], sector: usize, count: usize) {
    let start = sector * SECTOR_BYTES;
    let end = (start + count).min(to.len()).min(from.len());
    if let (Some(to), Some(from)) = (to.get_mut(start..end), from.get(start..end)) {
        to.copy_from_slice(from);
    }
}

fn apply(entries: &mut Entries, change: &EntryChange) {
    match change {
        EntryChange::Create(name, inode) => drop(entries.insert(name.clone(), *inode)),
        EntryChange::Remove(name) => drop(entries.remove(name)),
        EntryChange::Rename(from, to) => {
            if let Some(inode) = entries.remove(from) {
                entries.insert(to.clone(), inode);
            }
        }
    }
}

/// Decides which changes survive. In some crashes most of them do, in others few.
struct Fate {
    survival: Survival,
    random: Random,
    kept_in_eight: usize,
}

impl Fate {
    fn new(survival: Survival) -> Self {
        let seed = if let Survival::Random(seed) = survival { seed } else { 0 };
        let mut random = Random::new(seed);
        let kept_in_eight = 1 + random.below(7);
        Fate { survival, random, kept_in_eight }
    }

    fn is_kept(&mut self) -> bool {
        match self.survival {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::Random(_) => self.random.below(8) < self.kept_in_eight,
        }
    }

    /// Returns how many bytes of a sector reached the medium.
    fn sector_bytes(&mut self) -> usize {
        if matches!(self.survival, Survival::Random(_)) && self.random.one_in(10) {
            return self.random.below(SECTOR_BYTES);
        }
        if self.is_kept() { SECTOR_BYTES } else { 0 }
    }

    /// Returns the length that reached the medium: the old one, the new one, or one between them.
    fn length(&mut self, old: usize, new: usize) -> usize {
        if matches!(self.survival, Survival::Random(_)) && self.random.one_in(6) {
            let (low, high) = (old.min(new), old.max(new));
            return low + self.random.below(high - low);
        }
        if self.is_kept() { new } else { old }
    }
}
