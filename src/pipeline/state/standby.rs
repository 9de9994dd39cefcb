//! A thread that has finished its job and stays for the next one.
//!
//! A trip to the pool takes a lock of the pool, an allocation, and the choice of a thread. A thread
//! that stays is woken directly. It stays for a moment only, and only if that pays: see
//! [`Habit`]. It holds nothing of the log meanwhile, so it delays neither a close nor the next
//! open.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use crate::{
    pipeline::state::habit::{Habit, STAYING},
    sync::{Hint, LockAlways, Mutex},
};

/// A thread stays for at most this long. A pool with few threads lacks it for as long.
const STAY: Duration = Duration::from_millis(1);

/// After this many tasks the thread returns to its pool, which may have other work for it, or may
/// be shutting down.
const TASKS_MAX: u32 = 16;

/// Returns whether the thread should stay afterwards.
pub(crate) type Task = Box<dyn FnOnce() -> bool + Send>;

/// The place of the thread that stays. There is one at most.
pub(crate) struct Standby {
    state: Mutex<State>,
    /// 1 while a thread stays, so that a caller usually needs no lock to learn that none does.
    is_taken: Hint,
    habit: Habit,
}

#[derive(Default)]
struct State {
    /// The thread that stays and was not called yet.
    thread: Option<thread::Thread>,
    /// The task for the thread that was called.
    task: Option<Task>,
}

impl fmt::Debug for Standby {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standby").field("is_taken", &self.is_taken).finish_non_exhaustive()
    }
}

impl Standby {
    pub(crate) fn new() -> Self {
        Standby {
            state: Mutex::new(State::default()),
            is_taken: Hint::default(),
            habit: Habit::new(STAYING),
        }
    }

    /// Returns whether a thread probably stays.
    pub(crate) fn is_taken(&self) -> bool {
        self.is_taken.get() == 1
    }

    /// Returns whether staying is worth it this time.
    pub(crate) fn takes(&self) -> bool {
        self.habit.takes()
    }

    /// Has the thread that stays run `task`.
    ///
    /// # Errors
    ///
    /// Returns the task if no thread stays.
    pub(crate) fn call(&self, task: Task) -> Result<(), Task> {
        let thread = {
            let mut state = self.state.lock_always();
            match state.thread.take() {
                None => return Err(task),
                Some(thread) => {
                    state.task = Some(task);
                    thread
                }
            }
        };
        thread.unpark();
        Ok(())
    }

    /// Stays, and runs the tasks of callers, until none comes or a task returns `false`.
    pub(crate) fn stand_by(&self) {
        for _ in 0..TASKS_MAX {
            let Some(task) = self.wait() else { return };
            self.habit.learn(true);
            if !task() {
                return;
            }
        }
    }

    /// Waits for a task. Returns `None` if none comes, or if another thread stays already.
    fn wait(&self) -> Option<Task> {
        {
            let mut state = self.state.lock_always();
            // A task that is there belongs to a thread that was called and has not taken it yet.
            if state.thread.is_some() || state.task.is_some() {
                return None;
            }
            state.thread = Some(thread::current());
            self.is_taken.set(1);
        }
        let until = Instant::now() + STAY;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                thread::park_timeout(left);
            }
            let mut state = self.state.lock_always();
            let task = state.task.take();
            if task.is_some() || left.is_zero() {
                state.thread = None;
                self.is_taken.set(0);
                if task.is_none() {
                    self.habit.learn(false);
                }
                return task;
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    fn standing(standby: &Arc<Standby>) -> thread::JoinHandle<()> {
        let mine = Arc::clone(standby);
        thread::spawn(move || mine.stand_by())
    }

    #[test]
    fn only_a_thread_that_stays_is_called() {
        let standby = Arc::new(Standby::new());
        assert!(standby.call(Box::new(|| false)).is_err());
        let ran = Arc::new(AtomicUsize::new(0));
        let thread = standing(&standby);
        let mut called_count = 0;
        while !thread.is_finished() {
            let ran = Arc::clone(&ran);
            let task = move || ran.fetch_add(1, Ordering::Relaxed) < 100;
            called_count += usize::from(standby.call(Box::new(task)).is_ok());
        }
        thread.join().unwrap();
        assert_eq!(ran.load(Ordering::Relaxed), called_count, "each accepted task ran once");
        assert!(standby.call(Box::new(|| false)).is_err());
        assert!(!standby.is_taken());
    }

    #[test]
    fn thread_leaves_after_a_moment() {
        let standby = Arc::new(Standby::new());
        standing(&standby).join().unwrap();
        assert!(standby.call(Box::new(|| false)).is_err());
    }

    /// Otherwise a pool of one thread could do nothing else while commits follow each other.
    #[test]
    fn thread_returns_to_its_pool_after_many_tasks() {
        let standby = Arc::new(Standby::new());
        let thread = standing(&standby);
        let began = Instant::now();
        let mut called_count = 0;
        while !thread.is_finished() && began.elapsed() < Duration::from_secs(10) {
            called_count += u32::from(standby.call(Box::new(|| true)).is_ok());
        }
        thread.join().unwrap();
        assert!(called_count <= TASKS_MAX, "{called_count}");
    }

    #[test]
    fn accepted_tasks_run_among_many_threads() {
        let (standby, ran) = (Arc::new(Standby::new()), Arc::new(AtomicUsize::new(0)));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (standby, ran) = (Arc::clone(&standby), Arc::clone(&ran));
                thread::spawn(move || {
                    (0..200).fold(0, |called_count, _| {
                        let ran = Arc::clone(&ran);
                        let task = move || ran.fetch_add(1, Ordering::Relaxed) % 3 > 0;
                        let is_called = standby.call(Box::new(task)).is_ok();
                        standby.stand_by();
                        called_count + usize::from(is_called)
                    })
                })
            })
            .collect();
        let called_count: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(ran.load(Ordering::Relaxed), called_count);
    }
}
