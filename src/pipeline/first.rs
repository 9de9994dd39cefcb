//! The record of the log's beginning: moves the first position without a wait.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{control::Control, frame::FIRST_FRAME_BYTES},
    lsn::Lsn,
    pipeline::{
        core::Core,
        job::PanicGuard,
        removal::apply_truncations,
        reservation::Reservation,
        state::{
            beginning::{Moved, Passing},
            epochs::Goal,
            permits::Permit,
        },
    },
    sabotage::{self, Sabotage},
};

/// Reserves and publishes the record of the beginning. Never waits. `lsn` is the beginning of a
/// unit, or the end of the log, and not above the synced mark. A log that is `full` can be
/// truncated once, in the space kept for control records. Returns `None` if a slot is in the way.
pub(super) fn publish_first(
    core: &Arc<Core>,
    permit: Permit<'_>,
    (lsn, passing): (Lsn, Passing),
    full: Option<Error>,
) -> Result<Option<Goal>> {
    debug_assert!(lsn <= core.synced().get(), "a log never begins above its durable end");
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
    let moved = core.beginning().move_first((lsn, passing), full, core.synced().get(), reserve);
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
