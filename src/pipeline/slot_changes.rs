//! Changes of slots that a caller waits for.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::slots::EMPTY_FRAME_BYTES,
    lsn::Lsn,
    pipeline::{
        core::Core,
        dispatch::sync,
        job::request_relief_after_change,
        notes::{InReserve, publish_in_reserve, publish_slots, settle_notes},
        room::{Patience, acquire, wait_for_place},
        state::{epochs::Goal, slot_state::Order, slots::Progress, space::SLOTS_ROOM_BYTES},
    },
    sabotage::{self, Sabotage},
};

/// Opens a slot, or makes a new one at `position`. Returns its id, and whether it is new. The
/// caller releases the slot, and has a new one made durable by [`make_durable`].
///
/// # Errors
///
/// `SlotInUse`; `TooManySlots`; `BelowFirst`, `AboveEnd` if a new slot would begin outside of the
/// log.
pub(crate) fn open_slot(core: &Core, name: &str, position: Option<Lsn>) -> Result<(u32, bool)> {
    let mut at = position.unwrap_or_else(|| core.beginning().first());
    loop {
        let (id, is_new) = core.slots().open(name, at)?;
        if !is_new {
            return Ok((id, false));
        }
        match core.beginning().hold_slot(id, at, core.records_end()) {
            Ok(()) => {
                core.slots().confirm(id);
                return Ok((id, true));
            }
            // The log was truncated since `first` was read.
            Err(Error::BelowFirst { first, .. }) if position.is_none() && first > at => {
                core.slots().forget(id);
                at = first;
            }
            Err(error) => {
                core.slots().forget(id);
                return Err(error);
            }
        }
    }
}

/// Undoes a new slot if it could not be written, because the log has no space. Returns whether it
/// did.
pub(crate) fn forget_slot(core: &Core, id: u32) -> bool {
    let is_forgotten = core.slots().forget(id);
    if is_forgotten {
        core.beginning().change_holds(|holds| holds.remove_slot(id));
    }
    is_forgotten
}

/// Moves a slot. The next flush makes the move durable.
pub(crate) fn advance_slot(core: &Arc<Core>, id: u32, position: Lsn) -> Result<()> {
    core.slots().advance(id, position, || (core.beginning().first(), core.synced().get()))?;
    if sabotage::is_on(Sabotage::TruncatePastSlot) {
        core.beginning().change_holds(|holds| holds.set_slot(id, position));
    }
    request_relief_after_change(core);
    Ok(())
}

/// Sets the most bytes that a slot holds back. Truncations obey it at once.
pub(crate) fn set_slot_cap(core: &Arc<Core>, id: u32, cap_bytes: Option<u64>) {
    core.slots().set_cap(id, cap_bytes);
    core.beginning().change_holds(|holds| holds.set_cap(id, cap_bytes));
    core.retaining().note_change();
    request_relief_after_change(core);
}

/// Has a slot removed. If `is_passable`, truncations may pass it from now on; else once that is
/// durable.
pub(crate) fn remove_slot(core: &Arc<Core>, id: u32, is_passable: bool) {
    core.slots().remove(id);
    if is_passable {
        core.beginning().change_holds(|holds| holds.remove_slot(id));
        core.retaining().note_change();
    }
    request_relief_after_change(core);
}

/// Waits until the changes of a slot are durable.
pub(crate) async fn make_durable(core: &Arc<Core>, id: u32) -> Result<()> {
    loop {
        core.status().check_new()?;
        let epoch = core.epoch();
        match core.slots().progress(id) {
            Progress::Durable => return Ok(()),
            Progress::Placed(_) if sabotage::is_on(Sabotage::AdvanceBeforeFlush) => return Ok(()),
            Progress::Placed(end) => {
                sync_placed(core, Goal { end, epoch }).await?;
                if core.slots().progress(id) == Progress::Placed(end) {
                    // A truncation of the end has written the change, and is being committed. It
                    // holds all permits until then.
                    drop(acquire(core, EMPTY_FRAME_BYTES).await?);
                }
            }
            Progress::Due => {
                place_due(core, u64::MAX).await?;
            }
        }
    }
}

/// Waits until all changes of slots before the call are durable, as far as a log without space
/// permits.
pub(crate) async fn make_all_durable(core: &Arc<Core>) -> Result<()> {
    while core.slots().is_due() {
        let placed = match place_due(core, u64::MAX).await {
            Err(error) if error.is_no_space() => place_in_reserve(core).await?,
            placed => placed?,
        };
        if placed.is_none() {
            break;
        }
    }
    let epoch = core.epoch();
    // Also what a flush has placed that is not over.
    match core.slots().placed_end() {
        Some(end) => sync_placed(core, Goal { end, epoch }).await,
        None => Ok(()),
    }
}

/// Syncs a record. A truncation of the end that dropped it has made all changes durable.
async fn sync_placed(core: &Arc<Core>, goal: Goal) -> Result<()> {
    match sync(core, goal.into()).await {
        Ok(()) => settle_notes(core),
        Err(Error::Truncated { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Publishes one record with changes that are due. Returns its end; `None` if none is due.
///
/// # Errors
///
/// As [`wait_for_place`].
async fn place_due(core: &Arc<Core>, bytes_max: u64) -> Result<Option<Lsn>> {
    while let Some(bytes) = core.slots().next_frame_bytes(bytes_max) {
        let permit = acquire(core, bytes).await?;
        core.status().check_new()?;
        if core.supply.space.has_room(core.tail()) {
            core.supply.space.note_room();
            return Ok(publish_slots(core, permit, bytes, Order::InTurn));
        }
        // A waiting future holds nothing, because it may never be polled again.
        drop(permit);
        wait_for_place(core, None, Patience::FreesSpace).await?;
    }
    Ok(None)
}

/// Publishes one record in the space that is kept for control records, if that frees a segment.
async fn place_in_reserve(core: &Arc<Core>) -> Result<Option<Lsn>> {
    let permit = acquire(core, SLOTS_ROOM_BYTES).await?;
    core.status().check_new()?;
    match publish_in_reserve(core, permit) {
        InReserve::Placed(end) => Ok(Some(end)),
        InReserve::Useless | InReserve::Used => Ok(None),
    }
}
