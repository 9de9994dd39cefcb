//! Whether a commit that is alone flushes on its own thread.
//!
//! A commit is alone while the last flushes served one caller each. The trip to the pool and back
//! is then a quarter of its time. A flush on the caller's thread saves the trip, but the runtime
//! has to move that thread's other tasks to another thread. On a machine whose cores are busy this
//! costs more than the trip. So both ways are timed, and the other one is tried from time to time.
//!
//! Flushes must also be fast. A slow one leaves nothing to save, and the task that makes it can't
//! look at its timeouts meanwhile.

use std::time::Duration;

use crate::{
    pipeline::state::habit::{Habit, YIELDING_ALONE},
    sync::{AtomicU64, Hint, Ordering},
};

/// After this many groups of one caller in a row, a caller counts as alone.
const LONE_GROUPS_MIN: u64 = 4;

/// A slower flush ends the row of groups.
const FLUSH_TIME_MAX: Duration = Duration::from_millis(1);

/// Commits are counted in cycles. The first [`PROBE_COMMITS`] of a cycle take the slower way, to
/// learn whether that has changed.
const CYCLE_COMMITS: u64 = 1024;
const PROBE_COMMITS: u64 = 16;

/// After a change of the way, this many times are not learned. The first commits on a worker's
/// thread pay for moving its tasks, and a thread of the pool has to wake up.
const UNLEARNED_COMMITS: u64 = 4;

/// One of this many parts of an average is replaced by each new time.
const AVERAGE_PARTS: u64 = 32;

/// A time counts for at most this many averages, so that one pause decides nothing.
const OUTLIER: u64 = 8;

/// The most that the first time counts for.
const FIRST_TIME_MAX_NS: u64 = 1_000_000;

/// How a commit that is alone is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// On the thread of the task that commits.
    Here,
    /// By a job of the pool.
    Pool,
}

impl Way {
    fn other(self) -> Self {
        match self {
            Way::Here => Way::Pool,
            Way::Pool => Way::Here,
        }
    }
}

/// The learned choice. Concurrent updates may be lost: the values are rough guesses.
#[derive(Debug)]
pub(crate) struct Alone {
    /// The groups of one caller since the last larger one.
    lone_group_count: Hint,
    /// The callers that came alone since the last flush on a caller's thread.
    caller_count: AtomicU64,
    commit_count: Hint,
    /// A task yields before it flushes, so that commits of the same task join the flush.
    pub(crate) yielding: Habit,
    here: Average,
    pool: Average,
}

/// A caller that is counted.
pub(crate) struct Counted<'a>(&'a Alone);

impl Counted<'_> {
    /// Keeps the count for the caller's flush.
    pub(crate) fn flushes(self) {
        std::mem::forget(self);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.caller_count.store(0, Ordering::Relaxed);
    }
}

/// A moving average of times, in nanoseconds; 0 before the first.
///
/// A median would not do. If the cores are busy, few commits take long, but these take so long that
/// they decide the rate.
#[derive(Debug, Default)]
struct Average(Hint);

impl Average {
    fn note(&self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let average = self.0.get();
        let next = match average {
            0 => time.min(FIRST_TIME_MAX_NS),
            _ => average - average / AVERAGE_PARTS + time.min(average * OUTLIER) / AVERAGE_PARTS,
        };
        self.0.set(next.max(1));
    }
}

impl Default for Alone {
    fn default() -> Self {
        Alone {
            lone_group_count: Hint::default(),
            caller_count: AtomicU64::new(0),
            commit_count: Hint::default(),
            yielding: Habit::new(YIELDING_ALONE),
            here: Average::default(),
            pool: Average::default(),
        }
    }
}

impl Alone {
    /// Notes a flush that served `caller_count` callers and took `flush_time`.
    pub(crate) fn note_group(&self, caller_count: u64, flush_time: Duration) {
        let is_lone = caller_count <= 1 && flush_time <= FLUSH_TIME_MAX;
        let count = self.lone_group_count.get();
        let next = if is_lone { (count + 1).min(LONE_GROUPS_MIN) } else { 0 };
        // No store without a change: several threads may share the cache line.
        if next != count {
            self.lone_group_count.set(next);
        }
    }

    /// Returns whether a caller is probably alone.
    pub(crate) fn is_on(&self) -> bool {
        self.lone_group_count.get() >= LONE_GROUPS_MIN
    }

