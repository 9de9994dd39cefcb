//! Whether a job is at it: the one place that keeps work from being left with nobody to do it.
//!
//! Whoever brings work stores it, then claims. The job that finds no more work lets go, then looks
//! again. Two stores, each followed by a look at the other's: with a sequentially consistent fence
//! between the store and the look, on both sides, at least one of the two sees the other's store.
//! Either the bringer sees that no job is at it, and starts one, or the job sees the work, and
//! goes on. Release and acquire alone don't give that: both looks may then miss both stores.

use crate::sync::{AtomicBool, Ordering, fence};

/// Set from the claim that starts a job until that job has let go.
#[derive(Debug)]
pub(super) struct Scheduled(AtomicBool);

impl Scheduled {
    pub(super) fn new() -> Self {
        Scheduled(AtomicBool::new(false))
    }

    /// Whether the caller is to start a job, now that it has stored its work. `is_wanted` looks
    /// behind the fence, for work that counts only together with what others store.
    pub(super) fn claim(&self, is_wanted: impl FnOnce() -> bool) -> bool {
        fence(Ordering::SeqCst);
        is_wanted() && !self.0.load(Ordering::Relaxed) && self.take()
    }

    /// Whether the job, which found nothing to do, has to go on all the same: `is_wanted` finds
    /// work, and nobody else has claimed it. If not, it is no longer this job's.
    pub(super) fn let_go(&self, is_wanted: impl FnOnce() -> bool) -> bool {
        self.0.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
        is_wanted() && self.take()
    }

    /// No swap: whoever comes too late stores nothing, so between two claims the job's own store is
    /// the only one. (Loom has no total order of the stores to one atomic, and would put a late
    /// swap's behind it.)
    fn take(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
