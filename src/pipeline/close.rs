//! Closing: write and sync everything, append the close record, free the lock.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    error::{ClosedBy, Error, Result},
    format::{
        control::Control,
        frame::{CONTROL_FRAME_BYTES, FIRST_FRAME_BYTES},
        last_close::LastClose,
    },
    lsn::Lsn,
    operation::Operation,
    pipeline::{
        core::Core,
        job::{Job, request_write},
        notes::{publish_all_slots, publish_last_time},
        place::check_place,
        prepare::remove_spare,
        recycle::close_recycled,
        reservation::Reservation,
        state::in_flight::Lane,
        syncer::sync_once,
        writer::{Drained, write_once},
    },
    sabotage::{self, Sabotage},
    segments::write_last_close,
    sync::Ordering,
    turn::lock_over_io,
};

/// Closes the log.
pub(crate) async fn close(core: &Arc<Core>) -> Result<()> {
    core.status().begin_closing();
    // Frames that were left to be written later hold permits, as do those of yielding appends.
    let _urgent = core.roles.in_place.urgent();
    if core.intake.ring.drained() < core.tail() {
        request_write(core);
    }
    // Room in the ring is given in the order of requests, except to futures that are not polled. So
    // earlier appends that are polled get their turn before this call.
    let all = match core.intake.permits.acquire(core.ring_bytes()).await {
        Ok(all) => all,
        Err(_) => return closed_before(core).await,
    };
    if core.status().check().is_err() {
        return closed_before(core).await;
    }
    // From here on a job finishes the close, even if this future is dropped.
    all.forget();
    let (sender, receiver) = oneshot::channel();
    let job = Job::new(core, move |core| {
        let closed = finish(core);
        core.life.lock.release_from_last_job();
        // The receiver is gone if its future was dropped.
        let _ = sender.send(closed);
    });
    job.spawn();
    match receiver.await {
        Ok(closed) => closed,
        Err(_) => closed_before(core).await,
    }
}

/// Returns the result for a log that had stopped before. `Ok` if it was closed, otherwise the
/// reason why it stopped.
async fn closed_before(core: &Core) -> Result<()> {
    core.life.lock.release().await;
    if core.status().was_closed() { Ok(()) } else { core.status().check() }
}

fn finish(core: &Arc<Core>) -> Result<()> {
    let closed = sync_and_record(core);
    match &closed {
        Ok(()) => core.stop(Error::Closed { by: ClosedBy::Close }),
        Err(closed @ Error::Closed { .. }) => core.stop(closed.clone()),
        Err(error) => core.stop(error.clone().into_poison()),
    }
    core.segments().close_files();
    remove_spare(core);
    close_recycled(core);
    // If the log had stopped before, the caller gets that reason.
    closed.or_else(|_| core.status().check())
}

fn sync_and_record(core: &Arc<Core>) -> Result<()> {
    // No append may get the permits that the log's own frames give back. An append that began
    // before the close may still wait. Its frame would come between these frames or after the
    // close.
    core.intake.permits.close();
    core.roles.is_closing_sync.store(true, Ordering::Release);
    sync(core)?;
    // A log in a directory that was moved or replaced is not closed.
    check_place(core)?;
    let end = core.tail();
    if core.progress.is_clean_end(end) && !core.slots().is_due() {
        note_last_close(core, Lsn::new(end.as_u64().saturating_sub(CONTROL_FRAME_BYTES)));
        return Ok(());
    }
    // Right before the close, so that opening finds them without reading the log.
    let has_slots = publish_all_slots(core);
    if publish_last_time(core) || has_slots {
        sync(core)?;
    }
    // The record follows a flush, so that no mark of the syncer comes between the record and the
    // close. It needs another flush, because a close claims everything before it.
    if record_first(core) {
        sync(core)?;
    }
    // This job holds all permits, so the close is the last frame, and it claims everything before
    // it.
    let end = core.tail();
    let reservation = Reservation::next(core, CONTROL_FRAME_BYTES);
    core.progress.close_frame.store(Some(reservation.lsn()), Ordering::Release);
    reservation.publish_control(Control::Close);
    while core.intake.ring.drained() < core.tail() {
        if write_once(core) != Drained::Wrote {
            core.status().check()?;
        }
    }
    sync(core)?;
    check_place(core)?;
    note_last_close(core, end);
    Ok(())
}

fn sync(core: &Arc<Core>) -> Result<()> {
    sync_once(core)?;
    core.status().check()
}

/// Records the beginning of the log if no header names it. Returns whether it did. The opening of a
/// closed log does not read what comes before this record and the close. The calling job holds all
/// permits.
fn record_first(core: &Core) -> bool {
    let is_appended = !core.progress.is_clean_end(core.tail());
    let is_due =
        is_appended && core.beginning().first_is_unrecorded() && core.status().check().is_ok();
    if is_due {
        let first = core.beginning().first();
        Reservation::next(core, FIRST_FRAME_BYTES).publish_control(Control::First(first));
    }
    is_due
}

/// Notes the end of the log in a file beside the segments. With the note, recovery detects the loss
/// of the newest segment. Not vital: without the note, such a loss looks like a segment that was
/// never begun.
fn note_last_close(core: &Core, end: Lsn) {
    if sabotage::is_on(Sabotage::ForgetClosedNote) {
        return;
    }
    let Ok(writing) = lock_over_io(&core.roles.writing) else { return };
    let sequence = writing.active_sequence();
    drop(writing);
    let underway = core.begin(Lane::Close, Operation::Close, sequence);
    let (log_id, epoch) = (core.log_id(), core.epochs().current());
    let note = LastClose { log_id, epoch, sequence: sequence.0, end };
    let noted = write_last_close(core.storage().as_ref(), &note);
    drop(underway);
    if let Err(error) = noted {
        let log = core.storage().location();
        tracing::warn!(log, %error, "the log is closed, but the note of its end can't be written");
    }
}
