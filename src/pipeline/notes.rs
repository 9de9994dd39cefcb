//! Notes: control records of the log itself that ride the group commit.
//!
//! Before a flush the syncer places the notes that are due. Usually they go through the ring, with
//! permits that are free. If no permit is free, and every reserved frame is written, the syncer
//! writes them directly behind the written frames, as it does with a mark. So tasks that hold
//! permits and are not polled never keep a note from the disk.

use std::sync::Arc;

use crate::{
    error::Result,
    format::{
        control::Control,
        frame::{FIRST_FRAME_BYTES, control_frame_of},
        slots::EMPTY_FRAME_BYTES,
    },
    lsn::Lsn,
    pipeline::{
        core::Core,
        job::{PanicGuard, request_relief_after_change, request_removal, request_spare},
        prepare::prepare_spare,
        reservation::Reservation,
        retention::apply_due,
        room::give_back,
        state::{
            permits::Permit,
            ring::DIRECT_BYTES_MAX,
            slot_state::Order,
            slots::ListedSlot,
            space::{CONTROL_ROOM_BYTES, SLOTS_ROOM_BYTES},
            writing::{Step, Writing},
        },
        writer::write_direct,
    },
    sync::Ordering,
};

/// The most records that a flush places in the ring.
const RECORDS_PER_FLUSH: u32 = 64;

/// Places the notes that are due, with permits that are free now.
pub(super) fn place_notes(core: &Arc<Core>) {
    apply_due(core);
    place_time_mark(core);
    for _ in 0..RECORDS_PER_FLUSH {
        let Some(bytes) = core.slots().next_frame_bytes(u64::MAX) else { return };
        if !may_place(core) {
            return;
        }
        let Ok(permit) = core.intake.permits.try_acquire(bytes) else { return };
        if !core.supply.space.has_room(core.tail()) {
            drop(permit);
            request_spare(core, 0);
            return;
        }
        publish_slots(core, permit, bytes, Order::InTurn);
    }
}

/// Places a time mark if one is due, and if there is room for it now.
fn place_time_mark(core: &Arc<Core>) {
    let times = core.times();
    if !times.is_on() || !may_place(core) {
        return;
    }
    let now_ms = times.now(core.storage().unix_ms());
    if !times.is_due(now_ms) {
        return;
    }
    let Ok(permit) = core.intake.permits.try_acquire(FIRST_FRAME_BYTES) else { return };
    if !core.supply.space.has_room(core.tail()) {
        drop(permit);
        request_spare(core, 0);
        return;
    }
    permit.forget();
    publish_time(core, now_ms);
}

/// Publishes a time mark. The caller has forgotten its permits.
fn publish_time(core: &Core, unix_ms: u64) {
    // As in `publish_reserved`.
    let guard = PanicGuard { core };
    let reserved = core.times().place(unix_ms, || {
        let reserved = core.intake.ring.reserve(FIRST_FRAME_BYTES);
        let lsn = reserved.lsn();
        (reserved, lsn)
    });
    std::mem::forget(guard);
    Reservation::of(core, reserved).publish_control(Control::Time(unix_ms));
}

/// Publishes a time mark for the close of a log that has any, so that opening finds the newest.
/// Returns whether it did. The calling job holds all permits.
pub(super) fn publish_last_time(core: &Core) -> bool {
    let has_mark = core.times().has_mark();
    if has_mark {
        publish_time(core, core.times().now(core.storage().unix_ms()));
    }
    has_mark
}

/// Returns whether the log takes notes. The close writes its own.
fn may_place(core: &Core) -> bool {
    !core.roles.is_closing_sync.load(Ordering::Acquire) && core.status().check_new().is_ok()
}

/// Publishes a slots record in at most `bytes` of the ring, which `permit` holds. Returns the
/// record's end; `None` if no change is due any more.
pub(super) fn publish_slots(
    core: &Arc<Core>,
    permit: Permit<'_>,
    bytes: u64,
    order: Order,
) -> Option<Lsn> {
    permit.forget();
    let Some((lsn, end)) = publish_reserved(core, bytes, order) else {
        give_back(core, bytes);
        return None;
    };
    let surplus = bytes.saturating_sub(end.since(lsn));
    if surplus > 0 {
        give_back(core, surplus);
    }
    Some(end)
}

/// As [`publish_slots`], for a caller that has forgotten its permits. Returns the beginning and the
/// end of the record.
fn publish_reserved(core: &Core, bytes: u64, order: Order) -> Option<(Lsn, Lsn)> {
    // The guard is outside of the closure, because the log must not be stopped under the lock of
    // the slots.
    let guard = PanicGuard { core };
    let placed = core.slots().place(bytes, order, |frame_bytes| {
        let reserved = core.intake.ring.reserve(frame_bytes);
        let lsn = reserved.lsn();
        Some((reserved, lsn))
    });
    std::mem::forget(guard);
    let record = placed?;
    let reservation = Reservation::of(core, record.reserved);
    let span = (reservation.lsn(), reservation.end());
    reservation.publish_control_payload(&record.payload);
    Some(span)
}

