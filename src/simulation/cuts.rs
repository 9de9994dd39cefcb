//! Every loss of power that a recorded run could have met.

use std::{fmt, sync::Mutex};

use crate::simulation::{
    disk::Disk,
    fault::lock,
    image::{Image, Survival},
    random::Random,
};

/// One loss of power: when, and what survived it.
#[derive(Clone, Debug)]
pub struct PowerCut {
    /// After so many changing operations.
    pub operation: u64,
    /// What survived of that which was not synced.
    pub survival: Survival,
    before: Image,
    seed: u64,
}

impl fmt::Display for PowerCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "power cut after operation {}, survival: {:?}", self.operation, self.survival)
    }
}

impl PowerCut {
    pub(super) fn all(
        history: Vec<Image>,
        seed: u64,
        random_count: u64,
    ) -> impl Iterator<Item = PowerCut> {
        let mut random = Random::new(seed);
        history.into_iter().enumerate().flat_map(move |(operation, before)| {
            let survivals: Vec<_> = [Survival::Nothing, Survival::Everything]
                .into_iter()
                .chain((0..random_count).map(|_| Survival::Random(random.next_u64() >> 16)))
                .collect();
            let seed = random.next_u64();
            survivals.into_iter().map(move |survival| {
                let before = before.clone();
                PowerCut { operation: operation as u64, survival, before, seed }
            })
        })
    }

    /// What it left.
    #[must_use]
    pub fn image(&self) -> Image {
        self.before.crash(self.survival)
    }

    /// The disk at the next start of the system.
    #[must_use]
    pub fn disk(&self) -> Disk {
        Disk::with_image(self.image(), self.seed)
    }
}

/// What was promised to users of a disk, and when: what must hold after a loss of power.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use highwater::{Wal, simulation::{Disk, Promises}};
///
/// let disk = Disk::new(7).recording();
/// let promises = Promises::new(&disk);
/// let options = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10);
/// let wal = options.clone().open_with(disk.clone()).await?;
/// for change in ["a", "b", "c"] {
///     let lsn = wal.append_and_sync(change).await?;
///     promises.make((lsn, change));
/// }
/// for cut in disk.power_cuts(2) {
///     let wal = options.clone().open_with(cut.disk()).await?;
///     for (lsn, change) in promises.made_by(cut.operation) {
///         assert_eq!(wal.read(lsn).await?.payload, change, "{cut}");
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Promises<T> {
    disk: Disk,
    made: Mutex<Vec<(u64, T)>>,
}

impl<T: Clone> Promises<T> {
    /// None yet, on this disk.
    #[must_use]
    pub fn new(disk: &Disk) -> Self {
        Promises { disk: disk.clone(), made: Mutex::default() }
    }

    /// Promises `what` from now on.
    pub fn make(&self, what: T) {
        let now = self.disk.operation_count();
        lock(&self.made).push((now, what));
    }

    /// All that was promised when so many operations had been done.
    #[must_use]
    pub fn made_by(&self, operation: u64) -> Vec<T> {
        let made = lock(&self.made);
        let in_time = made.iter().filter(|(when, _)| *when <= operation);
        in_time.map(|(_, what)| what.clone()).collect()
    }
}
