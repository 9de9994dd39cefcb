//! Syncing in place: a task that waits for a flush does it on its own thread.
//!
//! A commit of a single task is then only the write and the flush. On a fast device, the trip to
//! the pool and back is a fifth of a commit's time. The price is the thread, which is blocked for a
//! flush. A task does this if the user wants it for all syncs, or if it is alone: see
//! [`sync_alone`](crate::pipeline::sync_alone).
//!
//! The task yields once to the other tasks of that thread. Their commits join the same
//! flush, and a loop of commits does not starve them. A task that keeps committing alone yields
//! before every 4th flush only, because frequent yields make a scheduler wake other threads.
//!
//! This is the sync job's role, with the same flag. A yielding task has stored its demand and
//! claimed nothing, so any later task flushes for it too. Demand that comes during the flush is
//! left to a job, on a thread that may wait for a group.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{
    lsn::Lsn,
    pipeline::{
        core::{Core, Role},
        job::{request_sync, run_here},
        mark_frame::leave_mark_when_idle,
        state::{habit::Habit, mark::Woken},
        syncer::{Synced, sync_step},
    },
};

/// Yields to the other tasks of the thread, once. If it is dropped while it yields, a job does the
/// flush that was demanded.
struct YieldOnce<'a> {
    core: &'a Arc<Core>,
    has_yielded: bool,
}

impl Future for YieldOnce<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.has_yielded = !self.has_yielded;
        if !self.has_yielded {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for YieldOnce<'_> {
    fn drop(&mut self) {
        if self.has_yielded {
            request_sync(self.core);
        }
    }
}

/// Yields to the other tasks of the thread, if they probably have something to sync.
pub(super) async fn yield_to_company(core: &Arc<Core>, yielding: &Habit) {
    if yielding.is_on() {
        YieldOnce { core, has_yielded: false }.await;
    }
}

/// Has everything below `end` synced, which the caller has demanded: on this thread, or by the job
/// that has the role.
pub(super) async fn sync_here(core: &Arc<Core>, end: Lsn) {
    yield_to_company(core, &core.roles.yielding).await;
    if claim_sync(core, end) {
        run_here(core, sync_in_place, Role::Sync);
    }
}

/// Returns whether the caller has to flush, and has the role. It has not if its demand was met
/// while it yielded. Otherwise it would flush for a task that has just begun to yield, and each
/// flush would serve one task.
pub(super) fn claim_sync(core: &Core, end: Lsn) -> bool {
    core.synced().get() < end && core.roles.sync_flag.claim(|| core.wants_sync())
}

fn sync_in_place(core: &Arc<Core>) -> bool {
    flush_here(core, &core.roles.yielding, |_| {
        let record_count = core.measures().counters.written_record_count();
        let before = core.roles.in_place_record_count.get();
        core.roles.in_place_record_count.set(record_count);
        record_count > before + 1
    })
}

/// Flushes on this thread. `has_company` returns whether several callers shared the flush, which
/// `yielding` learns. Returns whether nothing is left to sync. Otherwise the caller still has the
/// role.
pub(super) fn flush_here(
    core: &Arc<Core>,
    yielding: &Habit,
    has_company: impl FnOnce(Woken) -> bool,
) -> bool {
    // As for a job: no other process owns the log while this may write.
    let Some(_lock) = core.life.lock.hold() else { return true };
    let Some(Synced { woken, .. }) = sync_step(core) else { return true };
    yielding.learn(has_company(woken));
    yielding.pass();
    if core.wants_sync() {
        return false;
    }
    leave_mark_when_idle(core);
    !core.roles.sync_flag.release(|| core.wants_sync())
}
