//! The relief job: makes room for appends that wait for the budget.
//!
//! A log whose appends all wait has no flush, and decisions about its beginning ride flushes. So a
//! waiting append requests this job, and so do a slot or a lease that has moved, and a flush. The
//! job decides without a wait, and demands a flush for its record.

use std::{sync::Arc, time::Duration};

use crate::{
    pipeline::{
        budget::judge_next,
        core::{Core, Role},
        job::{demand_sync, request_relief, request_spare, request_write, start},
        notes::{InReserve, publish_in_reserve},
        retention::{Decided, apply, drop_oldest},
        state::{retaining::Verdict, space::SLOTS_ROOM_BYTES},
    },
    turn::pause,
};

/// The pause before the job looks for a permit again.
const PAUSE: Duration = Duration::from_micros(500);

/// After this many looks a job hands over to a new one.
const LOOKS_PER_JOB: u32 = 16;

/// Looks until nothing has changed since the last look.
pub(super) fn run(core: &Arc<Core>) {
    let retaining = core.retaining();
    for _ in 0..core.turns(LOOKS_PER_JOB) {
        retaining.begin_relief();
        if retaining.needs_relief() && core.status().check_new().is_ok() {
            look(core);
        }
        if !retaining.end_relief() {
            return;
        }
    }
    start(core, Role::Relieve);
}

fn look(core: &Arc<Core>) {
    // A truncation may be published whose flush a truncation of the end has overtaken.
    if let Some(end) = core.beginning().last_ordered_end() {
        demand_sync(core, end);
    }
    let decided = match apply(core) {
        Decided::Nothing => drop_oldest(core),
        decided => decided,
    };
    match decided {
        Decided::Nothing => move_slots(core),
        Decided::Published(goal) => demand_sync(core, goal.end),
        // The flush requests relief again.
        Decided::Unsynced(end) => demand_sync(core, end),
        Decided::Later => look_later(core),
        Decided::NoSpace => take_credit(core),
    }
    let unit_bytes = core.retaining().dropping_for().unwrap_or(0);
    if judge_next(core, unit_bytes) == Some(Verdict::Fits) {
        request_spare(core, unit_bytes);
    }
}

/// Makes moves of slots durable, if that frees a segment.
fn move_slots(core: &Arc<Core>) {
    if !core.slots().is_due() {
        return;
    }
    let Ok(permit) = core.intake.permits.try_acquire(SLOTS_ROOM_BYTES) else {
        return look_later(core);
    };
    match publish_in_reserve(core, permit) {
        InReserve::Placed(end) => demand_sync(core, end),
        InReserve::Used => take_credit(core),
        InReserve::Useless => {}
    }
}

/// Has the next segment prepared beyond the budget. Otherwise a log that has used the space for one
/// truncation, or for one record of slots, could never be truncated.
fn take_credit(core: &Arc<Core>) {
    core.retaining().give_credit();
    request_spare(core, 0);
}

/// Looks again after a pause: requests that are not polled may hold all permits. The write job
/// takes such offers back.
fn look_later(core: &Arc<Core>) {
    if core.executor().runs_in_place() {
        // The permits are held by a caller, which looks again.
        return;
    }
    request_write(core);
    pause(PAUSE);
    request_relief(core);
}
