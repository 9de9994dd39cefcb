//! The schedule of a simulation: which task or worker runs next. A seed decides.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, Weak},
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    executor::Watchable,
    simulation::{
        random::Random,
        tasks::{MAIN, TaskId},
        worker::{Baton, Worker},
    },
    sync::LockAlways,
};

/// The number of attempts in a row that may fail to make progress. More of them are a deadlock.
const WAITS_MAX: u32 = 10_000;

/// The schedule, shared by all threads of a simulation.
pub(super) struct Schedule {
    state: Mutex<ScheduleState>,
    /// Held by the thread that schedules.
    pub(super) main: Baton,
    /// The sabotage that is switched on in all threads.
    #[cfg(feature = "__sabotage")]
    pub(super) sabotage: Option<crate::sabotage::Sabotage>,
}

pub(super) struct ScheduleState {
    random: Random,
    /// Tasks that were woken.
    pub(super) ready: BTreeSet<TaskId>,
    /// Workers that wait for a turn.
    pub(super) runnable: Vec<Arc<Worker>>,
    /// Workers without a job.
    pub(super) idle: Vec<Arc<Worker>>,
    pub(super) threads: Vec<JoinHandle<()>>,
    waits_in_a_row: u32,
    /// The logs that have calls in flight.
    watched: Vec<Weak<dyn Watchable>>,
    /// The time that has passed, as the test decides.
    now: Duration,
    /// True once no new job may begin. Jobs that have begun still run to their end, one step at a
    /// time.
    pub(super) is_ending: bool,
    /// True once no more turns are given. The threads then run concurrently.
    is_over: bool,
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").finish_non_exhaustive()
    }
}

