//! A crash-test kit for this log, and for programs that are built on this log.
//!
//! - [`Disk`] is a storage that loses at a power cut what a real disk may lose.
//!   [`Disk::power_cuts`] returns every state that a cut could have left; [`Promises`] lists the
//!   promises that must hold in it.
//! - [`Faults`] fail, shorten, delay, hold, misdirect or corrupt operations: by number, by file or
//!   by chance, on a `Disk` or any other storage.
//! - [`WriteBack`] keeps the unsynced bytes of real files in the process, so that killing the
//!   process is a power cut.
//! - [`Simulation`] runs tasks and the log's background work between storage operations, in an
//!   order that a seed decides.
//! - [`pass_time`] lets time pass for operations that a fault holds: the disk hangs.
//! - [`for_each_seed`] prints the command that replays a failed seed.
//!
//! A [`Simulation`] on a [`Disk`] follows from its seed, because there is no clock, and one thread
//! runs at a time.
//!
//! # A crash test
//!
//! Run a workload once on a [recording](Disk::recording) disk, and note each promise with its time.
//! Then check the state that each cut leaves. `examples/crash_test.rs` is a longer version of this
//! test:
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
mod raw_disk;
mod schedule;
mod scheduler;
mod seeds;
mod tasks;
mod threads;
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
pub use seeds::for_each_seed;
pub use tasks::{Task, spawn, yield_now};
pub(crate) use threads::current_executor;
pub use threads::pass_time;
pub use write_back::WriteBack;
