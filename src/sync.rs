//! Synchronization primitives: those of std, or of loom or shuttle under their `cfg`.
//!
//! Shuttle runs all threads on one thread. A primitive that can block must therefore come from this
//! module, because a blocked std primitive would stop every thread. The primitives of tokio and
//! `OnceLock` are exempt, because they hold no lock across a scheduling point.

use std::{
    ops::Deref,
    sync::{
        PoisonError,
        atomic::{AtomicU64 as Plain, Ordering as PlainOrdering},
    },
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};
#[cfg(loom)]
pub(crate) use loom::thread::yield_now;
#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{
        Condvar, Mutex, MutexGuard, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    thread::{sleep, yield_now},
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};
#[cfg(not(shuttle))]
pub(crate) use std::thread::sleep;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::thread::yield_now;

/// Locks a mutex whether or not it is poisoned.
///
/// Use it if a panic under the lock leaves the data whole. Implemented for the mutex of std and for
/// the one that this module exports.
pub(crate) trait LockAlways {
    /// The guard of this kind of mutex.
    type Guard<'a>
    where
        Self: 'a;

    /// Blocks until the mutex is free and locks it.
    fn lock_always(&self) -> Self::Guard<'_>;
}

/// Locks a reader-writer lock whether or not it is poisoned; see [`LockAlways`].
pub(crate) trait ReadWriteAlways {
    /// The shared guard of this kind of lock.
    type ReadGuard<'a>
    where
        Self: 'a;

    /// The exclusive guard of this kind of lock.
    type WriteGuard<'a>
    where
        Self: 'a;

    /// Blocks until no thread has the exclusive lock and takes the shared one.
    fn read_always(&self) -> Self::ReadGuard<'_>;

    /// Blocks until the lock is free and takes it exclusively.
    fn write_always(&self) -> Self::WriteGuard<'_>;
}

/// Waits for a condition variable whether or not its mutex is poisoned; see [`LockAlways`].
pub(crate) trait WaitAlways {
    /// The guard of the mutex that belongs to this kind of condition variable.
    type Guard<'a, T: 'a>;

    /// Unlocks the mutex, blocks until notified, and locks the mutex again.
    fn wait_always<'a, T>(&self, guard: Self::Guard<'a, T>) -> Self::Guard<'a, T>;
}

/// Implements the three traits for the primitives of one module.
macro_rules! impl_always {
    ($($module:ident)::+) => {
        impl<T> LockAlways for $($module)::+::Mutex<T> {
            type Guard<'a>
                = $($module)::+::MutexGuard<'a, T>
            where
                Self: 'a;

            fn lock_always(&self) -> Self::Guard<'_> {
                self.lock().unwrap_or_else(PoisonError::into_inner)
            }
        }

        impl<T> ReadWriteAlways for $($module)::+::RwLock<T> {
            type ReadGuard<'a>
                = $($module)::+::RwLockReadGuard<'a, T>
            where
                Self: 'a;
            type WriteGuard<'a>
                = $($module)::+::RwLockWriteGuard<'a, T>
            where
                Self: 'a;

            fn read_always(&self) -> Self::ReadGuard<'_> {
                self.read().unwrap_or_else(PoisonError::into_inner)
            }

            fn write_always(&self) -> Self::WriteGuard<'_> {
                self.write().unwrap_or_else(PoisonError::into_inner)
            }
        }

        impl WaitAlways for $($module)::+::Condvar {
            type Guard<'a, T: 'a> = $($module)::+::MutexGuard<'a, T>;

            fn wait_always<'a, T>(&self, guard: Self::Guard<'a, T>) -> Self::Guard<'a, T> {
                self.wait(guard).unwrap_or_else(PoisonError::into_inner)
            }
        }
    };
}

impl_always!(std::sync);
#[cfg(loom)]
impl_always!(loom::sync);
#[cfg(shuttle)]
impl_always!(shuttle::sync);

/// A number that is read and written without a lock or an ordering.
///
/// Correctness must not depend on the number: every possible value must lead to a right result.
/// Loom and shuttle do not see it.
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

/// Adds to a counter that no other thread changes meanwhile. Other threads may read it.
///
/// Cheaper than an atomic addition, of which an append in place would make several.
#[inline]
pub(crate) fn add_alone(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// A value that shares its cache lines with no other.
///
/// A core that stores it often does not slow down the readers of neighbouring values. The alignment
/// is two lines of 64 bytes, because processors prefetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
