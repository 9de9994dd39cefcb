//! Points at which a thread of the log may wait for another thread. A simulation decides there, by
//! seed, which thread runs. Without the feature `simulation` these are calls of std.

use std::{
    sync::{LockResult, PoisonError},
    time::Duration,
};

#[cfg(feature = "simulation")]
use crate::sync::LockAlways;
use crate::sync::{Condvar, Mutex, MutexGuard, WaitAlways};

#[cfg(feature = "simulation")]
pub(crate) use simulated::{Turns, enter, pass, simulated};

/// Locks a mutex that is held during I/O. In a simulation the holder may be waiting for a turn.
/// Then this thread must not block, because it would never give up its own turn.
pub(crate) fn lock_over_io<T>(mutex: &Mutex<T>) -> LockResult<MutexGuard<'_, T>> {
    #[cfg(feature = "simulation")]
    if let Some(turns) = simulated() {
        while let Err(std::sync::TryLockError::WouldBlock) = mutex.try_lock() {
            if !turns.wait() {
                break;
            }
        }
    }
    mutex.lock()
}

/// As [`lock_over_io`], whether or not the mutex is poisoned.
pub(crate) fn lock_always_over_io<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    lock_over_io(mutex).unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `changed` is notified, which may take I/O. Otherwise as `Condvar::wait`.
pub(crate) fn wait_over_io<'a, T>(
    changed: &Condvar,
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
) -> MutexGuard<'a, T> {
    #[cfg(feature = "simulation")]
    if let Some(turns) = simulated() {
        drop(guard);
        let _ = turns.wait();
        return mutex.lock_always();
    }
    let _ = mutex;
    changed.wait_always(guard)
}

/// Lets other threads run. One of them must finish a step of a few instructions.
pub(crate) fn yield_now() {
    #[cfg(feature = "simulation")]
    if let Some(turns) = simulated() {
        turns.rest();
        return;
    }
    crate::sync::yield_now();
}

/// Waits `time` for the progress of another thread.
pub(crate) fn pause(time: Duration) {
    #[cfg(feature = "simulation")]
    if let Some(turns) = simulated() {
        // There is no clock: the other threads get 16 turns.
        (0..16).all(|_| turns.rest());
        return;
    }
    crate::sync::sleep(time);
}

#[cfg(feature = "simulation")]
mod simulated {
    use std::{cell::RefCell, sync::Arc};

    /// The schedule of a simulation's threads, as seen by one thread.
    pub(crate) trait Turns {
        /// Lets another thread run, by chance.
        fn pass(&self);

        /// Lets another thread run, because the caller cannot continue before one has. Returns
        /// `false` if the simulation is over: then the caller itself has to wait.
        fn wait(&self) -> bool;

        /// Lets other threads run if there are any. Returns `false` as [`wait`](Turns::wait) does.
        fn rest(&self) -> bool {
            self.wait()
        }
    }

    thread_local! {
        static TURNS: RefCell<Option<Arc<dyn Turns>>> = const { RefCell::new(None) };
    }

    /// Returns the simulation that the calling thread is part of.
    pub(crate) fn simulated() -> Option<Arc<dyn Turns>> {
        // A thread that is ending has dropped its thread-local.
        TURNS.try_with(|turns| turns.borrow().clone()).ok().flatten()
    }

    /// Lets another thread run by chance, if a simulation runs.
    pub(crate) fn pass() {
        if let Some(turns) = simulated() {
            turns.pass();
        }
    }

    /// Makes the calling thread part of a simulation, or of none. Returns the previous value.
    pub(crate) fn enter(turns: Option<Arc<dyn Turns>>) -> Option<Arc<dyn Turns>> {
        TURNS.with(|current| current.replace(turns))
    }
}
