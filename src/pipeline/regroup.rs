//! Regrouping: after a flush, the sync job waits a moment for the tasks that it woke.
//!
//! Without this wait, tasks that commit one record after the other fall into two halves. While the
//! flush of one half runs, the other half waits for the next flush. So every commit takes two
//! flushes. A task that was just woken usually has its next record ready some microseconds later. A
//! flush that begins then covers all of them, and each commit takes one flush.
//!
//! No timer gathers a batch. The wait follows only a flush that woke several tasks, so a single
//! writer never waits. The wait ends when all expected tasks have returned, and takes at most half
//! the time of the flush. If the tasks do not return, because their requests come from outside, the
//! wait is not repeated: see [`Habit`](crate::pipeline::state::habit::Habit).

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::pipeline::{core::Core, state::mark::Woken};

/// The longest wait is 1 / `SHARE` of the flush's time.
const SHARE: u32 = 2;
/// The longest wait on any device. Tasks that need longer are too many, or too slow, for one group.
const WAIT_MAX: Duration = Duration::from_millis(1);

/// Waits for the `woken` tasks of a sync that took `sync_time`, if that pays.
pub(super) fn regroup(core: &Core, woken: Woken, sync_time: Duration) {
    let Some(expected_count) = expected_count(woken) else { return };
    if !core.executor().may_linger() || !core.roles.regrouping.takes() {
        return;
    }
    let until = Instant::now() + (sync_time / SHARE).min(WAIT_MAX);
    let mut waiting_count = core.synced().writer_count();
    while waiting_count < expected_count && Instant::now() < until {
        // The expected tasks may need this core.
        thread::yield_now();
        waiting_count = core.synced().writer_count();
    }
    core.roles.regrouping.learn(has_paid(woken, waiting_count));
}

/// Returns the number of waiting tasks when all have returned. `None` if there is no group to wait
/// for: a single writer, or a flush that woke no writer.
fn expected_count(woken: Woken) -> Option<u64> {
    let count = woken.writer_count + woken.waiting_count;
    (woken.writer_count > 0 && count > 1).then_some(count)
}

/// Returns whether the wait was worth it: at least half of the woken tasks have returned.
fn has_paid(woken: Woken, waiting_count: u64) -> bool {
    let expected_count = woken.writer_count + woken.waiting_count;
    let missing_count = expected_count.saturating_sub(waiting_count);
    waiting_count > 1 && missing_count * 2 <= woken.writer_count
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    fn woken(writer_count: u64, waiting_count: u64) -> Woken {
        Woken { writer_count, waiting_count }
    }

    #[test]
    fn single_writer_expects_no_group() {
        assert_eq!(expected_count(woken(1, 0)), None);
        assert_eq!(expected_count(woken(0, 0)), None);
        assert_eq!(expected_count(woken(0, 5)), None, "no task was woken");
        assert_eq!(expected_count(woken(1, 1)), Some(2));
        assert_eq!(expected_count(woken(8, 0)), Some(8));
    }

    #[test]
    fn wait_pays_if_half_return() {
        assert!(has_paid(woken(8, 0), 8) && has_paid(woken(8, 0), 4));
        assert!(!has_paid(woken(8, 0), 3));
        assert!(has_paid(woken(4, 4), 6), "tasks that waited before have not returned");
        assert!(!has_paid(woken(4, 4), 5));
        assert!(!has_paid(woken(2, 0), 1), "one task is no group");
        assert!(has_paid(woken(2, 0), 7), "other tasks came");
    }
}
