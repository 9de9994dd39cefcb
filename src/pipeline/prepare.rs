//! Preparation of the spare, the next segment's file, before it is needed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    operation::Operation,
    pipeline::{
        budget,
        core::Core,
        job::{demand_sync, request_relief},
        recycle::{discard, give_back_recycled, next_file},
        state::{
            in_flight::Lane,
            space::{Spare, Wanted},
        },
    },
    segments::SegmentFile,
    sync::Ordering,
    turn::lock_over_io,
};

/// A prepared file, to be reported without any lock.
struct Prepared {
    segment: String,
    bytes: u64,
    time: Duration,
}

/// Prepares a spare with room for a unit of `bytes`, as the claimed `attempt`. Returns whether
/// there is a spare. If the attempt fails, appends that need the spare are refused.
pub(super) fn run(
    core: &Arc<Core>,
    (bytes, attempt): (u64, u64),
    place_notes: impl FnOnce(&Arc<Core>),
) -> bool {
    if core.status().check().is_err() {
        return false;
    }
    let log = core.storage().location();
    let prepared = prepare_timed(core, bytes, check_budget);
    if let Ok(Some(Prepared { segment, bytes, time })) = &prepared {
        tracing::debug!(log, segment, bytes, ?time, "prepared the next segment");
    }
    let had_stopped = core.status().check().is_err();
    let failure = prepared.err().map(|error| refusal(core, error));
    let had_failed = core.supply.space.end_attempt(attempt, failure.clone());
    if failure.is_some() {
        core.measures().counters.refusals.fetch_add(1, Ordering::Relaxed);
    }
    match failure {
        Some(_) if had_stopped => false,
        // Reports the error and wakes the waiters, now that the lock is free.
        Some(error) if error.is_poisoned() => {
            core.stop(error);
            false
        }
        Some(error) if drops_for(core, &error, bytes) => {
            core.supply.space.wake_all();
            request_relief(core);
            false
        }
        Some(error) => {
            // A budget that is used up is reported once.
            if !(had_failed && matches!(error, Error::OverBudget { .. })) {
                tracing::warn!(
                    log,
                    error = format_args!("{error:#}"),
                    "appends that need the next segment are refused or wait"
                );
            }
            core.supply.space.wake_all();
            core.publish_health();
            false
        }
        None => {
            if core.retaining().use_credit() {
                // Before appends use the room, because moves of slots free the log.
                place_notes(core);
                demand_sync(core, core.tail());
            }
            if had_failed {
                tracing::info!(log, "the next segment can be prepared again: appends work again");
            }
            core.supply.space.wake_all();
            core.publish_health();
            true
        }
    }
}

/// Prepares a spare with room for a unit of `bytes`, unless there is one. Blocks. Without a check
/// of the budget, because the caller can't do without the spare.
pub(super) fn prepare_spare(core: &Core, bytes: u64) -> Result<()> {
    prepare_timed(core, bytes, |_, _| Ok(())).map(|_: Option<Prepared>| ())
}

/// Takes the spare, which is usually there.
pub(super) fn take_spare(core: &Core, unit_bytes: u64) -> Result<Spare> {
    loop {
        match core.supply.space.take_spare(unit_bytes) {
            Some(spare) => return Ok(spare),
            None => {
                // The caller has the writer's lock, so tasks wait for this preparation.
                let _underway =
                    core.begin(Lane::Write, Operation::Prepare, core.supply.space.next_sequence());
                prepare_spare(core, unit_bytes)?;
            }
        }
    }
}

/// Returns the error that callers get after a failure to prepare a file. Nothing was reserved, so
/// the failure only refuses these callers. The log stops only if a later opening would not find its
/// files.
pub(super) fn refusal(core: &Core, error: Error) -> Error {
    if !matches!(error, Error::Displaced { .. }) {
        return error;
    }
    core.set_stopped(error.into_poison());
    core.status().why_stopped()
}

