//! The top of the pipeline: what each call does, and whether a job or the caller does the work.
//!
//! The operations below request a [`Role`] and do not know which thread takes it. Two files below
//! may still hand work on: `write_in_place` and `sync_in_place` leave the rest of their work to a
//! job.

use std::sync::Arc;

use crate::{
    error::Result,
    lsn::Lsn,
    options::InlineSyncs,
    pipeline::{
        append::{Placed, place, place_now, reserve_batch, try_place},
        core::{Core, Role, Start},
        job::{request_sync, request_write},
        mark_frame::{leave_mark, leave_owed_mark},
        notes::place_notes,
        open_log::OpenLog,
        prepare, relief, removal,
        state::{
            metrics::Instruments,
            payload::Payload,
            unit::{Span, Unit},
        },
        sync_alone::sync_alone,
        sync_in_place::sync_here,
        syncer,
        wait::{reach_synced, reach_written},
        write_in_place::{Gather, write_here},
        write_job,
    },
};

/// Starts a log from the result of recovery. It reports to `instruments`.
pub(crate) fn start(start: Start, instruments: Instruments) -> Arc<OpenLog> {
    OpenLog::start(start, instruments, perform)
}

/// Does the work of a role, in a job that has claimed it.
fn perform(core: &Arc<Core>, role: Role) {
    match role {
        Role::Write => write_job::run(core),
        Role::Sync => syncer::run(core),
        Role::Prepare { bytes, attempt } => {
            if prepare::run(core, (bytes, attempt), place_notes) {
                // The mark of an idle log may have waited for this room.
                leave_mark(core);
            }
        }
        Role::Remove => removal::run(core),
        Role::Relieve => relief::run(core),
        Role::Mark => leave_owed_mark(core),
    }
}

/// Appends a record. Resolves when the operating system has it.
pub(crate) async fn append(core: &Arc<Core>, payload: Payload<'_>) -> Result<Span> {
    let span = match place_now(core, payload)? {
        Placed::Now(span) => span,
        Placed::Waits(record) => place(core, record).await?,
    };
    write(core, span).await?;
    Ok(span)
}

/// Appends a record. Resolves when it is synced.
pub(crate) async fn append_and_sync(core: &Arc<Core>, payload: Payload<'_>) -> Result<Span> {
    let commit = core.measures().instruments.commit();
    let span = match place_now(core, payload)? {
        Placed::Now(span) => span,
        Placed::Waits(record) => place(core, record).await?,
    };
    // The sync job writes the record before its flush, so one trip to the pool does both.
    sync(core, span).await?;
    commit.done();
    Ok(span)
}

/// Appends a batch. Resolves when the operating system has it.
pub(crate) async fn append_batch(core: &Arc<Core>, payloads: Vec<Payload<'_>>) -> Result<Span> {
    let unit = Unit::new(core.config(), payloads)?;
    let span = reserve_batch(core, unit).await?;
    write(core, span).await?;
    Ok(span)
}

/// Appends a record. Resolves when it has its place in the log.
pub(crate) async fn enqueue(core: &Arc<Core>, payload: Payload<'_>) -> Result<Span> {
    let span = match place_now(core, payload)? {
        Placed::Now(span) => span,
        Placed::Waits(record) => place(core, record).await?,
    };
    request_write(core);
    Ok(span)
}

/// As [`enqueue`], without waiting for room.
pub(crate) fn try_enqueue(core: &Arc<Core>, payload: Payload<'_>) -> Result<Span> {
    let span = try_place(core, payload)?;
    request_write(core);
    Ok(span)
}

/// Syncs everything reserved before the call. Returns its end.
pub(crate) async fn sync_all(core: &Arc<Core>) -> Result<Lsn> {
    core.status().check_new()?;
    let commit = core.measures().instruments.commit();
    let goal = core.goal(|| core.records_end());
    sync(core, goal.into()).await?;
    commit.done();
    Ok(goal.end)
}

/// Has everything below the goal written. The caller has just published it. Resolves when the
/// operating system has it.
pub(crate) async fn write(core: &Arc<Core>, span: Span) -> Result<()> {
    if core.roles.in_place.is_on() && !core.executor().runs_in_place() {
        Gather::new(core, span.goal.end).await;
        if core.written().get() < span.goal.end {
            write_here(core);
        }
    } else {
        request_write(core);
    }
    reach_written(core, span).await
}

/// Has everything below the goal synced. Resolves when it is.
pub(crate) async fn sync(core: &Arc<Core>, span: Span) -> Result<()> {
    // Fails early if the record has been truncated; does not start a sync for it.
    core.epochs().check(span.goal)?;
    if core.synced().get() < span.goal.end {
        core.progress.demand_sync(span.goal.end);
        match core.config().inline_syncs() {
            _ if core.executor().runs_in_place() => request_sync(core),
            InlineSyncs::Never => request_sync(core),
            InlineSyncs::WhenAlone => {
                if let Some(timed) = sync_alone(core, span.goal.end).await {
                    reach_synced(core, span).await?;
                    timed.end(core);
                    return Ok(());
                }
            }
            InlineSyncs::Always => sync_here(core, span.goal.end).await,
        }
    }
    reach_synced(core, span).await
}

/// Adds a standing order: a sync after each `record_count` records.
pub(crate) fn add_order(core: &Arc<Core>, record_count: u64) {
    let orders = &core.progress.orders;
    orders.add(record_count);
    // Records that are written already count.
    if orders.is_due(|| core.measures().counters.written_record_count()) {
        core.progress.demand_sync(core.written().get());
    }
    request_sync(core);
}

pub(crate) fn remove_order(core: &Core, record_count: u64) {
    core.progress.orders.remove(record_count);
}
