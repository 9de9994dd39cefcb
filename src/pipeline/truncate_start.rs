//! Truncation of the start: the log begins at a later position.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{control::Control, frame::FIRST_FRAME_BYTES},
    lsn::Lsn,
    pipeline::{
        core::Core,
        dispatch::sync,
        job::PanicGuard,
        removal::apply_truncations,
        reservation::Reservation,
        room::{acquire, wait_for_place},
        state::{beginning::Moved, epochs::Goal, permits::Permit},
    },
    sabotage::{self, Sabotage},
};

/// Moves the beginning of the log to `lsn`. Resolves when that is durable. In `epoch`, `lsn` was a
/// boundary, written and not above the end. Returns `false` if a slot at a lower position, which
/// was made meanwhile, keeps the beginning where it is.
pub(crate) async fn truncate_start(core: &Arc<Core>, lsn: Lsn, epoch: u64) -> Result<bool> {
    if lsn > core.beginning().first() {
        // A log never begins above its durable end.
        sync(core, Goal { end: lsn, epoch }.into()).await?;
    }
    let mut full = None;
    while lsn > core.beginning().first() {
        let permit = acquire(core, FIRST_FRAME_BYTES).await?;
        core.status().check_new()?;
        // While this task holds a permit the end is not truncated.
        core.epochs().check(Goal { end: lsn, epoch })?;
        let has_room = core.supply.space.has_room(core.tail());
        if has_room || full.is_some() {
            let published = publish_first(core, permit, lsn, full.filter(|_| !has_room))?;
            let Some(goal) = published else { return Ok(false) };
            return wait_recorded(core, goal).await.map(|()| true);
        }
        // A waiting future holds nothing, because it may never be polled again.
        drop(permit);
        full = wait_for_place(core, None).await.err();
        // A log that can't get its next segment can still be truncated; a stopped one can't.
        core.status().check()?;
    }
    // Another call has moved the beginning. The record of that call may not be durable yet.
    let goal = core.goal(|| core.beginning().last_ordered_end().unwrap_or(Lsn::ZERO));
    wait_recorded(core, goal).await.map(|()| true)
}

/// Reserves and publishes the record of the beginning. Never waits. A log that is `full` can be
/// truncated once, in the space kept for control records. Returns `None` if a slot is in the way.
fn publish_first(
    core: &Arc<Core>,
    permit: Permit<'_>,
    lsn: Lsn,
    full: Option<Error>,
) -> Result<Option<Goal>> {
    let reserve = || {
        permit.forget();
        let reserved = core.intake.ring.reserve(FIRST_FRAME_BYTES);
        let end = reserved.end();
        (reserved, end)
    };
    let epoch = core.epochs().current();
    // The guard is outside of the closure, because the log must not be stopped under the lock of
    // the beginning.
    let guard = PanicGuard { core };
    let moved = core.beginning().move_first(lsn, full, core.synced().get(), reserve);
    std::mem::forget(guard);
    let reserved = match moved? {
        Moved::Now(reserved) => reserved,
        Moved::Before => {
            let end = core.beginning().last_ordered_end().unwrap_or(Lsn::ZERO);
            return Ok(Some(Goal { end, epoch }));
        }
        Moved::Held => return Ok(None),
    };
    let reservation = Reservation::of(core, reserved);
    let end = reservation.end();
    reservation.publish_control(Control::First(lsn));
    if sabotage::is_on(Sabotage::RemoveBeforeFlush) {
        apply_truncations(core, || end);
    }
    core.publish_marks();
    Ok(Some(Goal { end, epoch }))
}

/// Waits until a record of the beginning is durable. If that record was truncated, the header of
/// the segment that begins there names the beginning.
async fn wait_recorded(core: &Arc<Core>, goal: Goal) -> Result<()> {
    match sync(core, goal.into()).await {
        Err(Error::Truncated { .. }) => Ok(()),
        result => result,
    }
}