/// Reports nothing, because the caller may hold the writer's lock and a subscriber is user code.
fn prepare_timed(
    core: &Core,
    bytes: u64,
    check: impl FnOnce(&Core, u64) -> Result<()>,
) -> Result<Option<Prepared>> {
    let space = &core.supply.space;
    let _one_at_a_time = preparing(core);
    // A closed log gets no new files.
    core.status().check()?;
    let began = Instant::now();
    let Some(mut wanted) = space.begin_spare(bytes, core.config().segment_bytes)? else {
        return Ok(None);
    };
    let underway = core.begin(Lane::Prepare, Operation::Prepare, wanted.sequence);
    let progress = || underway.progressed();
    let had_small = wanted.small.is_some();
    let mut prepared =
        check(core, wanted.bytes).and_then(|()| make_file(core, &mut wanted, &progress));
    let is_full = matches!(prepared, Err(Error::NoSpace { .. }));
    // No second try if a small spare was discarded, because only an attempt that begins without a
    // spare takes a sequence number.
    if is_full && had_small == wanted.small.is_some() && give_back_recycled(core) {
        prepared = make_file(core, &mut wanted, &progress);
    }
    match prepared {
        Ok(file) => {
            let (segment, bytes, time) = (file.name().to_owned(), wanted.bytes, began.elapsed());
            space.set_spare(Some(Spare { file, bytes }));
            Ok(Some(Prepared { segment, bytes, time }))
        }
        Err(error) => {
            space.set_spare(wanted.small);
            Err(error)
        }
    }
}

/// Checks the budget. Gives up files that are kept for reuse if that makes room.
fn check_budget(core: &Core, bytes: u64) -> Result<()> {
    let checked = budget::check(core, bytes);
    if checked.is_err() && give_back_recycled(core) { budget::check(core, bytes) } else { checked }
}

/// Returns whether segments are dropped for a unit of `bytes` that the budget refused.
fn drops_for(core: &Core, error: &Error, bytes: u64) -> bool {
    let drops = core.retaining().drops_oldest() && budget::is_waited_for(core, error, bytes);
    if drops {
        core.retaining().begin_dropping(bytes);
    }
    drops
}

/// Makes the wanted file: a new one, or a small spare that grows.
fn make_file(core: &Core, wanted: &mut Wanted, progress: &dyn Fn()) -> Result<Arc<SegmentFile>> {
    let Some(spare) = wanted.small.as_ref() else {
        return next_file(core, wanted.sequence, wanted.bytes, progress).map(Arc::new);
    };
    let file = Arc::clone(&spare.file);
    let name = file.name().to_owned();
    if let Err(error) = file.reserve(wanted.bytes) {
        return Err(error.or_no_space(&name, wanted.bytes));
    }
    progress();
    if let Err(error) = file.sync_all() {
        // A file whose flush has failed is never used.
        wanted.small = None;
        drop(file);
        discard(core, &name);
        return Err(error.or_no_space(&name, wanted.bytes));
    }
    Ok(file)
}

/// Removes the spare when the log is closed, because a closed log keeps no empty file. Waits for a
/// spare that is being prepared. Not vital, because the next opening removes a spare that stays.
pub(super) fn remove_spare(core: &Core) {
    let spare = {
        let _prepared = preparing(core);
        core.supply.space.take_spare(0)
    };
    if let Some(spare) = spare {
        let name = spare.file.name().to_owned();
        let _underway = core.begin(Lane::Close, Operation::Remove, spare.file.sequence());
        drop(spare);
        if let Err(error) = core.storage().remove(&name) {
            let log = core.storage().location();
            tracing::debug!(
                log,
                name,
                error = format_args!("{error:#}"),
                "an unused segment stays until the log is opened"
            );
        }
    }
}

fn preparing(core: &Core) -> crate::sync::MutexGuard<'_, ()> {
    lock_over_io(&core.supply.space.preparing).unwrap_or_else(std::sync::PoisonError::into_inner)
}
