//! The "job is running" flag. Prevents lost wake-ups between a producer and a finishing job.
//!
//! A producer stores its work, then claims the flag. A job that finds no more work releases the
//! flag, then looks again. Both sides store, then look at the other's store, with a sequentially
//! consistent fence between: at least one of them sees the other's store. Either the producer finds
//! the flag free and starts a job, or the job sees the work and continues. Release and acquire
//! alone don't give that, because both looks may miss both stores.

use crate::sync::{AtomicBool, Ordering, fence};

/// Set from the claim that starts a job until that job has released it.
#[derive(Debug)]
pub(crate) struct Scheduled(AtomicBool);

impl Scheduled {
    pub(crate) fn new() -> Self {
        Scheduled(AtomicBool::new(false))
    }

    /// Returns whether the caller has to start a job for the work that it stored. `is_wanted` is
    /// called after the fence, for work that counts only together with the stores of other threads.
    #[inline]
    pub(crate) fn claim(&self, is_wanted: impl FnOnce() -> bool) -> bool {
        fence(Ordering::SeqCst);
        is_wanted() && !self.0.load(Ordering::Relaxed) && self.take()
    }

    /// Releases the flag of a job that has found nothing to do. Returns whether the job has the
    /// flag again and must continue: `is_wanted` found work, and no other caller has claimed it.
    pub(crate) fn release(&self, is_wanted: impl FnOnce() -> bool) -> bool {
        self.0.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
        is_wanted() && self.take()
    }

    /// Takes the flag by a compare-exchange, not a swap. A caller that comes too late then stores
    /// nothing, so between two claims the job's own store is the only one. (Loom has no total order
    /// of the stores to one atomic. It could order a late swap's store after the job's.)
    fn take(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
