//! The clock of followers that poll: a thread that runs while a follower waits.
//!
//! The thread needs no time driver and occupies no thread of a runtime. On request, the clock is
//! the timer of the runtime instead.

use std::{sync::Arc, task::Waker, thread, time::Duration};

use crate::{
    error::{Error, Result},
    pipeline::wake_each,
    sync::{LockAlways, Mutex, MutexGuard},
    wal::has_clock,
};

#[derive(Debug)]
pub(super) struct Clock {
    interval: Duration,
    uses_runtime: bool,
    state: Mutex<ClockState>,
}

#[derive(Debug, Default)]
struct ClockState {
    is_running: bool,
    tick_count: u64,
    waiting: Vec<Waker>,
}

impl Clock {
    pub(super) fn new(interval: Duration, uses_runtime: bool) -> Self {
        Clock { interval, uses_runtime, state: Mutex::default() }
    }

    /// No user code may run under this lock.
    fn state(&self) -> MutexGuard<'_, ClockState> {
        self.state.lock_always()
    }

    /// Returns a sleep of one interval if the runtime's clock is used. A simulation has no clock.
    pub(super) fn sleep(&self) -> Option<tokio::time::Sleep> {
        (self.uses_runtime && has_clock()).then(|| tokio::time::sleep(self.interval))
    }

    /// Registers `waker` for the end of the current interval, and starts the thread if necessary.
    ///
    /// Returns the number of intervals that have ended.
    pub(super) fn register(self: &Arc<Self>, waker: &Waker) -> Result<u64> {
        if !has_clock() {
            // In a simulation, each call counts as an interval.
            let tick_count = {
                let mut state = self.state();
                state.tick_count += 1;
                state.tick_count - 1
            };
            waker.wake_by_ref();
            return Ok(tick_count);
        }
        let mut mine = Some(waker.clone());
        let mut state = self.state();
        if !state.waiting.iter().any(|other| other.will_wake(waker)) {
            state.waiting.extend(mine.take());
        }
        if !state.is_running {
            let clock = Arc::clone(self);
            let thread = thread::Builder::new().name("highwater-follow".to_owned());
            thread.spawn(move || while clock.tick() {}).map_err(|error| {
                Error::io("starting the thread of a follower", "its clock", None, error)
            })?;
            state.is_running = true;
        }
        let tick_count = state.tick_count;
        drop(state);
        drop(mine);
        Ok(tick_count)
    }

    /// Returns the number of intervals that have ended.
    pub(super) fn tick_count(&self) -> u64 {
        self.state().tick_count
    }

    /// Waits for an interval and wakes the waiting tasks. Returns `false` if there were none.
    fn tick(&self) -> bool {
        thread::sleep(self.interval);
        let waiting = {
            let mut state = self.state();
            state.tick_count += 1;
            state.is_running = !state.waiting.is_empty();
            std::mem::take(&mut state.waiting)
        };
        let continues = !waiting.is_empty();
        wake_each(waiting);
        continues
    }
}
