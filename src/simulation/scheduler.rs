//! Who runs next: a seed decides.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fmt,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    thread::JoinHandle,
};

use crate::{
    executor::{self, Executor},
    simulation::{
        fault::lock,
        random::Random,
        tasks::{MAIN, Spawning, TaskId, Tasks},
        worker::{Baton, Worker},
    },
    turn::{self, Turns},
};

/// So many vain attempts in a row to get on: whoever waits would wait for ever.
const WAITS_MAX: u32 = 10_000;

/// Runs futures, and the work that logs opened by them do on other threads, one step at a time in
/// an order that follows from a seed.
///
/// A step of a task is one poll; a step of the log's work reaches to its next operation on a
/// [`Disk`](crate::simulation::Disk) or a storage with [`Faults`](crate::simulation::Faults), or to
/// where it would block. So flushes overlap writes, appends and each other as on real threads, and
/// the same seed gives the same order again. There is no clock: tokio's time doesn't run, what
/// needs it panics.
///
/// ```
/// use highwater::{Wal, simulation::{self, Disk, Simulation}};
///
/// let synced = Simulation::new(3).run(async {
///     let wal = Wal::options().open_with(Disk::new(3)).await?;
///     let other = wal.clone();
///     let task = simulation::spawn(async move { other.append_and_sync("from a task").await });
///     wal.append_and_sync("from here").await?;
///     task.await.expect("it was not aborted")?;
///     Ok::<_, highwater::Error>(wal.watermarks().synced)
/// })?;
/// assert!(synced.as_u64() > 0);
/// # Ok::<_, highwater::Error>(())
/// ```
#[derive(Debug)]
pub struct Simulation {
    shared: Arc<Shared>,
}

/// What all threads of a simulation share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Had by the thread that schedules.
    pub(super) main: Baton,
    /// The mistake to be made on all threads.
    #[cfg(feature = "__sabotage")]
    pub(super) sabotage: Option<crate::sabotage::Sabotage>,
}

struct State {
    random: Random,
    /// Tasks that were woken.
    ready: BTreeSet<TaskId>,
    /// Workers that wait for a turn.
    runnable: Vec<Arc<Worker>>,
    /// Workers without work.
    idle: Vec<Arc<Worker>>,
    threads: Vec<JoinHandle<()>>,
    waits_in_a_row: u32,
    /// Nothing new begins; what has begun is finished, still one step at a time.
    is_ending: bool,
    /// Nobody decides any more: the threads run beside each other.
    is_over: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

enum Step {
    Task(TaskId),
    Worker(Arc<Worker>),
}

impl Simulation {
    /// The simulation of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: Random::new(seed),
            ready: BTreeSet::from([MAIN]),
            runnable: Vec::new(),
            idle: Vec::new(),
            threads: Vec::new(),
            waits_in_a_row: 0,
            is_ending: false,
            is_over: false,
        };
        Simulation {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                main: Baton::default(),
                #[cfg(feature = "__sabotage")]
                sabotage: crate::sabotage::current(),
            }),
        }
    }

    /// Runs a future to its end, and with it the tasks that it spawns. Then, as when a runtime is
    /// dropped: tasks that haven't ended are dropped, work that hasn't begun is, and what has begun
    /// is finished.
    ///
    /// # Panics
    ///
    /// If everybody waits for something that never comes, within another simulation, and as the
    /// futures do.
    pub fn run<F: Future>(self, future: F) -> F::Output {
        let shared = &self.shared;
        let _entered = enter(shared, Arc::new(MainTurns(Arc::clone(shared))));
        let _spawning = Spawning::begin();
        // Dropped in the reverse order: tasks, then the threads' work, then what they look up.
        let _ending = Ending(shared);
        let mut main = pin!(future);
        let mut tasks = Tasks::default();
        loop {
            match shared.draw() {
                Some(Step::Task(id)) => {
                    let waker = Waker::from(Arc::new(Woken { id, shared: Arc::clone(shared) }));
                    let mut context = Context::from_waker(&waker);
                    if id != MAIN {
                        tasks.poll(id, &mut context);
                    } else if let Poll::Ready(output) = main.as_mut().poll(&mut context) {
                        return output;
                    }
                    lock(&shared.state).ready.extend(tasks.take_over());
                }
                Some(Step::Worker(worker)) => shared.step(&worker),
                None => panic!("everybody waits for something that never comes"),
            }
        }
    }
}

impl Shared {
    /// Who has the next turn, if anybody can use it.
    fn draw(&self) -> Option<Step> {
        let mut state = lock(&self.state);
        assert!(state.waits_in_a_row < WAITS_MAX, "threads wait for each other for ever");
        let State { random, ready, runnable, .. } = &mut *state;
        let drawn = random.below(ready.len() + runnable.len());
        if let Some(id) = ready.iter().nth(drawn).copied() {
            ready.remove(&id);
            state.waits_in_a_row = 0;
            return Some(Step::Task(id));
        }
        let place = drawn - ready.len();
        (place < runnable.len()).then(|| Step::Worker(runnable.remove(place)))
    }

    /// Who has the next turn when only work that was begun is left.
    fn draw_last(&self) -> Option<Arc<Worker>> {
        let mut state = lock(&self.state);
        let State { random, runnable, waits_in_a_row, .. } = &mut *state;
        let place = random.below(runnable.len());
        (place < runnable.len() && *waits_in_a_row < WAITS_MAX).then(|| runnable.remove(place))
    }

