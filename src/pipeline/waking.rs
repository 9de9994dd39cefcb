//! The wake-ups after a flush, for a large group by a worker of the runtime.
//!
//! A thread outside of the runtime passes each woken task through a queue that all threads share,
//! and may have to wake a worker each time. A worker passes it to its own queue, from which the
//! others take. So for a large group the sync job starts one task, which wakes the others.
//!
//! The workers may all be blocked, or the runtime may be shutting down. So the job keeps the list
//! too. It wakes the tasks itself if no worker has begun by the time the job continues.

use std::{mem, sync::Arc, task::Waker};

use crate::{
    pipeline::{core::Core, state::wakers::wake_each},
    sync::{LockAlways, Mutex},
};

/// The smallest group that a worker wakes. To start the task costs about as much as to wake two.
const GROUP_MIN: usize = 16;

/// Tasks that a flush has to wake. The first holder that is dropped wakes them.
#[derive(Clone, Debug)]
pub(super) struct Waking(Arc<Mutex<Vec<Waker>>>);

impl Drop for Waking {
    fn drop(&mut self) {
        let wakers = mem::take(&mut *self.0.lock_always());
        wake_each(wakers);
    }
}

/// Wakes the tasks, or has a worker wake them. Call it without any lock held, and drop the result
/// soon.
pub(super) fn wake(core: &Core, wakers: Vec<Waker>) -> Option<Waking> {
    if wakers.len() < GROUP_MIN {
        wake_each(wakers);
        return None;
    }
    let waking = Waking(Arc::new(Mutex::new(wakers)));
    let by_worker = waking.clone();
    // If no worker runs the task, its drop wakes them now.
    core.executor().run_on_worker(Box::new(move || drop(by_worker)));
    Some(waking)
}
