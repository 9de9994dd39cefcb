//! From an appender's bytes to stable storage: ring, writer, syncer, and the tasks that wait.
//!
//! Three levels, each of which imports only from below. `dispatch` and the other operations of a
//! user are at the top. Below them are the roles (writing, syncing, preparing, removing), then
//! `core` with the plain types of `state`. Nothing here spawns a thread or awaits a device: work
//! goes out as jobs through an [`Executor`](crate::executor::Executor), and tasks wait for marks.

pub(crate) mod append;
mod budget;
mod claim;
pub(crate) mod close;
mod core;
pub(crate) mod dispatch;
#[allow(dead_code, unused_imports, reason = "only logs that are built above this one use it")]
pub(crate) mod embed;
mod first;
mod flush;
pub(crate) mod job;
pub(crate) mod mark_frame;
mod notes;
mod open_log;
pub(crate) mod place;
mod prepare;
pub(crate) mod recycle;
mod regroup;
mod relief;
pub(crate) mod removal;
mod reservation;
pub(crate) mod retention;
mod room;
mod rotate;
pub(crate) mod slot_changes;
mod stalled;
mod state;
mod sync_alone;
mod sync_in_place;
mod syncer;
pub(crate) mod truncate_end;
pub(crate) mod truncate_start;
pub(crate) mod wait;
mod waking;
mod write_durably;
mod write_in_place;
mod write_job;
mod writer;

pub(crate) use core::{Core, Start};
pub(crate) use open_log::OpenLog;
pub(crate) use state::{
    epochs::Goal,
    mark::{Mark, WaiterId},
    metrics::{Instruments, LogName},
    slots::RecoveredSlots,
    space::CONTROL_ROOM_BYTES,
    times::RecoveredTimes,
    unit::Span,
    wakers::wake_each,
    watched::Watched,
    writing::Active,
};
pub use state::{measures::Percentiles, payload::Payload};
