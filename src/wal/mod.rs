//! The handle: a thin async layer over the pipeline.

mod append_if;
mod appended;
mod archive;
mod at_time;
mod copy;
#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod filling_tests;
mod handle;
mod health;
mod lease;
#[cfg(feature = "metrics")]
mod metrics;
mod options;
mod pool;
mod recover;
mod sealed;
mod segments;
mod sink;
mod slot;
mod sync_every;
mod ticket;
mod truncate;
mod watch;
#[cfg(not(shuttle))]
mod watchdog;
#[cfg(not(shuttle))]
mod worker;

pub use appended::{Appended, Durability};
pub use copy::Copied;
pub use handle::Wal;
pub use health::HealthWatch;
pub use lease::Lease;
pub use options::Options;
pub(crate) use pool::{has_clock, pool};
pub use recover::{Recovered, Recovery};
pub use sealed::{SealedSegment, SealedSegments};
pub use segments::LogSegment;
pub use sink::WalSink;
pub use slot::{Slot, SlotInfo};
pub use sync_every::{PeriodicSync, SyncEvery};
pub use ticket::Ticket;
pub use watch::Watch;
