//! Lingering: a write job that has run out of work looks for more for a moment before it leaves.
//!
//! A hop to a parked thread costs 25–35 µs, most of it the processor's way out of its sleep. A job
//! that stays for about as long finds the next append of a busy log without one, and costs at most
//! what the hop would have: the rule of spinning for as long as blocking costs (Karlin, Li, Manasse
//! and Owicki, "Empirical studies of competitive spinning for a shared-memory multiprocessor", 1991).
//!
//! Where it doesn't pay it isn't done: see [`Habit`]. A log on which nothing happens has no job, and so
//! nobody who lingers.

use std::time::{Duration, Instant};

use crate::{
    pipeline::core::Core,
    sync::{AtomicU64, Ordering},
};

/// About the cost of a hop.
const LINGER: Duration = Duration::from_micros(40);

/// So many looks between two at the clock.
const LOOKS: u32 = 8;

/// Confidence gained by one success, lost by one failure, and its highest value: a log that was
/// busy is tried so many times in vain before it counts as idle.
const GAIN: u64 = 2;
const CONFIDENCE_MAX: u64 = 16;

/// Without confidence, one occasion of so many is used to find out whether it would pay.
const PROBE_EVERY: u64 = 32;

/// What one kind of job has learned about staying for a moment: each time in vain makes the next less
/// likely, until only one in [`PROBE_EVERY`] occasions is tried again. Only that job changes it, and
/// there is one at a time.
#[derive(Debug)]
pub(super) struct Habit {
    confidence: AtomicU64,
    occasions: AtomicU64,
}

impl Habit {
    pub(super) fn new() -> Self {
        Habit { confidence: AtomicU64::new(0), occasions: AtomicU64::new(0) }
    }

    /// Whether it is tried this time.
    pub(super) fn is_on(&self) -> bool {
        if self.confidence.load(Ordering::Relaxed) > 0 {
            return true;
        }
        let occasions = self.occasions.load(Ordering::Relaxed);
        self.occasions.store(occasions.wrapping_add(1), Ordering::Relaxed);
        occasions % PROBE_EVERY == 0
    }

    /// It was tried, and paid or not.
    pub(super) fn learn(&self, has_paid: bool) {
        let confidence = self.confidence.load(Ordering::Relaxed);
        let confidence = match has_paid {
            true => (confidence + GAIN).min(CONFIDENCE_MAX),
            false => confidence.saturating_sub(1),
        };
        self.confidence.store(confidence, Ordering::Relaxed);
    }
}

impl Core {
    /// Stays for a moment, where that pays, and says whether something to write has come.
    pub(super) fn lingers(&self) -> bool {
        // Where appends write in place, a job that stays would keep the role from them.
        if !self.executor.may_linger() || self.in_place.is_on() || !self.lingering.is_on() {
            return false;
        }
        let found = spin(|| self.has_published());
        self.lingering.learn(found);
        found
    }
}

fn spin(is_wanted: impl Fn() -> bool) -> bool {
    let until = Instant::now() + LINGER;
    loop {
        for _ in 0..LOOKS {
            if is_wanted() {
                return true;
            }
            std::hint::spin_loop();
        }
        if Instant::now() >= until {
            return false;
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_vain_is_given_up_and_tried_now_and_then() {
        let habit = Habit::new();
        assert!(habit.is_on(), "the first time tells");
        habit.learn(true);
        for _ in 0..GAIN {
            assert!(habit.is_on());
            habit.learn(false);
        }
        let tried = (0..10 * PROBE_EVERY).filter(|_| habit.is_on());
        assert_eq!(tried.count() as u64, 10);
        (0..100).for_each(|_| habit.learn(true));
        let lost = (0..100).take_while(|_| {
            habit.learn(false);
            habit.confidence.load(Ordering::Relaxed) > 0
        });
        assert_eq!(lost.count() as u64, CONFIDENCE_MAX - 1, "soon, however well it went before");
    }
}
