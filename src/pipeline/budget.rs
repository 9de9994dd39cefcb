//! The budget of the log's files.
//!
//! It is checked while the next segment's file is prepared, so an append that it refuses has not
//! reserved anything.

use crate::{
    error::{Error, Result},
    lsn::Lsn,
    pipeline::{
        core::Core,
        state::{retaining::Verdict, space::file_bytes_for},
    },
    retention::{Budget, OnBudget},
    segments::SegmentInfo,
};

/// Fails if a file of `bytes` for the next segment would exceed the budget, together with the files
/// that are kept for reuse. The caller holds `preparing`, and has no spare.
///
/// # Errors
///
/// `OverBudget`.
pub(super) fn check(core: &Core, bytes: u64) -> Result<()> {
    if core.retaining().budget().is_none() {
        return Ok(());
    }
    let segment_bytes = core.config().segment_bytes;
    let (waiting_count, kept_count) = core.supply.recycled.counts();
    // A segment of the usual size takes the place of a file that waits for it.
    let reused_count = u64::from(bytes == segment_bytes && waiting_count > 0);
    let kept_bytes = kept_count.saturating_sub(reused_count).saturating_mul(segment_bytes);
    match core.retaining().judge(&counted_segments(core), kept_bytes, bytes) {
        Verdict::Fits => Ok(()),
        Verdict::FitsFrom(_) | Verdict::TooLarge => Err(over_budget(core, bytes)),
    }
}

/// Returns whether the next segment, for a unit of `unit_bytes`, fits into the budget. `None` if it
/// is prepared already. Files that are kept for reuse make room for it, so they do not count.
pub(super) fn judge_next(core: &Core, unit_bytes: u64) -> Option<Verdict> {
    if core.supply.space.has_spare_for(unit_bytes) {
        return None;
    }
    let bytes = file_bytes_for(unit_bytes, core.config().segment_bytes);
    Some(core.retaining().judge(&counted_segments(core), 0, bytes))
}

/// Returns the segments, except segments that only slots records keep. The header of the next
/// segment makes these unneeded, so they must not keep that segment away.
fn counted_segments(core: &Core) -> Vec<SegmentInfo> {
    let mut segments = core.segments().list();
    let (horizon, end) = core.beginning().held_by_slots_records();
    let ends = |segment: Option<&SegmentInfo>| segment.map(|next| next.base);
    let kept = |index: usize| {
        ends(segments.get(index + 1)).is_none_or(|base| base <= horizon || base > end)
    };
    let kept: Vec<bool> = (0..segments.len()).map(kept).collect();
    let mut kept = kept.into_iter();
    segments.retain(|_| kept.next().unwrap_or(true));
    segments
}

/// Returns whether an append that met this error waits until segments are removed.
pub(super) fn is_waited_for(core: &Core, error: &Error, unit_bytes: u64) -> bool {
    let Some(Budget { when_used_up, .. }) = core.retaining().budget() else { return false };
    if !matches!(error, Error::OverBudget { .. }) {
        return false;
    }
    match when_used_up {
        OnBudget::Refuse => false,
        OnBudget::Wait => judge_next(core, unit_bytes) != Some(Verdict::TooLarge),
        OnBudget::DropOldest => match judge_next(core, unit_bytes) {
            Some(Verdict::FitsFrom(lsn)) => !is_leased_below(core, lsn),
            Some(Verdict::TooLarge) => false,
            Some(Verdict::Fits) | None => true,
        },
    }
}

/// Returns whether a lease needs a segment below `lsn`, which is the base of a segment.
pub(super) fn is_leased_below(core: &Core, lsn: Lsn) -> bool {
    core.beginning().oldest_lease().is_some_and(|(lease, _)| lease < lsn)
}

fn over_budget(core: &Core, bytes: u64) -> Error {
    let budget_bytes = core.retaining().budget().map_or(0, |budget| budget.bytes);
    let (_, kept_count) = core.supply.recycled.counts();
    let kept_bytes = kept_count.saturating_mul(core.config().segment_bytes);
    Error::OverBudget {
        directory: core.storage().location(),
        budget_bytes,
        used_bytes: core.segments().file_bytes() + kept_bytes,
        bytes,
        holder: holder(core).unwrap_or_default(),
    }
}

/// Describes the slot or lease with the lowest position, if it is not in the newest segment.
fn holder(core: &Core) -> Option<String> {
    let newest = core.segments().list().last()?.base;
    let lease = core.beginning().oldest_lease().map(|(lsn, _)| lsn);
    let slot = core.beginning().oldest_slot(core.synced().get());
    match slot.filter(|(_, lsn)| lease.is_none_or(|lease| *lsn < lease)) {
        Some((id, lsn)) if lsn < newest => {
            let name = core.slots().name(id)?;
            Some(format!("the slot {name:?} at LSN {lsn}"))
        }
        _ => lease.filter(|lsn| *lsn < newest).map(|lsn| format!("a lease at LSN {lsn}")),
    }
}