    fn step(&self, worker: &Worker) {
        worker.baton.give();
        self.main.wait();
    }

    /// Whether the worker has to let go of its turn: drawn among all who could use it.
    pub(super) fn let_others_run(&self, worker: &Arc<Worker>) -> bool {
        let mut state = lock(&self.state);
        state.waits_in_a_row = 0;
        // Tasks have ended before the work does.
        let ready = if state.is_ending { 0 } else { state.ready.len() };
        let others = ready + state.runnable.len();
        let lets_go = !state.is_over && state.random.below(others + 1) != 0;
        if lets_go {
            state.runnable.push(Arc::clone(worker));
        }
        lets_go
    }

    /// As [`Shared::let_others_run`] for one who can't go on; at the end all run beside each other.
    pub(super) fn must_let_others_run(&self, worker: &Arc<Worker>) -> bool {
        let mut state = lock(&self.state);
        if state.is_over {
            return false;
        }
        state.waits_in_a_row += 1;
        state.runnable.push(Arc::clone(worker));
        true
    }

    /// A worker has done its work; whether it stays for more.
    pub(super) fn is_idle_again(&self, worker: &Arc<Worker>) -> bool {
        let mut state = lock(&self.state);
        if !state.is_over {
            state.waits_in_a_row = 0;
            state.idle.push(Arc::clone(worker));
        }
        !state.is_over
    }
}

/// Ends the threads when it is dropped, by unwinding too.
struct Ending<'a>(&'a Arc<Shared>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let unbegun: Vec<_> = {
            let mut state = lock(&self.0.state);
            state.is_ending = true;
            state.waits_in_a_row = 0;
            let State { runnable, idle, .. } = &mut *state;
            let (unbegun, begun) = runnable.drain(..).partition(|worker| worker.has_work());
            *runnable = begun;
            idle.extend(unbegun.iter().cloned());
            unbegun
        };
        // Work that was not begun is dropped, and its log is told.
        unbegun.iter().for_each(|worker| drop(lock(&worker.work).take()));
        // What was begun is finished in an order that still follows from the seed, unless it waits
        // for something that never comes.
        while let Some(worker) = self.0.draw_last() {
            self.0.step(&worker);
        }
        let (runnable, idle, threads) = {
            let mut state = lock(&self.0.state);
            state.is_over = true;
            let State { runnable, idle, threads, .. } = &mut *state;
            (std::mem::take(runnable), std::mem::take(idle), std::mem::take(threads))
        };
        runnable.iter().chain(&idle).for_each(|worker| worker.baton.give());
        for thread in threads {
            // A worker catches what its work throws.
            let _ = thread.join();
        }
    }
}

struct Woken {
    id: TaskId,
    shared: Arc<Shared>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        lock(&self.shared.state).ready.insert(self.id);
    }
}

/// The turns of the thread that polls tasks: it gives its own to a worker if it can't go on, and
/// perhaps where it does I/O itself. Other tasks run when it has come back.
struct MainTurns(Arc<Shared>);

impl Turns for MainTurns {
    fn pass(&self) {
        let worker = {
            let State { random, runnable, .. } = &mut *lock(&self.0.state);
            let count = runnable.len();
            let place = if count == 0 { 0 } else { random.below(count + 1) };
            (place < count).then(|| runnable.remove(place))
        };
        worker.iter().for_each(|worker| self.0.step(worker));
    }

    fn rest(&self) -> bool {
        self.pass();
        true
    }

    fn wait(&self) -> bool {
        let worker = {
            let mut state = lock(&self.0.state);
            state.waits_in_a_row += 1;
            let (waits, count) = (state.waits_in_a_row, state.runnable.len());
            if count == 0 || waits > WAITS_MAX {
                panic!("a task waits, blocking, for something that never comes");
            }
            let place = state.random.below(count);
            state.runnable.remove(place)
        };
        self.0.step(&worker);
        true
    }
}

struct Threads(Arc<Shared>);

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").finish_non_exhaustive()
    }
}

impl Executor for Threads {
    fn spawn(&self, work: executor::Task) {
        let mut state = lock(&self.0.state);
        if state.is_ending {
            // Dropping it tells its log.
            drop(state);
            drop(work);
            return;
        }
        let worker = state.idle.pop().unwrap_or_else(|| {
            let worker = Arc::new(Worker::default());
            let (thread, shared) = (Arc::clone(&worker), Arc::clone(&self.0));
            state.threads.push(std::thread::spawn(move || thread.run(&shared)));
            worker
        });
        *lock(&worker.work) = Some(work);
        state.runnable.push(worker);
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

/// The executor of the simulation that the caller is part of.
pub(crate) fn current_executor() -> Option<Arc<dyn Executor>> {
    let shared = CURRENT.with(|current| current.borrow().clone())?;
    Some(Arc::new(Threads(shared)))
}

/// Makes the caller's thread part of a simulation until it is dropped.
pub(super) struct Entered(());

pub(super) fn enter(shared: &Arc<Shared>, turns: Arc<dyn Turns>) -> Entered {
    let before = CURRENT.with(|current| current.replace(Some(Arc::clone(shared))));
    assert!(before.is_none(), "a simulation within a simulation");
    turn::enter(Some(turns));
    Entered(())
}

impl Drop for Entered {
    fn drop(&mut self) {
        turn::enter(None);
        CURRENT.with(|current| current.replace(None));
    }
}
