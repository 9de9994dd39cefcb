//! The writer: moves the published prefix of the ring to the active segment, and rotates.
//!
//! A thread that finds published frames takes the writer's lock and writes them. It is a write job,
//! a sync job before its flush, or an append in place. Only running code holds the lock, so no
//! thread waits for a queued job.

use std::sync::Arc;

use crate::{
    error::Result,
    lsn::Lsn,
    operation::Operation,
    pipeline::{
        core::Core,
        flush,
        job::{request_spare, request_sync},
        room,
        rotate::rotate,
        state::{
            in_flight::Lane,
            metrics::PayloadBytes,
            ring::Taken,
            unit::Oversized,
            writing::{Rotated, Step, Writing},
        },
    },
    segments::SegmentFile,
    sync::Ordering,
    turn::lock_over_io,
};

/// The approximate size of one write call. A larger call is hardly cheaper, and delays its waiters.
const WRITE_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    Wrote,
    Idle,
    Stopped,
}

/// Writes up to about [`WRITE_BYTES`] of published frames. Any failure stops the log.
pub(super) fn write_once(core: &Arc<Core>) -> Drained {
    let step = {
        // A panic under the lock left the writer half way. The job's guard stops the log.
        let Ok(mut writing) = lock_over_io(&core.roles.writing) else {
            return Drained::Stopped;
        };
        if core.status().check().is_err() {
            return Drained::Stopped;
        }
        step(&mut writing, core).inspect_err(|error| {
            // Under the lock, so that no thread writes behind a failed write.
            core.set_stopped(error.clone().into_poison());
        })
    };
    match step {
        Ok(None) => Drained::Idle,
        Ok(Some(step)) => {
            after_write(core, step);
            Drained::Wrote
        }
        Err(error) => {
            // Reports the error and wakes every waiter, now that the lock is free.
            core.stop(error.into_poison());
            Drained::Stopped
        }
    }
}

/// Does everything that follows from a write. The writer's lock is free. The order of the steps:
///
/// 1. The written mark moves and its waiters wake, because nothing below may delay them.
/// 2. After a rotation, demand for a sync of the sealed segment is stored before room is given
///    back. A truncation of the end needs all room, so it comes later and takes that demand back.
/// 3. Room goes back to the ring. From here on the steps may run beside later writes.
/// 4. The marks are published, then standing orders add their demand.
/// 5. A sync is requested after all demand is stored and the bytes are written. A sync job may have
///    ended because a frame was not published; this request is the one that it relies on.
/// 6. The next segment's file is requested, and after a rotation the metrics are published.
///
/// `tests/scheduled` searches the interleavings of these steps with every other operation.
pub(super) fn after_write(core: &Arc<Core>, step: Step) {
    core.written().advance(step.end);
    if let Some(rotated) = &step.rotated {
        report_rotation(core, rotated);
        core.supply.space.wake_all();
        core.progress.demand_sync(step.end);
    }
    room::give_back(core, step.room_bytes);
    core.publish_marks();
    let record_count = || core.measures().counters.written_record_count();
    if core.progress.orders.is_due(record_count) {
        core.progress.demand_sync(step.end);
    }
    request_sync(core);
    if core.supply.space.is_spare_due(step.end) {
        request_spare(core, 0);
    }
    if step.rotated.is_some() {
        core.publish_metrics();
    }
}

fn report_rotation(core: &Core, Rotated { sealed, segment, base, flush }: &Rotated) {
    let log = core.storage().location();
    tracing::debug!(log, segment, %base, sealed, "rotated");
    flush.iter().for_each(|report| flush::report(core, report));
}