/// The holder of the next turn.
pub(super) enum NextTurn {
    Task(TaskId),
    Worker(Arc<Worker>),
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        let state = ScheduleState {
            random: Random::new(seed),
            ready: BTreeSet::from([MAIN]),
            runnable: Vec::new(),
            idle: Vec::new(),
            threads: Vec::new(),
            waits_in_a_row: 0,
            watched: Vec::new(),
            now: Duration::ZERO,
            is_ending: false,
            is_over: false,
        };
        Schedule {
            state: Mutex::new(state),
            main: Baton::default(),
            #[cfg(feature = "__sabotage")]
            sabotage: crate::sabotage::current(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, ScheduleState> {
        self.state.lock_always()
    }

    /// Has a log checked whenever time passes.
    pub(super) fn watch(&self, watchable: Weak<dyn Watchable>) {
        self.state().watched.push(watchable);
    }

    /// Lets `time` pass: each call that is in flight now has taken that much longer.
    pub(super) fn pass_time(&self, time: Duration) {
        self.check_watched();
        {
            let mut state = self.state();
            state.now = state.now.saturating_add(time);
        }
        self.check_watched();
    }

    /// Checks the logs that have calls in flight. A check may wake tasks, so it needs the lock.
    fn check_watched(&self) {
        let (watched, now) = {
            let mut state = self.state();
            (std::mem::take(&mut state.watched), state.now)
        };
        let is_watched =
            |log: &Weak<dyn Watchable>| log.upgrade().is_some_and(|log| log.check(now).is_some());
        let watched: Vec<_> = watched.into_iter().filter(is_watched).collect();
        self.state().watched.extend(watched);
    }

    /// Draws the next turn among all ready tasks and runnable workers; `None` if there are none.
    pub(super) fn draw(&self) -> Option<NextTurn> {
        let mut state = self.state();
        assert!(state.waits_in_a_row < WAITS_MAX, "deadlock: all threads wait for each other");
        let ScheduleState { random, ready, runnable, .. } = &mut *state;
        let drawn = random.below(ready.len() + runnable.len());
        if let Some(id) = ready.iter().nth(drawn).copied() {
            ready.remove(&id);
            state.waits_in_a_row = 0;
            return Some(NextTurn::Task(id));
        }
        let place = drawn - ready.len();
        (place < runnable.len()).then(|| NextTurn::Worker(runnable.remove(place)))
    }

    /// Draws the next turn at the end, when only jobs that have begun are left.
    pub(super) fn draw_last(&self) -> Option<Arc<Worker>> {
        let mut state = self.state();
        let ScheduleState { random, runnable, waits_in_a_row, .. } = &mut *state;
        let place = random.below(runnable.len());
        (place < runnable.len() && *waits_in_a_row < WAITS_MAX).then(|| runnable.remove(place))
    }

    /// Draws a worker that runs in the middle of a task's poll; `None` if the task continues.
    pub(super) fn draw_beside_task(&self) -> Option<Arc<Worker>> {
        let ScheduleState { random, runnable, .. } = &mut *self.state();
        let count = runnable.len();
        let place = if count == 0 { 0 } else { random.below(count + 1) };
        (place < count).then(|| runnable.remove(place))
    }

    /// Draws the worker that runs while a task blocks.
    ///
    /// # Panics
    ///
    /// If no worker can end the wait.
    pub(super) fn draw_for_blocked_task(&self) -> Arc<Worker> {
        let mut state = self.state();
        state.waits_in_a_row += 1;
        let (waits, count) = (state.waits_in_a_row, state.runnable.len());
        if count == 0 || waits > WAITS_MAX {
            panic!("deadlock: a task blocks, and no job of the log can end that");
        }
        let place = state.random.below(count);
        state.runnable.remove(place)
    }

    /// Runs a worker for one turn.
    pub(super) fn step(&self, worker: &Worker) {
        worker.baton.give();
        self.main.wait();
    }

    /// Returns whether the worker must give up its turn. It competes with all ready tasks and
    /// runnable workers.
    pub(super) fn let_others_run(&self, worker: &Arc<Worker>) -> bool {
        let mut state = self.state();
        state.waits_in_a_row = 0;
        // While the simulation ends, no task is left.
        let ready = if state.is_ending { 0 } else { state.ready.len() };
        let others = ready + state.runnable.len();
        let yields = !state.is_over && state.random.below(others + 1) != 0;
        if yields {
            state.runnable.push(Arc::clone(worker));
        }
        yields
    }

    /// As [`Schedule::let_others_run`], for a worker that cannot continue. Returns `false` once
    /// the simulation is over, because the threads then run concurrently.
    pub(super) fn must_let_others_run(&self, worker: &Arc<Worker>) -> bool {
        let mut state = self.state();
        if state.is_over {
            return false;
        }
        state.waits_in_a_row += 1;
        state.runnable.push(Arc::clone(worker));
        true
    }

    /// Notes that a worker has done its job. Returns whether it stays for more.
    pub(super) fn is_idle_again(&self, worker: &Arc<Worker>) -> bool {
        let mut state = self.state();
        if !state.is_over {
            state.waits_in_a_row = 0;
            state.idle.push(Arc::clone(worker));
        }
        !state.is_over
    }

    /// Stops new jobs. Returns the workers whose job has not begun; they are idle from now on.
    pub(super) fn begin_ending(&self) -> Vec<Arc<Worker>> {
        let mut state = self.state();
        state.is_ending = true;
        state.waits_in_a_row = 0;
        let ScheduleState { runnable, idle, .. } = &mut *state;
        let (unbegun, begun): (Vec<_>, _) =
            runnable.drain(..).partition(|worker| worker.has_work());
        *runnable = begun;
        idle.extend(unbegun.iter().cloned());
        unbegun
    }

    /// Ends the turns: all workers run concurrently and end. Returns their threads.
    pub(super) fn end(&self) -> Vec<JoinHandle<()>> {
        let (runnable, idle, threads) = {
            let mut state = self.state();
            state.is_over = true;
            let ScheduleState { runnable, idle, threads, .. } = &mut *state;
            (std::mem::take(runnable), std::mem::take(idle), std::mem::take(threads))
        };
        runnable.iter().chain(&idle).for_each(|worker| worker.baton.give());
        threads
    }
}
