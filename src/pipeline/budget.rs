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
};

/// Fails if a file of `bytes` for the next segment would exceed the budget. The caller holds
/// `preparing`, and has no spare.
///
/// # Errors
///
/// `OverBudget`.
pub(super) fn check(core: &Core, bytes: u64) -> Result<()> {
    match judge(core, bytes) {
        Verdict::Fits => Ok(()),
        Verdict::FitsFrom(_) | Verdict::TooLarge => Err(over_budget(core, bytes)),
    }
}

/// Returns whether the next segment, for a unit of `unit_bytes`, fits into the budget. `None` if
/// it is prepared already.
pub(super) fn judge_next(core: &Core, unit_bytes: u64) -> Option<Verdict> {
    if core.supply.space.has_spare_for(unit_bytes) {
        return None;
    }
    Some(judge(core, file_bytes_for(unit_bytes, core.config().segment_bytes)))
}

fn judge(core: &Core, bytes: u64) -> Verdict {
    if core.retaining().budget().is_none() {
        return Verdict::Fits;
    }
    let segment_bytes = core.config().segment_bytes;
    let kept_count = core.supply.recycled.count() as u64;
    // A segment of the usual size takes the place of a file that is kept for it.
    let other_count = kept_count.saturating_sub(u64::from(bytes == segment_bytes));
    let other_bytes = other_count.saturating_mul(segment_bytes);
    core.retaining().judge(&core.segments().list(), other_bytes, bytes)
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
    let kept_bytes = core.supply.recycled.count() as u64 * core.config().segment_bytes;
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
