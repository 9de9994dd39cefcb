//! Truncation of the start: the log begins at a later position.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::frame::FIRST_FRAME_BYTES,
    lsn::Lsn,
    pipeline::{
        core::Core,
        dispatch::sync,
        first::publish_first,
        room::{Patience, acquire, wait_for_place},
        state::{beginning::Passing, epochs::Goal},
    },
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
            let published =
                publish_first(core, permit, (lsn, Passing::NoSlot), full.filter(|_| !has_room))?;
            let Some(goal) = published else { return Ok(false) };
            return wait_recorded(core, goal).await.map(|()| true);
        }
        // A waiting future holds nothing, because it may never be polled again.
        drop(permit);
        full = wait_for_place(core, None, Patience::FreesSpace).await.err();
        // A log that can't get its next segment can still be truncated; a stopped one can't.
        core.status().check()?;
    }
    // Another call has moved the beginning. The record of that call may not be durable yet.
    let goal = core.goal(|| core.beginning().last_ordered_end().unwrap_or(Lsn::ZERO));
    wait_recorded(core, goal).await.map(|()| true)
}

/// Waits until a record of the beginning is durable. If that record was truncated, the header of
/// the segment that begins there names the beginning.
async fn wait_recorded(core: &Arc<Core>, goal: Goal) -> Result<()> {
    match sync(core, goal.into()).await {
        Err(Error::Truncated { .. }) => Ok(()),
        result => result,
    }
}
