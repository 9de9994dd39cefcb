//! The mark: a frame that claims the last flushed group, if no later frame does.

use std::sync::Arc;

use crate::{
    format::{control::Control, frame::CONTROL_FRAME_BYTES},
    pipeline::{
        core::Core,
        job::{request_spare, request_write},
        reservation::Reservation,
        writer::{Drained, write_once},
    },
    sabotage::{self, Sabotage},
    sync::Ordering,
};

/// Writes a mark if everything is synced and no frame follows.
///
/// Without a later frame that claims a group, damage to that group would look like a torn tail. The
/// mark itself is not synced. The write may take records behind the mark. A sync of these records
/// may find no room for its own mark, because their room is not given back yet. So this looks again
/// after each write.
pub(crate) fn leave_mark(core: &Arc<Core>) {
    while publish_mark(core) {
        // One small write here is cheaper than a job. If another thread writes the mark, that
        // thread looks again.
        if write_once(core) != Drained::Wrote {
            return;
        }
        if core.has_published() {
            request_write(core);
        }
    }
}

/// As [`leave_mark`], when the log rests. While flushes follow each other, each group claims the
/// one before it.
pub(super) fn leave_mark_when_idle(core: &Arc<Core>) {
    let is_forgotten = sabotage::is_on(Sabotage::ForgetOwedMark);
    if !is_forgotten && !core.vitals().owe_mark(core.executor().as_ref()) {
        leave_mark(core);
    }
}

/// Writes the mark that is owed, if one is.
pub(super) fn leave_owed_mark(core: &Arc<Core>) {
    if core.vitals().owed_mark().take() && !sabotage::is_on(Sabotage::ForgetOwedMark) {
        leave_mark(core);
        // A frame behind the group claims it as well as a mark. Its task may never be polled again.
        if core.has_published() {
            write_once(core);
        }
    }
}

/// Publishes a mark if everything is synced and no frame follows. Returns whether it did.
fn publish_mark(core: &Arc<Core>) -> bool {
    let synced = core.synced().get();
    if core.tail() != synced || core.progress.ends_with_mark(synced) {
        return false;
    }
    if core.status().check_new().is_err() {
        return false;
    }
    if !core.supply.space.has_room(synced) {
        // The prepare job calls `leave_mark` again.
        request_spare(core, 0);
        return false;
    }
    let Ok(permit) = core.intake.permits.try_acquire(CONTROL_FRAME_BYTES) else { return false };
    let Some(reservation) = Reservation::at(core, synced, CONTROL_FRAME_BYTES) else {
        return false;
    };
    permit.forget();
    // Stored before a reader can see the frame, so that the reader knows that no record is there.
    core.progress.trailing_mark.store(Some(synced), Ordering::Release);
    reservation.publish_control(Control::Mark);
    true
}
