//! The synchronisation primitives of all that runs beside something else: std's, or those of loom or
//! shuttle when they choose the interleavings.
//!
//! Under shuttle everything that can wait for another thread has to come from here, else it stops
//! the one thread that shuttle runs all others on. What tokio's primitives and `OnceLock` hold
//! inside is never held across a scheduling point, so those stay as they are.

use std::{
    ops::Deref,
    sync::atomic::{AtomicU64 as Plain, Ordering as PlainOrdering},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};
#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{
        Condvar, Mutex, MutexGuard, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    thread::sleep,
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};
#[cfg(not(shuttle))]
pub(crate) use std::thread::sleep;

/// A number for those who look without a lock, and rely on nothing: whatever is chosen by it is right
/// either way. So neither loom nor shuttle look at it.
#[derive(Debug, Default)]
pub(crate) struct Hint(Plain);

impl Hint {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(PlainOrdering::Relaxed)
    }

    pub(crate) fn set(&self, to: u64) {
        self.0.store(to, PlainOrdering::Relaxed);
    }
}

/// A value with cache lines of its own: what one core stores often doesn't slow down what others
/// read beside it. Two lines of 64 bytes, as processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
