//! A simulated disk that can lose power.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    simulation::{
        cuts::PowerCut,
        fault::{Faults, lock},
        faulty::{Faulty, FaultyFile},
        image::{Change, Image, InodeNumber, Survival, to_usize},
        random::Random,
    },
    storage::{Locking, Storage, StorageFile},
};

/// A disk in memory that promises what a file system promises, and nothing more.
///
/// Each file has what is on the medium and, over it, what is only in the page cache, sector by
/// sector; directory entries are durable apart from contents. A sync that fails drops the dirty
/// sectors and marks them clean, as Linux does: the cache goes on showing what the medium never
/// got. Clones are the same disk, so that a log can be opened on it again. Nothing happens in the
/// background, there is no clock, and nothing is random but by seed.
///
/// It counts its *changing* operations: creations, links, renamings, removals, writes, changes of length
/// and syncs. The power can be cut after any of them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use highwater::{Wal, simulation::{Disk, Survival}};
///
/// let disk = Disk::new(1);
/// let wal = Wal::options().open_with(disk.clone()).await?;
/// let lsn = wal.append_and_sync(b"acknowledged").await?;
///
/// let after = disk.crash(Survival::Nothing);
/// let wal = Wal::options().open_with(after).await?;
/// assert_eq!(wal.read(lsn).await?.payload, "acknowledged");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Disk {
    faulty: Arc<Faulty<RawDisk>>,
    raw: RawDisk,
    faults: Faults,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation_count = self.operation_count();
        f.debug_struct("Disk").field("operation_count", &operation_count).finish_non_exhaustive()
    }
}

impl Disk {
    /// An empty disk. The ids that a log draws, and what a failed sync still gets through, follow
    /// from the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_image(Image::new(), seed)
    }

    /// A machine that has just started, with this on its disk.
    #[must_use]
    pub fn with_image(image: Image, seed: u64) -> Self {
        let state = State {
            image,
            random: Random::new(seed),
            operation_count: 0,
            cut_after: u64::MAX,
            capacity_bytes: u64::MAX,
            promises_not_to_wait: false,
            history: None,
        };
        let raw = RawDisk { state: Arc::new(Mutex::new(state)), locked: Arc::default() };
        let faults = Faults::with_seed(seed);
        faults.record(false);
        Disk { faulty: Arc::new(faults.over(raw.clone())), raw, faults }
    }

    /// The disk's faults; its events are recorded from `faults().record(true)` on.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Lets `count` changing operations pass in all, and no operation whatsoever after them.
    #[must_use]
    pub fn cut_after(self, count: u64) -> Self {
        self.raw.state().cut_after = count;
        self
    }

    /// Cuts the power: no operation succeeds from now on.
    pub fn cut(&self) {
        self.raw.state().cut_after = 0;
    }

    /// Files take so much space at most, in bytes; without end by default.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.raw.state().capacity_bytes = bytes;
    }

    /// Whether its files can promise not to wait: whether they know
    /// [`write_at_nonblocking`](StorageFile::write_at_nonblocking). They don't by default. That it
    /// comes short, would wait after all or isn't known any more, is for [`Faults`] to say
    /// ([`Op::WriteNonblocking`](crate::simulation::Op::WriteNonblocking)).
    pub fn set_nonblocking_writes(&self, are_known: bool) {
        self.raw.state().promises_not_to_wait = are_known;
    }

    /// Keeps the image after each operation, for [`Disk::power_cuts`]. Costs a copy of the file
    /// that an operation changes: meant for files of kilobytes.
    #[must_use]
    pub fn recording(self) -> Self {
        {
            let mut state = self.raw.state();
            let image = state.image.clone();
            state.history = Some(vec![image]);
        }
        self
    }

    /// How many changing operations there were.
    #[must_use]
    pub fn operation_count(&self) -> u64 {
        self.raw.state().operation_count
    }

    /// What is on the disk now.
    #[must_use]
    pub fn image(&self) -> Image {
        self.raw.state().image.clone()
    }

    /// The disk as the next start of the system finds it after a loss of power now.
    #[must_use]
    pub fn crash(&self, survival: Survival) -> Disk {
        let mut state = self.raw.state();
        let seed = state.random.next_u64();
        Self::with_image(state.image.crash(survival), seed)
    }

    /// Every state in which a loss of power may have left this disk, of which each step was
    /// [recorded](Disk::recording): after each operation nothing survives that wasn't synced, all
    /// of it does, and `random_count` times a random part.
    ///
    /// The record is taken: a second call gives nothing.
    pub fn power_cuts(&self, random_count: u64) -> impl Iterator<Item = PowerCut> + use<> {
        let mut state = self.raw.state();
        let history = state.history.take().unwrap_or_default();
        let seed = state.random.next_u64();
        PowerCut::all(history, seed, random_count)
    }
}

impl Storage for Disk {
    fn location(&self) -> String {
        self.faulty.location()
    }

    /// In place, unless a simulation runs.
    fn is_nonblocking(&self) -> bool {
        self.faulty.is_nonblocking()
    }

