//! Removal of segments that a durable truncation or a released lease made unneeded.

use std::sync::Arc;

use crate::{
    error::Result,
    format::scan::WalkBounds,
    lsn::Lsn,
    operation::Operation,
    pipeline::{
        core::{Core, Role},
        job::{request_relief_after_change, request_removal, request_spare, start},
        recycle::recycle,
        state::{beginning::Removal, in_flight::Lane},
    },
    segments::{LastRecord, SegmentFile, SegmentInfo, SegmentReader},
};

/// The number of files after which a job hands over to a new one. So no flush waits long for a
/// thread.
const REMOVALS_PER_JOB: usize = 8;

/// Applies the truncations that a flush made durable. `synced` reads the synced mark.
pub(super) fn apply_truncations(core: &Arc<Core>, synced: impl Fn() -> Lsn) {
    if core.beginning().is_awaited(synced()) {
        core.beginning().apply_durable(synced);
        request_removal(core);
    }
}

/// Removes or recycles files, oldest first: the removal job.
pub(super) fn run(core: &Arc<Core>) {
    let (beginning, log) = (core.beginning(), core.storage().location());
    for _ in 0..REMOVALS_PER_JOB {
        let Some(removal) = beginning.next_removal(|horizon| core.segments().take_below(horizon))
        else {
            core.publish_metrics();
            return;
        };
        let (Removal::Dropped(sequence) | Removal::Oldest(SegmentInfo { sequence, .. }, _)) =
            removal;
        let underway = core.begin(Lane::Remove, Operation::Remove, sequence);
        if let Removal::Oldest(info, end) = removal {
            note_last_record(core, &info, end);
            if recycle(core, sequence, &underway) {
                beginning.note_removed();
                offer_room(core);
                // Recycling one file takes as long as eight removals, or longer.
                if core.executor().runs_in_place() {
                    continue;
                }
                break;
            }
        }
        let segment = sequence.file_name();
        let removed = core.storage().remove(&segment);
        drop(underway);
        match removed {
            Ok(()) => {
                tracing::debug!(log, segment, "removed: the log does not need it any more");
                beginning.note_removed();
                offer_room(core);
            }
            // The next opening removes a file that stays.
            Err(error) => {
                tracing::warn!(
                    log,
                    segment,
                    error = format_args!("{error:#}"),
                    "can't be removed for now"
                );
                // The log counts it no longer.
                offer_room(core);
            }
        }
    }
    start(core, Role::Remove);
}

/// Has the next segment prepared if that has failed, because there is room again.
fn offer_room(core: &Arc<Core>) {
    if core.supply.space.refusal().is_some() {
        request_spare(core, 0);
    }
    if core.retaining().budget().is_some() {
        core.supply.space.wake_all();
    }
}

/// Notes the last record of a segment before it is removed, so that a consumer that has seen this
/// record can continue. Reads the segment only if it is the last one to be removed, and if this
/// process did not write its records.
fn note_last_record(core: &Core, info: &SegmentInfo, end: Lsn) {
    let beginning = core.beginning();
    if beginning.knows_end(end) || core.segments().has_below(beginning.first()) {
        return;
    }
    // Without an answer such a consumer is refused, which is safe.
    let Ok(file) = SegmentFile::open(core.storage().as_ref(), info.sequence) else { return };
    let record_bytes_max = core.config().record_bytes_max;
    let place = WalkBounds { seed: info.seed, end, record_bytes_max };
    match (SegmentReader { file: Arc::new(file), base: info.base, place }).last_record() {
        LastRecord::At(last) => beginning.note_end(Some(last), end),
        LastRecord::None => beginning.note_empty(info.base, end),
        LastRecord::Unknown => {}
    }
}

/// Keeps the log from `lsn` on readable until the lease is released.
///
/// # Errors
///
/// `BelowFirst`, `AboveEnd`; the reason why the log can't be read.
pub(crate) fn lease(core: &Core, lsn: Lsn) -> Result<()> {
    core.status().check_read()?;
    core.beginning().lease(lsn, core.records_end())?;
    core.publish_metrics();
    Ok(())
}

/// Leases everything that is durable, and keeps the files that opening it reads. Returns its
/// beginning, its end, and the position from which on files are kept.
pub(crate) fn lease_durable(core: &Core) -> Result<(Lsn, Lsn, Lsn)> {
    core.status().check_read()?;
    let leased = core.beginning().lease_durable(|| core.synced().get());
    core.publish_metrics();
    Ok(leased)
}

/// Ends [`lease_durable`].
pub(crate) fn release_durable(core: &Arc<Core>, first: Lsn, files_from: Lsn) {
    core.beginning().release_pin(files_from);
    release_lease(core, first);
}

/// Releases a lease, and removes the segments that only this lease held.
pub(crate) fn release_lease(core: &Arc<Core>, lsn: Lsn) {
    core.beginning().release_lease(lsn);
    core.retaining().note_change();
    request_relief_after_change(core);
    core.publish_metrics();
    if core.status().check().is_ok() {
        request_removal(core);
    }
}
