//! The log truncates its beginning by itself: by the option `retention`, and by `DropOldest`.
//!
//! A decision never waits. It takes a free permit and publishes the record of the beginning, which
//! rides a flush. The permit is taken after the epoch was read and before the epoch is checked, so
//! no truncation of the end comes between the decision and the record.

use std::sync::Arc;

use crate::{
    error::Error,
    format::frame::FIRST_FRAME_BYTES,
    lsn::Lsn,
    pipeline::{
        budget::{is_leased_below, judge_next},
        core::Core,
        first::publish_first,
        state::{
            beginning::Passing,
            epochs::Goal,
            retaining::{Verdict, base_of},
        },
    },
    sabotage::{self, Sabotage},
    sync::Ordering,
};

/// The result of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decided {
    /// There is nothing to drop.
    Nothing,
    /// A truncation was published. A flush up to this goal makes it durable.
    Published(Goal),
    /// There is more to drop once this position is synced.
    Unsynced(Lsn),
    /// No permit is free, or the end was truncated meanwhile.
    Later,
    /// The log is full, and the space for one truncation is used.
    NoSpace,
}

/// Returns the position to which the option `retention` lets the log be truncated now: the base of
/// a segment above `first`, not above the synced mark, a slot or a lease. Also returns whether only
/// the synced mark keeps more.
fn retained(core: &Core) -> (Option<Lsn>, bool) {
    let segments = core.segments().list();
    let (synced, first) = (core.synced().get(), core.beginning().first());
    let now_ms = core.times().now(core.storage().unix_ms());
    let hold = match sabotage::is_on(Sabotage::RetainPastSlot) {
        true => None,
        false => core.beginning().lowest_hold(synced),
    };
    let base = |end: Lsn| {
        let kept = core.retaining().kept_from(&segments, end, now_ms)?.min(end);
        base_of(&segments, hold.map_or(kept, |hold| hold.min(kept))).filter(|base| *base > first)
    };
    let (now, wanted) = (base(synced), base(core.written().get()));
    (now, wanted > now)
}

/// Returns the position to which the option `retention` lets the log be truncated now.
pub(crate) fn retained_from(core: &Core) -> Option<Lsn> {
    retained(core).0
}

/// Applies the option `retention`, if a decision is due. A flush calls this before it drains the
/// ring.
pub(super) fn apply_due(core: &Arc<Core>) {
    if core.retaining().take_due(|| core.times().now(core.storage().unix_ms())) {
        apply(core);
    }
}

/// Applies the option `retention`.
pub(super) fn apply(core: &Arc<Core>) -> Decided {
    let epoch = core.epoch();
    let (to, is_limited) = retained(core);
    if is_limited {
        core.retaining().note_change();
    }
    let Some(to) = to else {
        return if is_limited { Decided::Unsynced(core.written().get()) } else { Decided::Nothing };
    };
    let passing = match sabotage::is_on(Sabotage::RetainPastSlot) {
        true => Passing::Slots,
        false => Passing::NoSlot,
    };
    let decided = truncate_now(core, Goal { end: to, epoch }, passing);
    match decided {
        Decided::Published(_) => {
            let log = core.storage().location();
            tracing::debug!(log, first = %to, "the retention drops the oldest segments");
        }
        _ => core.retaining().note_change(),
    }
    decided
}

/// Drops the oldest segments, if the next segment waits for that.
pub(super) fn drop_oldest(core: &Arc<Core>) -> Decided {
    let Some(unit_bytes) = core.retaining().dropping_for() else { return Decided::Nothing };
    let epoch = core.epoch();
    let to = match judge_next(core, unit_bytes) {
        Some(Verdict::FitsFrom(to)) if !is_leased_below(core, to) => to,
        Some(Verdict::Fits) => return Decided::Nothing,
        // It is prepared, or will not fit until a lease has moved on: appends look again, and are
        // refused.
        None | Some(Verdict::FitsFrom(_) | Verdict::TooLarge) => {
            core.retaining().end_dropping();
            core.supply.space.wake_all();
            return Decided::Nothing;
        }
    };
    if to <= core.beginning().first() {
        // The removal makes the room, once the truncation is durable.
        let end = core.beginning().last_ordered_end().unwrap_or(Lsn::ZERO);
        return Decided::Unsynced(end);
    }
    if to > core.synced().get() {
        return Decided::Unsynced(to);
    }
    let lost = core
        .slots()
        .list()
        .into_iter()
        .filter(|slot| slot.position >= core.beginning().first() && slot.position < to);
    let lost: Vec<_> = lost.map(|slot| slot.name).collect();
    let decided = truncate_now(core, Goal { end: to, epoch }, Passing::Slots);
    if let Decided::Published(_) = decided {
        let log = core.storage().location();
        tracing::info!(log, first = %to, "the budget is used up: the oldest segments are dropped");
        for slot in lost {
            let slot = slot.as_ref();
            tracing::warn!(log, slot, first = %to, "the budget is used up: a slot is lost");
        }
    }
    decided
}

/// Truncates the beginning at the goal's end, which was the base of a segment in its epoch. Does
/// not wait.
fn truncate_now(core: &Arc<Core>, goal: Goal, passing: Passing) -> Decided {
    let is_closing = core.roles.is_closing_sync.load(Ordering::Acquire);
    if is_closing || core.status().check_new().is_err() {
        return Decided::Nothing;
    }
    let Ok(permit) = core.intake.permits.try_acquire(FIRST_FRAME_BYTES) else {
        return Decided::Later;
    };
    // While this thread holds a permit the end is not truncated.
    if core.epochs().check(goal).is_err() {
        return Decided::Later;
    }
    let has_room = core.supply.space.has_room(core.tail());
    let full = || core.supply.space.last_failure().unwrap_or(Error::Full);
    match publish_first(core, permit, (goal.end, passing), (!has_room).then(full)) {
        Ok(Some(goal)) => Decided::Published(goal),
        // A slot was made meanwhile.
        Ok(None) => Decided::Nothing,
        Err(_) => Decided::NoSpace,
    }
}