    fn lock(&self) -> io::Result<Locking> {
        self.faulty.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.faulty.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.faulty.create(name)?;
        self.file(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.faulty.open(name)?;
        self.file(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.faulty.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.faulty.rename(from, to)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.faulty.link(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.faulty.sync_dir()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.faulty.random()
    }

    fn unix_ms(&self) -> u64 {
        self.faulty.unix_ms()
    }
}

impl Disk {
    /// The file as its faults show it; unlike other storages' it knows what a failed sync does.
    fn file(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.raw.opened(name)?;
        let failing = file.clone();
        let file = FaultyFile::new(name, Arc::new(file), &self.faults);
        Ok(Box::new(file.on_failed_sync(Box::new(move || failing.fail_sync()))))
    }
}

#[derive(Debug)]
struct State {
    image: Image,
    random: Random,
    operation_count: u64,
    cut_after: u64,
    capacity_bytes: u64,
    promises_not_to_wait: bool,
    /// The image after each operation, if that is wanted.
    history: Option<Vec<Image>>,
}

/// The disk under its faults.
#[derive(Clone, Debug)]
struct RawDisk {
    state: Arc<Mutex<State>>,
    locked: Arc<AtomicBool>,
}

impl RawDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.operation_count >= state.cut_after {
            return Err(io::Error::other("the power is gone"));
        }
        Ok(state)
    }

    /// The power is not asked for: who has just created a file has it, though it went with that.
    fn opened(&self, name: &str) -> io::Result<RawFile> {
        let number = self.state().image.find(name).ok_or_else(not_found)?;
        Ok(RawFile { disk: self.clone(), number })
    }

    /// One changing operation.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.alive()?;
        let changed = change(&mut state)?;
        state.operation_count += 1;
        let State { image, history, .. } = &mut *state;
        if let Some(history) = history {
            history.push(image.clone());
        }
        Ok(changed)
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

impl Storage for RawDisk {
    fn location(&self) -> String {
        "simulated disk".to_owned()
    }

    fn is_nonblocking(&self) -> bool {
        true
    }

    fn lock(&self) -> io::Result<Locking> {
        if self.locked.swap(true, Ordering::Acquire) {
            return Ok(Locking::Busy { owner_pid: Some(std::process::id()) });
        }
        Ok(Locking::Held(Box::new(Unlock(Arc::clone(&self.locked)))))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.alive()?.image.names())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.change(|state| {
            if state.image.find(name).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let number = state.image.add_inode();
            state.image.change(Change::Create(name.to_owned(), number));
            Ok(())
        })?;
        Ok(Box::new(self.opened(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        drop(self.alive()?);
        Ok(Box::new(self.opened(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|state| {
            state.image.find(name).ok_or_else(not_found)?;
            state.image.change(Change::Remove(name.to_owned()));
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|state| {
            state.image.find(from).ok_or_else(not_found)?;
            state.image.change(Change::Rename(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    /// An entry more for the same bytes: durable by a sync of the directory, as any.
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|state| {
            let number = state.image.find(from).ok_or_else(not_found)?;
            if state.image.find(to).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.image.change(Change::Create(to.to_owned(), number));
            Ok(())
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.change(|state| {
            state.image.sync_entries();
            Ok(())
        })
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut state = self.alive()?;
        let (a, b) = (state.random.next_u64(), state.random.next_u64());
        Ok((u128::from(a) << 64 | u128::from(b)).to_le_bytes())
    }

    /// There is no clock.
    fn unix_ms(&self) -> u64 {
        1_800_000_000_000
    }
}

#[derive(Clone, Debug)]
struct RawFile {
    disk: RawDisk,
    number: InodeNumber,
}

impl RawFile {
    fn sync(&self) -> io::Result<()> {
        self.disk.change(|state| {
            state.image.write_back(self.number, || true);
            Ok(())
        })
    }

    /// A sync that fails still gets some of it through; the rest is clean from now on, and lost.
    fn fail_sync(&self) {
        let number = self.number;
        // Without power it changes nothing.
        let _ = self.disk.change(|state| {
            let random = &mut state.random;
            state.image.write_back(number, || random.one_in(3));
            Ok(())
        });
    }

    fn set_len_to(&self, length: impl FnOnce(u64) -> u64) -> io::Result<()> {
        self.disk.change(|state| {
            let bytes = length(state.image.file(self.number).len() as u64);
            self.check_room(state, bytes)?;
            state.image.set_len(self.number, to_usize(bytes)?);
            Ok(())
        })
    }

    /// Whether the disk has room for this file to be so long.
    fn check_room(&self, state: &State, bytes: u64) -> io::Result<()> {
        let before = state.image.file(self.number).len() as u64;
        let others = state.image.used_bytes().saturating_sub(before);
        // A mistake in a test must not take the machine's memory.
        let room = state.capacity_bytes.saturating_sub(others).min(FILE_BYTES_MAX);
        if bytes > room.max(before) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

const FILE_BYTES_MAX: u64 = 1 << 30;

impl StorageFile for RawFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.alive()?;
        let bytes = state.image.file(self.number);
        let from = bytes.get(to_usize(offset)?..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), from.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.disk.change(|state| {
            self.check_room(state, offset.saturating_add(bytes.len() as u64))?;
            state.image.write(self.number, bytes, to_usize(offset)?);
            Ok(bytes.len())
        })
    }

    fn write_at_nonblocking(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if !self.disk.state().promises_not_to_wait {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.write_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.alive()?.image.file(self.number).len() as u64)
    }

    fn link_count(&self) -> io::Result<u64> {
        Ok(self.disk.alive()?.image.link_count(self.number))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.set_len_to(|_| bytes)
    }

    /// As `fallocate`: never makes a file shorter.
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.set_len_to(|before| before.max(bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}
