//! Lingering: a job that has run out of work looks for more for a moment before it leaves.
//!
//! A hop to a parked thread costs 25–35 µs, most of it the processor's way out of its sleep. A job
//! that stays for about as long finds the next append of a busy log without one, and costs at most
//! what the hop would have: the rule of spinning for as long as blocking costs (Karlin, Li, Manasse
//! and Owicki, "Empirical studies of competitive spinning for a shared-memory multiprocessor", 1991).
//!
//! Where it doesn't pay it isn't done: each time in vain makes the next less likely, until only one
//! in [`PROBE_EVERY`] departures tries again. A log on which nothing happens has no job, and so
//! nobody who lingers.

use std::time::{Duration, Instant};

use crate::sync::{AtomicU64, Ordering};

/// About the cost of a hop.
const LINGER: Duration = Duration::from_micros(40);

/// So many looks between two at the clock.
const LOOKS: u32 = 8;

/// Confidence gained by one success, lost by one failure, and its highest value: a log that was
/// busy is tried so many times in vain before it counts as idle.
const GAIN: u64 = 2;
const CONFIDENCE_MAX: u64 = 16;

/// Without confidence, one departure of so many is used to find out whether it would pay.
const PROBE_EVERY: u64 = 32;

/// What one kind of job has learned. Only that job changes it, and there is one at a time.
#[derive(Debug)]
pub(super) struct Linger {
    confidence: AtomicU64,
    departures: AtomicU64,
}

impl Linger {
    pub(super) fn new() -> Self {
        Linger { confidence: AtomicU64::new(0), departures: AtomicU64::new(0) }
    }

    /// Whether work came while the caller stayed, if it stayed at all.
    pub(super) fn found(&self, is_wanted: impl Fn() -> bool) -> bool {
        let confidence = self.confidence.load(Ordering::Relaxed);
        if confidence == 0 {
            let departures = self.departures.load(Ordering::Relaxed);
            self.departures.store(departures.wrapping_add(1), Ordering::Relaxed);
            if departures % PROBE_EVERY != 0 {
                return false;
            }
        }
        let found = spin(is_wanted);
        let confidence = match found {
            true => (confidence + GAIN).min(CONFIDENCE_MAX),
            false => confidence.saturating_sub(1),
        };
        self.confidence.store(confidence, Ordering::Relaxed);
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