/// The use of the space that is kept for one slots record.
pub(super) enum InReserve {
    /// A record is published. A flush up to this position makes it durable.
    Placed(Lsn),
    /// No record would free a segment.
    Useless,
    /// The space is used.
    Used,
}

/// Publishes one record with slots in the space that is kept for control records, if that lets a
/// truncation free a segment. That space is used once, until the log has space again, or continues
/// in another segment. The record may not have room for all slots, so it takes those first that
/// hold back the most of the log. `permit` is for `SLOTS_ROOM_BYTES`.
pub(super) fn publish_in_reserve(core: &Arc<Core>, permit: Permit<'_>) -> InReserve {
    if !frees_segment(core) {
        return InReserve::Useless;
    }
    if !core.supply.space.claim_slots_room() {
        return InReserve::Used;
    }
    let end = publish_slots(core, permit, SLOTS_ROOM_BYTES, Order::LowestFirst);
    core.supply.space.use_slots_room(end);
    end.map_or(InReserve::Useless, InReserve::Placed)
}

/// Returns whether moves of slots that are not durable keep the oldest segment.
fn frees_segment(core: &Core) -> bool {
    let (first, synced) = (core.beginning().first(), core.synced().get());
    let bases: Vec<Lsn> = core.segments().list().iter().map(|segment| segment.base).collect();
    let Some(next) = bases.into_iter().find(|base| *base > first) else { return false };
    let gives_way = |slot: &ListedSlot| {
        slot.cap_bytes.is_some_and(|cap| synced.since(slot.position.min(synced)) > cap)
    };
    let slots = core.slots().list();
    let held = slots.iter().filter(|slot| slot.position >= first && !gives_way(slot));
    let held = held.map(|slot| slot.position).chain(core.beginning().oldest_lease().map(|it| it.0));
    core.beginning().lowest_hold(synced).is_some_and(|durable| durable < next)
        && held.min().is_none_or(|moved| moved >= next)
}

/// Publishes all slots for the close of the log. If the log has no space for them, publishes a
/// record that leads to the newest ones. Returns whether it published any record. The calling job
/// holds all permits.
pub(super) fn publish_all_slots(core: &Core) -> bool {
    let Some(round_bytes) = core.slots().begin_round() else { return false };
    let has_room = || core.supply.space.has_room_for(core.tail(), round_bytes);
    // The next segment may not be prepared yet.
    let unit_bytes = round_bytes.saturating_add(CONTROL_ROOM_BYTES);
    if has_room() || (prepare_spare(core, unit_bytes).is_ok() && has_room()) {
        let mut left_bytes = round_bytes;
        while let Some((lsn, end)) = publish_reserved(core, left_bytes, Order::InTurn) {
            left_bytes -= end.since(lsn);
        }
        return true;
    }
    let log = core.storage().location();
    tracing::warn!(log, "the log has no space for its slots; their last moves are not durable");
    let Some(payload) = core.slots().pointer() else { return false };
    Reservation::next(core, EMPTY_FRAME_BYTES).publish_control_payload(&payload);
    true
}

/// Writes a note at the drainer's position, if one is due and nothing is reserved behind the
/// written frames. The caller holds the writer's lock.
pub(super) fn write_notes(core: &Core, writing: &mut Writing) -> Result<Option<Step>> {
    let end = writing.at();
    let is_placeable = core.slots().is_due()
        && may_place(core)
        && core.tail() == end
        // Within the limit of the space for everything that permits may still add.
        && core.supply.space.has_room(end.plus(DIRECT_BYTES_MAX));
    if !is_placeable {
        return Ok(None);
    }
    let reserve = |bytes| core.intake.ring.reserve_direct(end, bytes).then_some((bytes, end));
    let Some(record) = core.slots().place(DIRECT_BYTES_MAX, Order::InTurn, reserve) else {
        return Ok(None);
    };
    let (seed, synced) = (core.epochs().seed(), core.synced().get());
    let frame = |at| control_frame_of(seed, at, &record.payload, synced);
    write_direct(writing, core, record.reserved, synced, frame).map(Some)
}

/// Applies the notes that a flush made durable.
pub(super) fn settle_notes(core: &Arc<Core>) {
    if core.slots().is_awaited(core.synced().get()) {
        let settled = core.slots().settle(|| core.synced().get());
        let has_floor = settled.floor.is_some();
        core.beginning().settle_slots(settled);
        core.retaining().note_change();
        request_relief_after_change(core);
        if has_floor {
            request_removal(core);
        }
    }
}
