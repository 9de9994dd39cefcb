//! Truncation of the end: the log continues from an earlier position, in the next epoch.
//!
//! Nothing is overwritten. A new segment begins at the cut; its synced header is the commit point.
//! From then on, frames and segments of lower epochs at or above the cut do not exist for any
//! reader. Their files are removed later.
//!
//! The truncation is a barrier. It holds all permits of the ring, so nothing is in flight, and the
//! next reservation is of the new epoch. The slow steps come before: the flush of the remaining
//! records, and the preparation of the file. Appends wait for one small write and one flush.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    error::{Error, Result},
    lsn::Lsn,
    pipeline::{
        core::Core,
        dispatch::sync,
        flush,
        job::{Job, request_relief_after_change, request_removal},
        prepare::{prepare_spare, refusal},
        room::{acquire, give_back, wait_for_spare},
        rotate::{EndTruncated, begin_epoch},
        state::epochs::Goal,
    },
    turn::lock_over_io,
};

/// Ends the log at `at`, or at its beginning if that is `None`. In `epoch`, `at` was the end of a
/// written unit. Returns the new end once it is durable.
pub(crate) async fn truncate_end(core: &Arc<Core>, at: Option<Lsn>, epoch: u64) -> Result<Lsn> {
    if let Some(end) = at {
        // The new header claims that everything below is synced.
        sync(core, Goal { end, epoch }.into()).await?;
    }
    wait_for_spare(core).await?;
    let all = acquire(core, core.ring_bytes()).await?;
    // Nothing waits while this future holds all room, because it may never be polled again.
    core.status().check_new()?;
    let (first, end) = (core.beginning().first(), core.records_end());
    let cut = at.unwrap_or(first);
    if at.is_some() {
        core.epochs().check(Goal { end: cut, epoch })?;
    }
    if cut < first {
        return Err(Error::outside(cut, first, end));
    }
    if cut >= end {
        return Ok(cut);
    }
    // From here on a job finishes the truncation, even if this future is dropped.
    all.forget();
    let (sender, receiver) = oneshot::channel();
    let job = Job::new(core, move |core| {
        // The receiver is gone if its future was dropped.
        let _ = sender.send(finish(core, cut));
    });
    job.spawn();
    match receiver.await {
        Ok(done) => done.map(|()| cut),
        Err(_) => Err(core.status().why_stopped()),
    }
}

/// Cuts the log. The calling job holds all permits.
fn finish(core: &Arc<Core>, cut: Lsn) -> Result<()> {
    // A rotation may have taken the spare meanwhile. From here on there is no rotation.
    if let Err(error) = prepare_spare(core, 0) {
        // Nothing has changed, and appends work unless the log has stopped.
        let error = refusal(core, error);
        if error.is_poisoned() {
            core.stop(error.clone());
        }
        core.intake.permits.release(core.ring_bytes());
        return Err(error);
    }
    let done = match lock_over_io(&core.roles.writing) {
        Ok(mut writing) => core.status().check().and_then(|()| {
            begin_epoch(&mut writing, core, cut).inspect_err(|error| {
                // Under the lock, so that no thread writes behind a failed write.
                core.set_stopped(error.clone().into_poison());
            })
        }),
        Err(_) => return Err(core.status().why_stopped()),
    };
    // Events are reported, and tasks woken, once the lock is free, because both run user code.
    match done {
        Ok(EndTruncated { segment, epoch, old_end, dropped_count, flush }) => {
            flush.iter().for_each(|report| flush::report(core, report));
            let log = core.storage().location();
            tracing::info!(log, segment, epoch, %cut, %old_end, dropped_count, "truncated the end");
        }
        Err(error) => {
            let error = error.into_poison();
            core.stop(error.clone());
            return Err(error);
        }
    }
    core.supply.space.wake_all();
    // Waiters check whether their positions were truncated.
    core.written().wake_all();
    core.synced().wake_all();
    core.publish_marks();
    core.publish_health();
    request_removal(core);
    give_back(core, core.ring_bytes());
    request_relief_after_change(core);
    Ok(())
}
