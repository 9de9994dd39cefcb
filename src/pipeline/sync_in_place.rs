//! Syncing in place, where the user allows it: who waits for a flush and finds nobody at it does it
//! itself, on its own thread.
//!
//! A lone commit is then the write and the flush and nothing else: the trip to the pool and back is a
//! fifth of its time on a fast device. The price is the thread, which stands still for a flush. So it
//! lets the other tasks of that thread go first, once: what they have to commit is in the same flush,
//! and no loop of commits keeps the thread from them. One that has found itself alone does so at every
//! fourth commit only: a scheduler that is asked again and again wakes other threads to help.
//!
//! It is the sync job's role under the same flag. Who lets others go first has stored its demand and
//! claimed nothing: whoever comes meanwhile flushes for it too. What comes while it flushes is left
//! to a job, on a thread that may wait for a group.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{
    pipeline::{core::Core, epochs::Goal},
    sync::{Hint, Ordering},
};

/// Who commits alone lets others go first once in so many flushes.
const LONE_SYNCS: u64 = 4;

/// How many flushes in place in a row were for one record each, and how many records were written
/// before the last of them.
#[derive(Debug, Default)]
pub(super) struct LoneSyncs {
    count: Hint,
    record_count: Hint,
}

impl LoneSyncs {
    /// Whether it is time to let others go first.
    fn lets_others_go(&self) -> bool {
        self.count.get() % LONE_SYNCS == 0
    }

    /// So many records are written, now that a flush in place has ended.
    fn learn(&self, record_count: u64) {
        let is_lone = record_count <= self.record_count.get() + 1;
        self.count.set(if is_lone { self.count.get() + 1 } else { 0 });
        self.record_count.set(record_count);
    }
}

/// Lets the other tasks of the thread go first, once. Dropped meanwhile, the flush that was demanded is
/// left to a job.
struct LetOthersGo<'a> {
    core: &'a Arc<Core>,
    has_yielded: bool,
}

impl Future for LetOthersGo<'_> {
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

impl Drop for LetOthersGo<'_> {
    fn drop(&mut self) {
        if self.has_yielded {
            self.core.start_sync_if_wanted();
        }
    }
}

impl Core {
    /// Has everything below the goal synced, for somebody who waits for it: here if that is allowed
    /// and nobody is at it, or by a job.
    pub(super) async fn sync_for(self: &Arc<Self>, goal: Goal) {
        if !self.config.inline_syncs || self.executor.runs_in_place() {
            self.demand_sync(goal.end);
            return;
        }
        self.sync_demand.fetch_max(goal.end.as_u64(), Ordering::AcqRel);
        if self.lone_syncs.lets_others_go() {
            LetOthersGo { core: self, has_yielded: false }.await;
        }
        if self.sync_scheduled.claim(|| self.wants_sync()) {
            self.here_or_by_job(Core::sync_in_place, Core::sync_job);
        }
    }

    /// Whether nothing is left to be synced; if something is, the role is still the caller's.
    fn sync_in_place(self: &Arc<Self>) -> bool {
        // As a job does: nobody else owns the log while this may write.
        let Some(_lock) = self.hold_lock() else { return true };
        if self.sync_step().is_none() {
            return true;
        }
        self.lone_syncs.learn(self.written_record_count());
        if self.wants_sync() {
            return false;
        }
        self.leave_mark();
        !self.sync_scheduled.let_go(|| self.wants_sync())
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn who_is_alone_lets_others_go_now_and_then_and_a_group_every_time() {
        let lone = LoneSyncs::default();
        let lets: Vec<bool> = (1..=9)
            .map(|record_count| {
                let lets = lone.lets_others_go();
                lone.learn(record_count);
                lets
            })
            .collect();
        assert_eq!(lets, [true, false, false, false, true, false, false, false, true]);
        for record_count in [20, 30, 32] {
            lone.learn(record_count);
            assert!(lone.lets_others_go(), "several at once");
        }
    }
}