/// Writes up to about [`WRITE_BYTES`]. Returns `None` if nothing is published.
fn step(writing: &mut Writing, core: &Core) -> Result<Option<Step>> {
    let mut rotated = None;
    loop {
        let room_bytes = writing.room_bytes();
        match writing.take(WRITE_BYTES, room_bytes) {
            Taken::Units { end, frame_count } => {
                write_taken(writing, core, |file, piece, offset| {
                    file.write_at(piece, offset).map(|()| true)
                })?;
                return Ok(Some(wrote_taken(writing, core, end, frame_count, rotated)));
            }
            Taken::DoesNotFit { unit_bytes } => {
                rotated = Some(rotate(writing, core, unit_bytes)?);
            }
            Taken::Nothing => {
                let Some(unit) = core.intake.oversized.take(writing.at()) else {
                    return Ok(None);
                };
                if unit.bytes > room_bytes {
                    rotated = Some(rotate(writing, core, unit.bytes)?);
                }
                return write_oversized(writing, core, unit, rotated).map(Some);
            }
        }
    }
}

/// Writes the taken units, in one or two pieces. Returns whether all of them were written: `write`
/// returns that for each piece.
pub(super) fn write_taken(
    writing: &Writing,
    core: &Core,
    write: impl Fn(&SegmentFile, &[u8], u64) -> Result<bool>,
) -> Result<bool> {
    let active = &writing.active;
    let underway = core.begin(Lane::Write, Operation::Write, active.file.sequence());
    let mut is_whole = true;
    writing.drainer.read_taken(|lsn, piece| {
        if is_whole {
            core.measures().counters.called_write();
            is_whole = write(&active.file, piece, active.offset(lsn))?;
        }
        Ok(())
    })?;
    drop(underway);
    Ok(is_whole)
}

/// Notes that the taken units are written, and frees their bytes of the ring.
pub(super) fn wrote_taken(
    writing: &mut Writing,
    core: &Core,
    end: Lsn,
    frame_count: u64,
    rotated: Option<Rotated>,
) -> Step {
    let bytes = end.since(writing.at());
    core.measures().counters.wrote(frame_count, bytes, writing.drainer.taken_payload());
    writing.claimed = writing.claimed.max(writing.drainer.last_claim());
    // Before the permits go back, because appends then reuse these bytes.
    writing.drainer.release();
    Step { end, room_bytes: bytes, rotated, _written: None }
}

fn write_oversized(
    writing: &mut Writing,
    core: &Core,
    unit: Oversized,
    rotated: Option<Rotated>,
) -> Result<Step> {
    let mut offset = writing.active.offset(writing.at());
    let underway = core.begin(Lane::Write, Operation::Write, writing.active_sequence());
    for piece in &unit.pieces {
        core.measures().counters.called_write();
        writing.active.file.write_at(piece, offset)?;
        offset += piece.len() as u64;
        underway.progressed();
    }
    drop(underway);
    core.measures().counters.wrote(unit.frame_count, unit.bytes, unit.payload);
    writing.drainer.skip(unit.bytes, Some(unit.last_record));
    Ok(Step { end: writing.at(), room_bytes: core.ring_bytes(), rotated, _written: Some(unit) })
}

/// Writes a control frame of `bytes` at the drainer's position, which was reserved for it. It
/// claims `synced`, takes no permits and never enters the ring. `frame` makes it for its position.
pub(super) fn write_direct(
    writing: &mut Writing,
    core: &Core,
    bytes: u64,
    synced: Lsn,
    frame: impl FnOnce(Lsn) -> Vec<u8>,
) -> Result<Step> {
    let mut rotated = None;
    if writing.room_bytes() < bytes {
        rotated = Some(rotate(writing, core, bytes)?);
    }
    let at = writing.at();
    let underway = core.begin(Lane::Write, Operation::Write, writing.active_sequence());
    writing.active.file.write_at(&frame(at), writing.active.offset(at))?;
    drop(underway);
    let counters = &core.measures().counters;
    counters.called_write();
    counters.controls.fetch_add(1, Ordering::Relaxed);
    counters.wrote(1, bytes, PayloadBytes::default());
    writing.claimed = writing.claimed.max(synced);
    writing.drainer.skip(bytes, None);
    Ok(Step { end: writing.at(), room_bytes: 0, rotated, _written: None })
}

/// Returns whether a unit is published at the drainer's position.
pub(super) fn has_left(writing: &Writing, core: &Core) -> bool {
    writing.drainer.is_ready() || core.intake.oversized.is_at(writing.at())
}
