//! [`Disk`]: a simulated disk that can lose power.

use std::{fmt, io, sync::Arc};

use crate::{
    simulation::{
        fault::Faults,
        faulty::{Faulty, FaultyFile},
        image::{EntryChange, Image, Survival},
        raw_disk::RawDisk,
    },
    storage::{Locking, Place, Storage, StorageFile},
};

/// A disk in memory that guarantees what a file system guarantees, and nothing more.
///
/// Each file has durable contents and, sector by sector, newer contents in the page cache.
/// Directory entries are durable independently of file contents. A failed sync drops the dirty
/// sectors and marks them clean, as on Linux: reads still return bytes that never reached the
/// medium. Clones are the same disk, so a log can be opened on it again. There is no background
/// work and no clock, and every random choice follows from the seed.
///
/// The disk counts its *changing* operations: creations, links, renames, removals, writes, changes
/// of length and syncs. The power can be cut after each of them.
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
    /// Creates an empty disk. The seed decides the ids that a log draws, and which sectors a failed
    /// sync still writes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_image(Image::new(), seed)
    }

    /// Creates a disk with these contents, as after a start of the system.
    #[must_use]
    pub fn with_image(image: Image, seed: u64) -> Self {
        let raw = RawDisk::new(image, seed);
        let faults = Faults::with_seed(seed);
        faults.record(false);
        Disk { faulty: Arc::new(faults.over(raw.clone())), raw, faults }
    }

    /// Returns the disk's faults. Events are recorded only after `faults().record(true)`.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Cuts the power after `count` changing operations: every later operation fails.
    #[must_use]
    pub fn cut_after(self, count: u64) -> Self {
        self.raw.state().cut_after = count;
        self
    }

    /// Cuts the power: all operations fail from now on.
    pub fn cut(&self) {
        self.raw.state().cut_after = 0;
    }

    /// Limits the space of all files, in bytes. Unlimited by default.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.raw.state().capacity_bytes = bytes;
    }

    /// Sets whether files support [`write_at_nonblocking`](StorageFile::write_at_nonblocking). They
    /// do not by default. [`Faults`] make such a write short or unsupported
    /// ([`Op::WriteNonblocking`](crate::simulation::Op::WriteNonblocking)).
    pub fn set_nonblocking_writes(&self, are_known: bool) {
        self.raw.state().promises_not_to_wait = are_known;
    }

    /// Sets the result of [`check_place`](Storage::check_place): the directory is renamed,
    /// replaced, or loses its lock. [`Place::Kept`] restores it.
    ///
    /// The log keeps the directory that it opened, so its files stay on this disk. With
    /// [`Place::Removed`] the files lose their names: no later opening finds them, and no file can
    /// be created.
    pub fn set_place(&self, place: Place) {
        let mut state = self.raw.state();
        state.place = place;
        if place == Place::Removed {
            for name in state.image.names() {
                state.image.change(EntryChange::Remove(name));
            }
            state.image.sync_entries();
        }
    }

    /// Records the contents after each operation, for [`Disk::power_cuts`]. Each record copies the
    /// changed file, so keep files small (some kilobytes).
    #[must_use]
    pub fn recording(self) -> Self {
        {
            let mut state = self.raw.state();
            let image = state.image.clone();
            state.history = Some(vec![image]);
        }
        self
    }

    /// Returns the number of changing operations so far.
    #[must_use]
    pub fn operation_count(&self) -> u64 {
        self.raw.state().operation_count
    }

    /// Returns the contents of the disk.
    #[must_use]
    pub fn image(&self) -> Image {
        self.raw.state().image.clone()
    }

    /// Returns the disk after a power cut now, as the next start finds it.
    #[must_use]
    pub fn crash(&self, survival: Survival) -> Disk {
        let mut state = self.raw.state();
        let seed = state.random.next_u64();
        Self::with_image(state.image.crash(survival), seed)
    }

    /// Takes the recorded images, with a seed for the random survivals.
    pub(super) fn take_history(&self) -> (Vec<Image>, u64) {
        let mut state = self.raw.state();
        (state.history.take().unwrap_or_default(), state.random.next_u64())
    }
}

impl Storage for Disk {
    fn location(&self) -> String {
        self.faulty.location()
    }

    /// Returns `true`, unless a simulation runs.
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

    fn check_place(&self) -> io::Result<Place> {
        self.faulty.check_place()
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
    /// Opens a file with the disk's faults. It also simulates the effect of a failed sync.
    fn file(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.raw.opened(name)?;
        let failing = file.clone();
        let file = FaultyFile::new(name, Arc::new(file), &self.faults);
        Ok(Box::new(file.on_failed_sync(Box::new(move || failing.fail_sync()))))
    }
}
