//! A crash-test kit: what shows that this log keeps its contract, for those who build on it.
//!
//! - [`Disk`] is a storage that loses, on a power cut, what a real one may lose.
//!   [`Disk::power_cuts`] gives every state in which a cut could have left it, [`Promises`] says
//!   what must hold there.
//! - [`Faults`] fail, shorten, delay, hold, misdirect or corrupt operations, by their number, by
//!   file or by chance, on a `Disk` or any other storage.
//! - [`WriteBack`] keeps unsynced bytes of real files in the process: killing it is a power cut.
//! - [`Simulation`] runs tasks, and the log's own work between each two storage operations, in an
//!   order that a seed decides.
//! - [`for_each_seed`] prints the command that replays the seed which failed.
//!
//! Everything follows from its seed: there is no clock and nothing runs in the background.
//!
//! # A crash test
//!
//! Run a workload once on a [recording](Disk::recording) disk, note what was promised when, and
//! look at what each cut leaves (`examples/crash_test.rs` is the long form):
//!
//! ```
//! use highwater::{Wal, simulation::{self, Disk, Promises, Simulation}};
//!
//! // Small, so that a short run rotates and waits for room.
//! let options = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10);
//! simulation::for_each_seed(3, |seed| {
//!     let disk = Disk::new(seed).recording();
//!     let promises = Promises::new(&disk);
//!     Simulation::new(seed).run(async {
//!         let wal = options.clone().open_with(disk.clone()).await.unwrap();
//!         let lsn = wal.append_and_sync("change").await.unwrap();
//!         promises.make(lsn);
//!     });
//!     for cut in disk.power_cuts(2) {
//!         Simulation::new(seed).run(async {
//!             let wal = options.clone().open_with(cut.disk()).await.unwrap();
//!             for lsn in promises.made_by(cut.operation) {
//!                 assert_eq!(wal.read(lsn).await.unwrap().payload, "change", "{cut}");
//!             }
//!         });
//!     }
//! });
//! ```

mod cuts;
mod disk;
mod event;
mod fault;
mod faulty;
mod gate;
mod image;
mod orphan;
mod random;
mod scheduler;
mod seeds;
mod tasks;
mod worker;
mod write_back;

pub use cuts::{PowerCut, Promises};
pub use disk::Disk;
pub use event::{Event, Op, Wrote};
pub use fault::{Fault, Faults};
pub use faulty::Faulty;
pub use gate::Gate;
pub use image::{Image, SECTOR_BYTES, Survival};
pub use random::Random;
pub use scheduler::Simulation;
pub(crate) use scheduler::current_executor;
pub use seeds::for_each_seed;
pub use tasks::{Task, spawn, yield_now};
pub use write_back::WriteBack;