    /// Counts a caller that is probably alone, until its flush takes the count. If the result is
    /// dropped, no flush does, and all callers so far are forgotten. Otherwise the next flush would
    /// take them for company.
    pub(crate) fn enter(&self) -> Counted<'_> {
        self.caller_count.fetch_add(1, Ordering::Relaxed);
        Counted(self)
    }

    /// Returns the number of callers since the last call.
    pub(crate) fn take_callers(&self) -> u64 {
        self.caller_count.swap(0, Ordering::Relaxed)
    }

    /// Returns the way for the next commit, and whether its time is to be learned.
    pub(crate) fn choose(&self) -> (Way, bool) {
        let count = self.commit_count.get();
        self.commit_count.set(count.wrapping_add(1));
        let (at, better) = (count % CYCLE_COMMITS, self.better());
        let (way, since_change) = match at.checked_sub(PROBE_COMMITS) {
            None => (better.other(), at),
            Some(since_change) => (better, since_change),
        };
        (way, since_change >= UNLEARNED_COMMITS)
    }

    /// Returns the pool if it is clearly faster. It wakes two threads for each commit, and a flush
    /// on the caller's thread usually none.
    fn better(&self) -> Way {
        let (here, pool) = (self.here.0.get(), self.pool.0.get());
        if pool > 0 && here > pool + pool / 8 { Way::Pool } else { Way::Here }
    }

    /// Notes the time of a commit.
    pub(crate) fn learn(&self, way: Way, time: Duration) {
        match way {
            Way::Here => self.here.note(time),
            Way::Pool => self.pool.note(time),
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_micros(100);

    fn micros(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    /// Commits `count` times. Returns how many were made on the caller's thread.
    fn commit(alone: &Alone, count: u64, here: Duration, pool: Duration) -> u64 {
        (0..count).fold(0, |here_count, _| {
            let (way, is_learned) = alone.choose();
            if is_learned {
                alone.learn(way, if way == Way::Here { here } else { pool });
            }
            here_count + u64::from(way == Way::Here)
        })
    }

    #[test]
    fn caller_is_alone_after_lone_fast_groups() {
        let alone = Alone::default();
        for _ in 0..LONE_GROUPS_MIN {
            assert!(!alone.is_on());
            alone.note_group(1, FAST);
        }
        assert!(alone.is_on());
        alone.note_group(2, FAST);
        assert!(!alone.is_on(), "a group of two");
        (0..LONE_GROUPS_MIN).for_each(|_| alone.note_group(0, FAST));
        assert!(alone.is_on());
        alone.note_group(1, FLUSH_TIME_MAX + micros(1));
        assert!(!alone.is_on(), "a slow flush");
    }

    #[test]
    fn faster_way_is_used_and_other_is_probed() {
        const CYCLES: u64 = 20 * CYCLE_COMMITS;
        let (alone, probes) = (Alone::default(), 20 * PROBE_COMMITS);
        assert_eq!(commit(&alone, CYCLES, micros(100), micros(140)), CYCLES - probes);
        // The cores become busy.
        let here_count = commit(&alone, CYCLES, micros(300), micros(140));
        let at_least = probes - PROBE_COMMITS;
        assert!((at_least..probes + 100).contains(&here_count), "{here_count}");
        // They are free again.
        commit(&alone, CYCLES, micros(100), micros(140));
        assert_eq!(commit(&alone, CYCLES, micros(100), micros(140)), CYCLES - probes);
        // Equal times, about.
        assert_eq!(commit(&alone, CYCLES, micros(150), micros(140)), CYCLES - probes);
    }

    #[test]
    fn pause_decides_nothing() {
        let alone = Alone::default();
        commit(&alone, CYCLE_COMMITS, micros(100), micros(140));
        alone.learn(Way::Here, Duration::from_secs(1));
        let here_count = commit(&alone, CYCLE_COMMITS, micros(100), micros(140));
        assert_eq!(here_count, CYCLE_COMMITS - PROBE_COMMITS, "{alone:?}");
    }

    /// One commit in 16 takes 20 times as long, for instance until a worker gets a core.
    #[test]
    fn rare_long_times_count() {
        let alone = Alone::default();
        let commit = |count| {
            (0..count).fold(0, |here_count, at| {
                let (way, _) = alone.choose();
                let here = micros(if at % 16 == 0 { 2_000 } else { 100 });
                alone.learn(way, if way == Way::Here { here } else { micros(120) });
                here_count + u64::from(way == Way::Here)
            })
        };
        commit(CYCLE_COMMITS);
        let here_count = commit(20 * CYCLE_COMMITS);
        assert!(here_count < 3 * CYCLE_COMMITS, "{here_count}");
    }

    /// The first commits after a change pay for the change.
    #[test]
    fn first_times_after_a_change_are_not_learned() {
        let alone = Alone::default();
        let learned: Vec<bool> = (0..CYCLE_COMMITS).map(|_| alone.choose().1).collect();
        let unlearned: Vec<usize> = (0..learned.len()).filter(|at| !learned[*at]).collect();
        assert_eq!(unlearned, [0, 1, 2, 3, 16, 17, 18, 19]);
    }

    #[test]
    fn callers_are_counted_until_taken() {
        let alone = Alone::default();
        (0..3).for_each(|_| alone.enter().flushes());
        assert_eq!((alone.take_callers(), alone.take_callers()), (3, 0));
        drop(alone.enter());
        alone.enter().flushes();
        assert_eq!(alone.take_callers(), 1, "another thread flushed for the first one");
    }
}
