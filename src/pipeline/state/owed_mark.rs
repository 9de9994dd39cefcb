//! The mark that the log owes: it is written when the log rests, not after each flush.
//!
//! While commits follow each other, the frame of each claims the one before it, and a mark would
//! only cost a write. So a flush in such a run leaves the mark owed. The thread that watches the
//! log has it written when nothing has moved between two checks. See `docs/DURABILITY.md`,
//! *The mark of a run*.

use std::time::{Duration, Instant};

use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// Flushes are a run if the next one begins this soon after the previous one has ended.
const RUN_GAP: Duration = Duration::from_millis(5);

/// The time between two checks while a mark is owed. A mark is written after one to two of these.
pub(crate) const REST_TICK: Duration = Duration::from_millis(10);

/// The time of a flush that was not made.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct OwedMark {
    is_owed: AtomicBool,
    origin: Instant,
    /// When the last flush ended, since `origin`; [`NEVER`] before the first one. Only the syncer
    /// stores it.
    flush_ended_ns: AtomicU64,
    /// Whether the last flush followed the one before it closely. Only the syncer stores it.
    is_run: AtomicBool,
    /// The progress of the log at the last check. Only the watching thread uses it.
    seen_progress: AtomicU64,
}

impl OwedMark {
    pub(crate) fn new() -> Self {
        OwedMark {
            is_owed: AtomicBool::new(false),
            origin: Instant::now(),
            flush_ended_ns: AtomicU64::new(NEVER),
            is_run: AtomicBool::new(false),
            seen_progress: AtomicU64::new(0),
        }
    }

    /// Notes a flush of `time` that began at `began`.
    pub(crate) fn note_flush(&self, began: Instant, time: Duration) {
        let began = began.saturating_duration_since(self.origin);
        let previous_ended_ns = self.flush_ended_ns.load(Ordering::Relaxed);
        let pause = began.saturating_sub(Duration::from_nanos(previous_ended_ns));
        let is_run = previous_ended_ns != NEVER && pause < RUN_GAP;
        self.is_run.store(is_run, Ordering::Relaxed);
        let ended_ns = u64::try_from((began + time).as_nanos()).unwrap_or(u64::MAX);
        self.flush_ended_ns.store(ended_ns, Ordering::Relaxed);
    }

    /// Returns whether the last flush is part of a run, so that a further one probably follows.
    pub(crate) fn is_run(&self) -> bool {
        self.is_run.load(Ordering::Relaxed)
    }

    /// Notes that a mark is owed. Returns whether none was owed before. The caller then makes sure
    /// that a thread watches the log, and looks soon.
    pub(crate) fn owe(&self) -> bool {
        // Always a swap: a thread that takes the older debt then sees the flush before this call.
        // After a look alone, that thread may miss the flush, and this call the free place.
        !self.is_owed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_owed(&self) -> bool {
        self.is_owed.load(Ordering::Acquire)
    }

    /// Takes the debt. Returns whether there was one. The caller writes the mark.
    pub(crate) fn take(&self) -> bool {
        // Without a debt, which is the usual case, this stores nothing.
        self.is_owed() && self.is_owed.swap(false, Ordering::AcqRel)
    }

    /// Returns whether the mark is due: it is owed, and `progress` is that of the previous check.
    /// `progress` is `None` while a call is in flight.
    pub(crate) fn is_due(&self, progress: Option<u64>) -> bool {
        let Some(progress) = progress.filter(|_| self.is_owed()) else { return false };
        let is_due = self.seen_progress.load(Ordering::Relaxed) == progress;
        // If the mark was not written by then, it is due again after two checks.
        let seen = if is_due { !progress } else { progress };
        self.seen_progress.store(seen, Ordering::Relaxed);
        is_due
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn flushes_that_follow_closely_are_a_run() {
        let owed = OwedMark::new();
        let flush = Duration::from_millis(40);
        let first = owed.origin + Duration::from_millis(1);
        owed.note_flush(first, flush);
        assert!(!owed.is_run(), "no flush precedes it");
        let second = first + flush + RUN_GAP / 2;
        owed.note_flush(second, flush);
        assert!(owed.is_run());
        owed.note_flush(second + flush + RUN_GAP, flush);
        assert!(!owed.is_run());
    }

    #[test]
    fn mark_is_due_when_nothing_moves_between_checks() {
        let owed = OwedMark::new();
        assert!(!owed.is_due(Some(0)), "none is owed");
        assert!(owed.owe() && !owed.owe());
        assert!(!owed.is_due(Some(4)));
        assert!(!owed.is_due(Some(6)), "the log has moved");
        assert!(!owed.is_due(None), "a call is in flight");
        assert!(owed.is_due(Some(6)));
        assert!(!owed.is_due(Some(6)), "it was given to a thread");
        assert!(owed.is_due(Some(6)), "that thread has not written it");
        assert!(owed.take() && !owed.take());
        assert!(!owed.is_due(Some(6)));
    }
}
