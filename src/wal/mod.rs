//! The handle: a thin async surface over the pipeline. The only place that starts threads' work.

mod appended;
mod archive;
mod copy;
#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod filling_tests;
mod handle;
mod lease;
mod options;
mod pool;
mod recover;
mod sealed;
mod sink;
mod sync_every;
mod ticket;
mod truncate;

pub use appended::{Appended, Durability};
pub use copy::Copied;
pub use handle::Wal;
pub use lease::Lease;
pub use options::Options;
pub(crate) use options::RUNTIME_GONE;
pub(crate) use pool::{has_clock, pool};
pub use recover::{Recovered, Recovery};
pub use sealed::{SealedSegment, SealedSegments};
pub use sink::WalSink;
pub use sync_every::{PeriodicSync, SyncEvery};
pub use ticket::Ticket;
