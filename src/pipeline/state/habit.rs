//! A habit: whether an attempt that costs time is worth it, learned from the results.
//!
//! While attempts succeed, all are made. Each failure lowers the confidence; without confidence
//! only one occasion in [`HabitKind::probe_every`] is tried, to find out whether that has changed.

use crate::sync::{AtomicU64, Ordering};

/// The constants of one kind of habit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HabitKind {
    /// The confidence gained by a success. A failure costs 1.
    pub(crate) gain: u64,
    /// The highest confidence: the number of failures in a row after which attempts end.
    pub(crate) confidence_max: u64,
    /// Without confidence, one occasion in this many is tried.
    pub(crate) probe_every: u64,
}

/// A write job stays a moment and looks for more work. A sync job waits for the tasks that it woke.
pub(crate) const STAYING: HabitKind = HabitKind { gain: 2, confidence_max: 16, probe_every: 32 };

/// An append yields before it writes in place, so that others publish first. The interval is a
/// prime, so that the probe is not always the last of several appends that come together.
pub(crate) const GATHERING: HabitKind = HabitKind { gain: 4, confidence_max: 64, probe_every: 61 };

/// A task yields before it syncs in place, so that others join the group. A task that was alone
/// yields before every 4th sync only, because frequent yields make a scheduler wake other threads.
pub(crate) const YIELDING: HabitKind = HabitKind { gain: 1, confidence_max: 1, probe_every: 4 };

/// A task that is alone yields before it syncs in place, so that its other commits join the group.
/// A yield costs as much as a trip to the pool, because the task moves to another thread. Tasks
/// that commit together once probably do so again, so that is remembered for long.
pub(crate) const YIELDING_ALONE: HabitKind =
    HabitKind { gain: 1024, confidence_max: 1024, probe_every: 16 };

/// The learned confidence. Concurrent updates may be lost: the value is a rough guess.
#[derive(Debug)]
pub(crate) struct Habit {
    kind: HabitKind,
    confidence: AtomicU64,
    occasions: AtomicU64,
}

impl Habit {
    pub(crate) fn new(kind: HabitKind) -> Self {
        Habit { kind, confidence: AtomicU64::new(0), occasions: AtomicU64::new(0) }
    }

    /// Returns whether to make the attempt now. Counts no occasion, so concurrent callers get the
    /// same result.
    pub(crate) fn is_on(&self) -> bool {
        self.confidence.load(Ordering::Relaxed) > 0
            || self.occasions.load(Ordering::Relaxed) % self.kind.probe_every == 0
    }

    /// Counts an occasion.
    pub(crate) fn pass(&self) {
        let occasions = self.occasions.load(Ordering::Relaxed);
        self.occasions.store(occasions.wrapping_add(1), Ordering::Relaxed);
    }

    /// Returns whether to make the attempt this time. Counts the occasion if there is no
    /// confidence.
    pub(crate) fn takes(&self) -> bool {
        if self.confidence.load(Ordering::Relaxed) > 0 {
            return true;
        }
        let is_on = self.is_on();
        self.pass();
        is_on
    }

    /// Notes the result of an attempt.
    pub(crate) fn learn(&self, has_paid: bool) {
        let confidence = self.confidence.load(Ordering::Relaxed);
        let learned = match has_paid {
            true => (confidence + self.kind.gain).min(self.kind.confidence_max),
            false => confidence.saturating_sub(1),
        };
        // No store without a change: several threads may share the cache line.
        if learned != confidence {
            self.confidence.store(learned, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn failing_attempts_end_and_are_probed() {
        for kind in [STAYING, GATHERING] {
            let habit = Habit::new(kind);
            assert!(habit.takes(), "the first occasion is a probe");
            habit.learn(true);
            for _ in 0..kind.gain {
                assert!(habit.takes());
                habit.learn(false);
            }
            let tried = (0..10 * kind.probe_every).filter(|_| habit.takes());
            assert_eq!(tried.count() as u64, 10);
            (0..100).for_each(|_| habit.learn(true));
            let failures = (0..100).take_while(|_| {
                habit.learn(false);
                habit.confidence.load(Ordering::Relaxed) > 0
            });
            assert_eq!(failures.count() as u64, kind.confidence_max - 1);
        }
    }

    #[test]
    fn single_writer_yields_every_4th_sync() {
        let habit = Habit::new(YIELDING);
        let yields: Vec<bool> = (1..=9)
            .map(|_| {
                let yields = habit.is_on();
                habit.learn(false);
                habit.pass();
                yields
            })
            .collect();
        assert_eq!(yields, [true, false, false, false, true, false, false, false, true]);
        for _ in 0..3 {
            habit.learn(true);
            assert!(habit.is_on(), "a group was flushed");
        }
    }
}
