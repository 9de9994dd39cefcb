//! The pipeline's state: each type guards its own data.
//!
//! Nothing here knows the log around it, starts a job or does I/O. The operations above combine
//! these types.

pub(super) mod alone;
pub(super) mod beginning;
pub(super) mod completions;
pub(super) mod epochs;
pub(super) mod filling;
pub(super) mod habit;
pub(super) mod holds;
pub(super) mod in_flight;
pub(super) mod in_place;
pub(super) mod lock_cell;
#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
pub(super) mod mark;
pub(super) mod measures;
pub(super) mod metrics;
pub(super) mod orders;
pub(super) mod owed_mark;
pub(super) mod payload;
pub(super) mod permits;
pub(super) mod recycled;
pub(super) mod retaining;
pub(super) mod ring;
pub(super) mod scheduled;
pub(super) mod slot_state;
pub(super) mod slots;
pub(super) mod space;
pub(super) mod stalls;
pub(super) mod standby;
pub(super) mod status;
pub(super) mod times;
pub(super) mod unit;
pub(super) mod wakers;
pub(super) mod watched;
pub(super) mod writing;
