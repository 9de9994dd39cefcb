//! Where a thread of the log may have to wait for another one: the seam that lets a simulation
//! decide, by seed, who runs. Without the feature `simulation` these are std's calls.

use std::{
    sync::{LockResult, PoisonError},
    time::Duration,
};

use crate::sync::{Condvar, Mutex, MutexGuard};

#[cfg(feature = "simulation")]
pub(crate) use simulated::{Turns, enter, pass, simulated};

/// Locks a mutex under which I/O runs. In a simulation whoever holds it may be waiting for a turn,
/// which a thread that blocked here would never give.
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

/// Waits for a change that is told through `changed`, which may take I/O; as `Condvar::wait` does.
pub(crate) fn wait_over_io<'a, T>(
    changed: &Condvar,
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
) -> MutexGuard<'a, T> {
    #[cfg(feature = "simulation")]
    if let Some(turns) = simulated() {
        drop(guard);
        let _ = turns.wait();
        return mutex.lock().unwrap_or_else(PoisonError::into_inner);
    }
    let _ = mutex;
    changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits a while for what another thread does.
pub(crate) fn pause(time: Duration) {
    #[cfg(feature = "simulation")]
    if let Some(turns) = simulated() {
        // There is no clock: everybody else has some turns.
        (0..16).all(|_| turns.rest());
        return;
    }
    crate::sync::sleep(time);
}

#[cfg(feature = "simulation")]
mod simulated {
    use std::{cell::RefCell, sync::Arc};

    /// Who runs next, among the threads of a simulation.
    pub(crate) trait Turns {
        /// Lets another thread run, or not.
        fn pass(&self);

        /// Lets another thread run: the caller can't go on before one has. `false` if nobody decides
        /// any more, as the simulation is over: the caller waits for itself.
        fn wait(&self) -> bool;

        /// Lets others run, if there are any; `false` as above.
        fn rest(&self) -> bool {
            self.wait()
        }
    }

    thread_local! {
        static TURNS: RefCell<Option<Arc<dyn Turns>>> = const { RefCell::new(None) };
    }

    /// The simulation that the caller's thread is part of.
    pub(crate) fn simulated() -> Option<Arc<dyn Turns>> {
        // A thread that ends has no simulation any more.
        TURNS.try_with(|turns| turns.borrow().clone()).ok().flatten()
    }

    /// A point at which the simulation, if there is one, may let another thread run.
    pub(crate) fn pass() {
        if let Some(turns) = simulated() {
            turns.pass();
        }
    }

    /// Makes the caller's thread a part of a simulation, or of none; gives what it was before.
    pub(crate) fn enter(turns: Option<Arc<dyn Turns>>) -> Option<Arc<dyn Turns>> {
        TURNS.with(|current| current.replace(turns))
    }
}
