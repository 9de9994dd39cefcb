//! From an appender's bytes to stable storage: ring, writer, syncer, and those who wait for them.
//!
//! Nothing here spawns or awaits a device: work goes out as jobs through an
//! [`Executor`](crate::executor::Executor), and tasks wait for marks.

#[cfg(feature = "raft")]
mod answers;
mod append;
mod close;
mod core;
mod cut;
mod epochs;
mod filling;
mod in_place;
mod job;
mod linger;
mod lock_cell;
#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
mod mark;
mod measures;
mod open_log;
mod purge;
mod recycle;
mod regroup;
mod ring;
mod scheduled;
mod space;
mod standing;
mod status;
mod sync_in_place;
mod syncer;
mod writer;

pub use append::Payload;
pub(crate) use append::Span;
#[cfg(feature = "raft")]
pub(crate) use append::{Room, Unit};
pub(crate) use core::{CONTROL_FRAME_BYTES, Core, FIRST_FRAME_BYTES, Start};
pub(crate) use epochs::Goal;
#[cfg(feature = "raft")]
pub(crate) use job::Job;
pub(crate) use mark::{Mark, WaiterId};
pub use measures::Percentiles;
pub(crate) use open_log::OpenLog;
pub(crate) use writer::{Active, incarnation};
