//! The interface for logs that are built on this one, such as the log of Raft groups.
//!
//! Such a log needs more than a handle offers. It needs room before its own lock is taken,
//! completions in log order, a hint in each segment header, and jobs.

use std::sync::Arc;

pub(crate) use crate::pipeline::{
    append::{Room, publish, room_for},
    dispatch::{sync, sync_all},
    job::request_write,
    removal::{lease, release_lease},
    state::{
        epochs::Goal,
        unit::{Span, Unit},
    },
    truncate_start::truncate_start,
    wait::reach_written,
};
use crate::{
    error::Result,
    lsn::Lsn,
    pipeline::{
        core::Core,
        job::{Job, demand_sync},
        state::{completions::Completion, payload::Payload},
    },
    sync::{Ordering, fence},
};

/// Checks and compresses the records of one unit.
pub(crate) fn unit<'a>(core: &Core, payloads: Vec<Payload<'a>>) -> Result<Unit<'a>> {
    Unit::new(core.config(), payloads)
}

/// Returns how many bytes of the log each record of a unit takes.
pub(crate) fn frame_sizes(unit: &Unit<'_>) -> Vec<u64> {
    unit.frame_sizes()
}

/// Leaves published frames to a later write. They are written with the next ones, or when a task
/// wants them synced. Has them written now if the log is being closed, or if a task waits for room.
pub(crate) fn write_later(core: &Arc<Core>) {
    // Either this thread sees the close or the task that waits for room, or that close or task sees
    // the published frames.
    fence(Ordering::SeqCst);
    if core.status().check_new().is_err() || core.roles.in_place.is_urgent() {
        request_write(core);
    }
}

/// Has everything below the goal synced, then calls `completion`. If the goal can't be reached any
/// more, `completion` gets the reason. The call may come before this function returns.
pub(crate) fn on_durable(core: &Arc<Core>, goal: Goal, completion: Completion) {
    core.progress.completions.add(goal, completion);
    if core.synced().get() < goal.end && core.status().check().is_ok() {
        demand_sync(core, goal.end);
    }
    core.run_completions();
}

/// Returns the hint in the latest header. The hint is durable once any record reserved after this
/// call is.
pub(crate) fn recorded_hint(core: &Core) -> Option<Lsn> {
    core.supply.recorded_hint()
}

/// Stores `lsn`, which is durable, as the hint for the headers of new segments.
pub(crate) fn set_hint(core: &Core, lsn: Lsn) {
    core.supply.set_hint(lsn);
}

/// Replaces a useless recorded hint. The headers of new segments hold `lsn` from now on.
pub(crate) fn replace_hint(core: &Core, lsn: Lsn) {
    core.supply.set_hint(lsn);
    core.supply.hint_recorded(Some(lsn));
}

/// Runs `work` in a job of the log. If the job is dropped unfinished, the log stops.
pub(crate) fn spawn(core: &Arc<Core>, work: impl FnOnce() + Send + 'static) {
    Job::new(core, move |_| work()).spawn();
}
