//! The log truncates its beginning by itself: by the option `retention`, and by `DropOldest`.
//!
//! A decision never waits. It takes a free permit and publishes the record of the beginning, which
//! rides a flush. Without a permit the decision stays due, and the next flush decides again.

use std::sync::Arc;

use crate::{
    error::Error,
    format::frame::FIRST_FRAME_BYTES,
    lsn::Lsn,
    pipeline::{
        budget::{is_leased_below, judge_next},
        core::Core,
        first::publish_first,
        job::{demand_sync, request_removal, request_spare},
        state::{
            beginning::Passing,
            epochs::Goal,
            retaining::{Verdict, base_of},
        },
    },
    sabotage::{self, Sabotage},
    sync::Ordering,
};

/// Returns the position to which the option `retention` lets the log be truncated now: the base of
/// a segment above `first`, not above the synced mark, a slot or a lease.
pub(crate) fn retained_from(core: &Core) -> Option<Lsn> {
    let segments = core.segments().list();
    let synced = core.synced().get();
    let now_ms = core.times().now(core.storage().unix_ms());
    let kept = core.retaining().kept_from(&segments, synced, now_ms)?;
    let mut to = kept.min(synced);
    if !sabotage::is_on(Sabotage::RetainPastSlot) {
        to = core.beginning().lowest_hold(synced).map_or(to, |hold| hold.min(to));
    }
    base_of(&segments, to).filter(|base| *base > core.beginning().first())
}

/// Applies the option `retention`, if a decision is due. A flush calls this before it drains the
/// ring.
pub(super) fn apply_due(core: &Arc<Core>) {
    if !core.retaining().take_due(|| core.times().now(core.storage().unix_ms())) {
        return;
    }
    let Some(to) = retained_from(core) else { return };
    let passing = match sabotage::is_on(Sabotage::RetainPastSlot) {
        true => Passing::Slots,
        false => Passing::NoSlot,
    };
    match truncate_now(core, to, passing) {
        Some(_) => {
            let log = core.storage().location();
            tracing::debug!(log, first = %to, "the retention drops the oldest segments");
        }
        None => core.retaining().note_change(),
    }
}

/// Drops the oldest segments, if the next segment waits for that.
pub(super) fn drop_oldest(core: &Arc<Core>) {
    let Some(unit_bytes) = core.retaining().dropping_for() else { return };
    let to = match judge_next(core, unit_bytes) {
        Some(Verdict::FitsFrom(to)) if !is_leased_below(core, to) => to,
        Some(Verdict::Fits) => {
            request_spare(core, unit_bytes);
            return;
        }
        // It is prepared, or will not fit until a lease has moved on: appends are refused.
        None | Some(Verdict::FitsFrom(_) | Verdict::TooLarge) => {
            core.retaining().end_dropping();
            core.supply.space.wake_all();
            return;
        }
    };
    if to <= core.beginning().first() {
        // The removal makes the room, once the truncation is durable.
        request_removal(core);
        return demand_sync(core, core.beginning().last_ordered_end().unwrap_or(to));
    }
    if to > core.synced().get() {
        // The flush calls this again.
        return demand_sync(core, to);
    }
    let lost = core.slots().list().into_iter().filter(|slot| {
        let position = slot.durable.unwrap_or(slot.position);
        position >= core.beginning().first() && position < to
    });
    let lost: Vec<_> = lost.map(|slot| slot.name).collect();
    let Some(goal) = truncate_now(core, to, Passing::Slots) else {
        // The flush frees permits, and calls this again.
        return demand_sync(core, core.tail());
    };
    let log = core.storage().location();
    tracing::info!(log, first = %to, "the budget is used up: the oldest segments are dropped");
    for slot in lost {
        let slot = slot.as_ref();
        tracing::warn!(log, slot, first = %to, "the budget is used up: a slot is lost");
    }
    demand_sync(core, goal.end);
}

/// Truncates the beginning at `to` without a wait. Returns `None` if there is no room for the
/// record now, or if a slot is in the way.
fn truncate_now(core: &Arc<Core>, to: Lsn, passing: Passing) -> Option<Goal> {
    let is_closing = core.roles.is_closing_sync.load(Ordering::Acquire);
    if is_closing || core.status().check_new().is_err() {
        return None;
    }
    let permit = core.intake.permits.try_acquire(FIRST_FRAME_BYTES).ok()?;
    let has_room = core.supply.space.has_room(core.tail());
    let full = || core.supply.space.last_failure().unwrap_or(Error::Full);
    publish_first(core, permit, (to, passing), (!has_room).then(full)).ok().flatten()
}
