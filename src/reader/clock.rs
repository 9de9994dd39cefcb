//! The clock of those who poll: a small thread, there for as long as somebody waits. It needs no
//! time driver of a runtime and holds none of its threads.

use std::{
    sync::{Arc, PoisonError},
    task::Waker,
    thread,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    sync::Mutex,
    wal::has_clock,
};

#[derive(Debug)]
pub(super) struct Clock {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_running: bool,
    tick_count: u64,
    waiting: Vec<Waker>,
}

impl Clock {
    pub(super) fn new(interval: Duration) -> Self {
        Clock { interval, state: Mutex::default() }
    }

    /// Has `waker` woken at the end of an interval that begins now or has begun, and says how many
    /// have ended by now.
    pub(super) fn register(self: &Arc<Self>, waker: &Waker) -> Result<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !has_clock() {
            // A simulation's time passes with each turn.
            state.tick_count += 1;
            waker.wake_by_ref();
            return Ok(state.tick_count - 1);
        }
        if !state.waiting.iter().any(|other| other.will_wake(waker)) {
            state.waiting.push(waker.clone());
        }
        if !state.is_running {
            let clock = Arc::clone(self);
            let thread = thread::Builder::new().name("highwater-follow".to_owned());
            thread.spawn(move || while clock.tick() {}).map_err(|error| {
                Error::io("starting the thread of a follower", "its clock", None, error)
            })?;
            state.is_running = true;
        }
        Ok(state.tick_count)
    }

    /// How many intervals have ended.
    pub(super) fn tick_count(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).tick_count
    }

    /// Waits for an interval and wakes who waits; `false` if that is nobody.
    fn tick(&self) -> bool {
        thread::sleep(self.interval);
        let waiting = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.tick_count += 1;
            state.is_running = !state.waiting.is_empty();
            std::mem::take(&mut state.waiting)
        };
        let goes_on = !waiting.is_empty();
        waiting.into_iter().for_each(Waker::wake);
        goes_on
    }
}
