//! Regrouping: after a flush that answered several, the sync job gives them a moment to come back.
//!
//! Tasks that commit one record after the other fall into two halves otherwise: while the flush of
//! one half runs, the other half waits for the next, and every commit takes two flushes. Who was just
//! answered usually has its next record ready some microseconds later; a flush that begins then
//! covers all of them, and each commit takes one.
//!
//! That is no timer that gathers a batch. It is done only behind a flush that answered, or left
//! waiting, several: a lone writer never waits. It ends with the last of those who are expected, at
//! most after a part of the time that the flush took, so that nobody ever waits for longer than half
//! a flush more. And where they don't come back, as those whose requests come from outside and not
//! one after the other, it isn't done again: see [`Habit`](super::linger::Habit).

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::pipeline::{core::Core, mark::Answered};

/// The share of a flush's time that is waited at most, and what is enough on any device: those who
/// come later are too many, or too slow, for one group.
const SHARE: u32 = 2;
const WAIT_MAX: Duration = Duration::from_micros(200);

/// How many there are when all have come back; `None` where nobody is waited for: a lone writer has
/// no group, and who was answered none left it.
fn expected_count(answered: Answered) -> Option<u64> {
    let count = answered.writer_count + answered.left_count;
    (answered.writer_count > 0 && count > 1).then_some(count)
}

/// Whether the wait was worth it, now that so many have come: of many, half make a group.
fn has_paid(answered: Answered, come_count: u64) -> bool {
    let expected_count = answered.writer_count + answered.left_count;
    let missing_count = expected_count.saturating_sub(come_count);
    come_count > 1 && missing_count * 2 <= answered.writer_count
}

impl Core {
    /// Waits for those who were `answered` by a sync that took so long, where that pays.
    pub(super) fn regroup(&self, answered: Answered, sync_time: Duration) {
        let Some(expected_count) = expected_count(answered) else { return };
        if !self.executor.may_linger() || !self.regrouping.is_on() {
            return;
        }
        let until = Instant::now() + (sync_time / SHARE).min(WAIT_MAX);
        let mut come_count = self.synced.writer_count();
        while come_count < expected_count && Instant::now() < until {
            // Those who are waited for may need this core.
            thread::yield_now();
            come_count = self.synced.writer_count();
        }
        self.regrouping.learn(has_paid(answered, come_count));
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    fn answered(writer_count: u64, left_count: u64) -> Answered {
        Answered { writer_count, left_count }
    }

    #[test]
    fn a_lone_writer_waits_for_nobody() {
        assert_eq!(expected_count(answered(1, 0)), None);
        assert_eq!(expected_count(answered(0, 0)), None);
        assert_eq!(expected_count(answered(0, 5)), None, "nobody can come back");
        assert_eq!(expected_count(answered(1, 1)), Some(2));
        assert_eq!(expected_count(answered(8, 0)), Some(8));
    }

    #[test]
    fn it_pays_if_half_of_them_come() {
        assert!(has_paid(answered(8, 0), 8) && has_paid(answered(8, 0), 4));
        assert!(!has_paid(answered(8, 0), 3));
        assert!(has_paid(answered(4, 4), 6), "those who stood there have not come back");
        assert!(!has_paid(answered(4, 4), 5));
        assert!(!has_paid(answered(2, 0), 1), "one is no group");
        assert!(has_paid(answered(2, 0), 7), "others came too");
    }
}
