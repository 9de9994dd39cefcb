//! All power cuts that a recorded run could have met.

use std::{fmt, sync::Mutex};

use crate::{
    simulation::{
        disk::Disk,
        image::{Image, Survival},
        random::Random,
    },
    sync::LockAlways,
};

/// One power cut: when it happened, and what survived it.
#[derive(Clone, Debug)]
pub struct PowerCut {
    /// The number of changing operations before the cut.
    pub operation: u64,
    /// The unsynced changes that survived.
    pub survival: Survival,
    before: Image,
    seed: u64,
}

impl fmt::Display for PowerCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "power cut after operation {}, survival: {:?}", self.operation, self.survival)
    }
}

impl Disk {
    /// Returns every state that a power cut could have left of this [recorded](Disk::recording)
    /// disk.
    ///
    /// A cut comes after each operation. The unsynced changes then survive not at all, completely,
    /// or in `random_count` random selections. The call takes the recording, so a second call
    /// returns nothing.
    pub fn power_cuts(&self, random_count: u64) -> impl Iterator<Item = PowerCut> + use<> {
        let (history, seed) = self.take_history();
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
}

impl PowerCut {
    /// Returns the contents of the disk after the cut.
    #[must_use]
    pub fn image(&self) -> Image {
        self.before.crash(self.survival)
    }

    /// Returns the disk as the next start of the system finds it.
    #[must_use]
    pub fn disk(&self) -> Disk {
        Disk::with_image(self.image(), self.seed)
    }
}

/// Notes the promises of a program to its users, and their times. A promise must hold after every
/// later power cut.
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
    /// Creates an empty list of promises about this disk.
    #[must_use]
    pub fn new(disk: &Disk) -> Self {
        Promises { disk: disk.clone(), made: Mutex::default() }
    }

    /// Notes that `what` is promised from now on.
    pub fn make(&self, what: T) {
        let now = self.disk.operation_count();
        self.made.lock_always().push((now, what));
    }

    /// Returns everything that was promised before a cut after this operation.
    #[must_use]
    pub fn made_by(&self, operation: u64) -> Vec<T> {
        let made = self.made.lock_always();
        let in_time = made.iter().filter(|(when, _)| *when <= operation);
        in_time.map(|(_, what)| what.clone()).collect()
    }
}
