//! The syncer: one flush for all tasks that wait.
//!
//! Group commit without a timer: while one flush runs, later tasks wait for the next. The only
//! delay is a short wait for tasks that the last flush woke (`regroup`). A commit on an idle log is
//! one job, which drains the ring, flushes and wakes.

use std::{sync::Arc, time::Instant};

use crate::{
    error::Result,
    lsn::Lsn,
    pipeline::{
        claim::{Claimed, Group, claim_synced},
        core::{Core, Role},
        flush::{self, flush_quietly},
        job::{request_relief_after_change, start},
        mark_frame::leave_mark_when_idle,
        notes::{place_notes, settle_notes},
        regroup::regroup,
        removal::apply_truncations,
        state::{in_flight::Lane, mark::Woken, measures::FlushReport},
        waking::{Waking, wake},
        write_durably::{self, Durable, write_durably},
        writer::{Drained, write_once},
    },
    sabotage::{self, Sabotage},
    turn::lock_over_io,
};

/// After this many flushes a job hands over to a new one, so that it never delays a shutdown.
const SYNCS_PER_JOB: u32 = 16;

/// The result of a flush.
struct Flushed {
    end: Lsn,
    record_count: u64,
    /// False if the end was truncated in between, so that the marks did not move.
    is_raised: bool,
    /// To be reported when no lock is held.
    reports: [Option<FlushReport>; 2],
}

/// The result of a sync.
#[derive(Default)]
pub(super) struct Synced {
    pub(super) woken: Woken,
    /// The tasks to wake, if a worker does that. Drop it soon.
    pub(super) waking: Option<Waking>,
}

/// Flushes while a sync is wanted: the sync job. The caller has the sync role.
pub(super) fn run(core: &Arc<Core>) {
    for _ in 0..core.turns(SYNCS_PER_JOB) {
        if core.wants_sync() {
            let began = Instant::now();
            let Some(Synced { woken, waking }) = sync_step(core) else { return };
            let time = began.elapsed();
            core.roles.alone.note_group(woken.writer_count + woken.waiting_count, time);
            regroup(core, woken, time);
            drop(waking);
            continue;
        }
        leave_mark_when_idle(core);
        if !core.roles.sync_flag.release(|| core.wants_sync()) {
            return;
        }
    }
    start(core, Role::Sync);
}

/// Flushes once for the thread that has the role. Returns `None` if the log has stopped.
pub(super) fn sync_step(core: &Arc<Core>) -> Option<Synced> {
    match sync_once(core) {
        Ok(synced) => Some(synced),
        Err(error) if core.status().check().is_ok() && sabotage::blame(&error) => {
            core.synced().wake_all();
            Some(Synced::default())
        }
        Err(error) => {
            core.stop(error.into_poison());
            None
        }
    }
}

/// Drains the ring, flushes, raises the synced mark to the end that the flush covers, and wakes the
/// waiters.
pub(super) fn sync_once(core: &Arc<Core>) -> Result<Synced> {
    if core.slots().is_due() || core.times().is_on() || core.retaining().is_on() {
        place_notes(core);
    }
    let ring = &core.intake.ring;
    let goal = ring.tail();
    let queue_bytes = goal.since(ring.drained());
    let durable = if write_durably::is_on(core) { write_durably(core, goal)? } else { None };
    while ring.drained() < goal {
        match write_once(core) {
            Drained::Wrote => {}
            Drained::Idle => break,
            Drained::Stopped => return none_woken(core),
        }
    }
    let Some(claimed) = claim_synced(core)? else { return none_woken(core) };
    let Some(flushed) = flush_group(core, claimed, durable.as_ref())? else {
        return Ok(Synced::default());
    };
    flushed.reports.iter().flatten().for_each(|report| flush::report(core, report));
    if let Some(report) = &flushed.reports[1] {
        core.note_flush(report);
    }
    // Before any task is woken, because a woken task may read the measures.
    core.measures().synced(flushed.record_count, queue_bytes);
    core.progress.orders.note_requested(flushed.record_count);
    if !flushed.is_raised {
        return Ok(Synced::default());
    }
    let (wakers, woken) = core.progress.take_reached(flushed.end);
    let mut waking = wake(core, wakers);
    if waking.is_some() && core.progress.completions.are_waiting() {
        // Woken now, because a completion is the user's code and may take long.
        waking = None;
    }
    core.run_completions();
    apply_truncations(core, || core.synced().get());
    settle_notes(core);
    request_relief_after_change(core);
    core.publish_marks();
    core.publish_flow();
    Ok(Synced { woken, waking })
}

/// Flushes the written bytes that are not `durable`, and raises the marks. Returns `None` if
/// nothing is unsynced. No user code runs here, because the next syncer waits for the claim's lock.
fn flush_group(
    core: &Core,
    claimed: Claimed<'_>,
    durable: Option<&Durable>,
) -> Result<Option<Flushed>> {
    let Claimed { group: Group { unsynced, record_count, epoch }, .. } = &claimed;
    let mut end = unsynced.end;
    if end <= core.synced().get() {
        return Ok(None);
    }
    if sabotage::is_on(Sabotage::AcknowledgeBeforeFlush) {
        core.synced().advance(end);
        core.run_completions();
    }
    let mut reports = [None, None];
    // Oldest first: `synced` covers older segments before it passes into a newer one.
    if let Some(sealed) = &unsynced.sealed {
        reports[0] = Some(flush_quietly(core, Lane::Sync, sealed)?);
        if let Ok(mut writing) = lock_over_io(&core.roles.writing) {
            writing.sealed_is_synced(sealed);
        }
    }
    if !durable.is_some_and(|durable| durable.covers(unsynced, *epoch)) {
        reports[1] = Some(flush_quietly(core, Lane::Sync, &unsynced.active)?);
    }
    core.status().check()?;
    if sabotage::is_on(Sabotage::MarkLaterByte) {
        end = core.intake.ring.drained();
    }
    let is_raised = core.progress.raise_marks(*epoch, end);
    Ok(Some(Flushed { end, record_count: *record_count, is_raised, reports }))
}

/// Returns that no waiter was woken, or the error if the log has stopped.
fn none_woken(core: &Core) -> Result<Synced> {
    core.status().check().map(|()| Synced::default())
}
