//! The durable write: one call that writes a small group and makes it durable.
//!
//! It replaces the write and the flush of a group ([`SyncMethod::Dsync`]). Only the bytes of the
//! call become durable, so the call must contain everything that is unsynced. Under the writer's
//! lock:
//!
//! - No sealed segment is unsynced, and the active segment has been flushed once, with its header.
//! - Everything between the synced mark and the drainer is the mark frame of an idle log. The call
//!   writes that frame again, with the same bytes. It is above the synced mark.
//! - Everything that the sync has to cover is published, and fits.
//! - A frame among it claims the synced mark, so that no mark frame follows.
//!
//! In every other case the group is written and flushed as usual. The same happens after the call
//! if another thread has written behind it, or has truncated the end.
//!
//! The writer's lock is held during the call, because `written` moves when the call has returned,
//! and later bytes must not pass it.

use std::{sync::Arc, time::Instant};

use crate::{
    error::Result,
    format::{
        control::Control,
        frame::{CONTROL_FRAME_BYTES, control_frame},
    },
    lsn::Lsn,
    operation::Operation,
    options::SyncMethod,
    pipeline::{
        core::Core,
        flush,
        state::{
            in_flight::Lane,
            measures::FlushReport,
            ring::Taken,
            writing::{Step, Unsynced, Writing},
        },
        writer::{after_write, wrote_taken},
    },
    sabotage::{self, Sabotage},
    segments::SegmentFile,
    sync::Ordering,
    turn::lock_over_io,
};

/// The size of the largest durable write. The bytes are copied once, which costs less than the call
/// saves only for small groups.
const DURABLE_BYTES_MAX: u64 = 64 << 10;

/// The position up to which a durable write has covered the log.
pub(super) struct Durable {
    end: Lsn,
    epoch: u64,
    file: Arc<SegmentFile>,
}

impl Durable {
    /// Returns whether these are all bytes that a flush has to cover.
    pub(super) fn covers(&self, unsynced: &Unsynced, epoch: u64) -> bool {
        self.end == unsynced.end
            && self.epoch == epoch
            && unsynced.sealed.is_none()
            && Arc::ptr_eq(&self.file, &unsynced.active)
    }
}

/// Returns whether durable writes are on. They are switched off
/// once the storage has refused one.
pub(super) fn is_on(core: &Core) -> bool {
    core.config().sync_method == SyncMethod::Dsync
        && core.roles.durable_writes.load(Ordering::Relaxed)
}

/// Writes everything below `goal` durably, if one call can do that. Otherwise writes nothing and
/// returns `None`.
pub(super) fn write_durably(core: &Arc<Core>, goal: Lsn) -> Result<Option<Durable>> {
    let (durable, step, report) = {
        // A panic under the lock left the writer half way. The job's guard stops the log.
        let Ok(mut writing) = lock_over_io(&core.roles.writing) else { return Ok(None) };
        core.status().check()?;
        let written = step_durably(&mut writing, core, goal).inspect_err(|error| {
            // Under the lock, so that no thread writes behind a failed write.
            core.set_stopped(error.clone().into_poison());
        })?;
        let Some((step, report)) = written else { return Ok(None) };
        let (end, epoch) = (step.end, core.epochs().current());
        (Durable { end, epoch, file: Arc::clone(&writing.active.file) }, step, report)
    };
    after_write(core, step);
    flush::report(core, &report);
    core.note_flush(&report);
    Ok(Some(durable))
}

fn step_durably(
    writing: &mut Writing,
    core: &Core,
    goal: Lsn,
) -> Result<Option<(Step, FlushReport)>> {
    let (at, synced) = (writing.at(), core.synced().get());
    if writing.sealed.is_some() || synced <= writing.active.base() {
        return Ok(None);
    }
    let Some(mut bytes) = unsynced_mark(writing, core, synced) else { return Ok(None) };
    let room_bytes = writing.room_bytes().min(DURABLE_BYTES_MAX);
    let Taken::Units { end, frame_count } = writing.take(DURABLE_BYTES_MAX, room_bytes) else {
        return Ok(None);
    };
    if end < goal || writing.claimed.max(writing.drainer.last_claim()) < synced {
        return Ok(None);
    }
    let offset = writing.active.offset(at) - bytes.len() as u64;
    writing.drainer.read_taken(|_, piece| -> Result<()> {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    let Some(report) = flush_bytes(core, &writing.active.file, &bytes, offset)? else {
        core.roles.durable_writes.store(false, Ordering::Relaxed);
        return Ok(None);
    };
    Ok(Some((wrote_taken(writing, core, end, frame_count, None), report)))
}

/// Returns the unsynced bytes before the drainer if they are one mark frame or none. Else `None`.
/// A flush covers all other frames.
fn unsynced_mark(writing: &Writing, core: &Core, synced: Lsn) -> Option<Vec<u8>> {
    if writing.at() == synced || sabotage::is_on(Sabotage::ForgetEarlierWrites) {
        return Some(Vec::new());
    }
    if writing.at() != synced.plus(CONTROL_FRAME_BYTES) {
        return None;
    }
    let mark = control_frame(core.epochs().seed(), synced, Control::Mark, synced);
    // The file is read, because a record may have the same length.
    let mut written = vec![0; mark.len()];
    let count = writing.active.file.read_at(&mut written, writing.active.offset(synced)).ok()?;
    (count == mark.len() && written == mark).then_some(mark)
}

/// Returns `None` if the storage has no durable write.
fn flush_bytes(
    core: &Core,
    file: &SegmentFile,
    bytes: &[u8],
    offset: u64,
) -> Result<Option<FlushReport>> {
    let underway = core.begin(Lane::Write, Operation::Flush, file.sequence());
    let began = Instant::now();
    let is_written = file.write_at_durably(bytes, offset)?;
    drop(underway);
    core.measures().counters.called_write();
    Ok(is_written.then(|| flush::measured(core, file, began, began.elapsed())))
}
