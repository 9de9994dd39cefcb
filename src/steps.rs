//! Counts the steps of searches, for tests and fuzz targets.
//!
//! A search must take no more steps than files and bytes allow, whatever the files say. Steps are
//! counted instead of time, because a slow machine must not change the verdict. Only the feature
//! `__sabotage` and fuzzing count; without them these functions are empty.

#[cfg(any(feature = "__sabotage", fuzzing))]
mod counted {
    use std::cell::Cell;

    thread_local! {
        static TAKEN: Cell<u64> = const { Cell::new(0) };
        static LIMIT: Cell<u64> = const { Cell::new(u64::MAX) };
    }

    pub(super) fn count(steps: u64) {
        let taken = TAKEN.get().saturating_add(steps);
        TAKEN.set(taken);
        assert!(taken <= LIMIT.get(), "a search takes more than {} steps", LIMIT.get());
    }

    /// Runs `work` and returns its result with the steps that it took on this thread.
    ///
    /// # Panics
    ///
    /// If the work takes more than `limit` steps, so that a search without a bound ends.
    pub fn within<T>(limit: u64, work: impl FnOnce() -> T) -> (T, u64) {
        TAKEN.set(0);
        LIMIT.set(limit);
        let done = work();
        LIMIT.set(u64::MAX);
        (done, TAKEN.get())
    }
}

#[cfg(any(feature = "__sabotage", fuzzing))]
pub use counted::within;

/// Counts steps of a search: positions tried, frames walked or headers compared.
#[inline]
pub(crate) fn count(steps: u64) {
    #[cfg(any(feature = "__sabotage", fuzzing))]
    counted::count(steps);
    #[cfg(not(any(feature = "__sabotage", fuzzing)))]
    let _ = steps;
}
