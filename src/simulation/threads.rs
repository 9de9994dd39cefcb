//! The threads that run the log's jobs in a simulation.

use std::{
    cell::RefCell,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    executor::{Executor, Task, Watchable},
    simulation::{schedule::Schedule, worker::Worker},
    sync::LockAlways,
    turn::{self, Turns},
};

thread_local! {
    static CURRENT: RefCell<Option<Arc<Schedule>>> = const { RefCell::new(None) };
}

/// Makes the calling thread part of a simulation until this value is dropped.
pub(super) struct Entered(());

pub(super) fn enter(schedule: &Arc<Schedule>, turns: Arc<dyn Turns>) -> Entered {
    let before = CURRENT.with(|current| current.replace(Some(Arc::clone(schedule))));
    assert!(before.is_none(), "a simulation was started within another simulation");
    turn::enter(Some(turns));
    Entered(())
}

impl Drop for Entered {
    fn drop(&mut self) {
        turn::enter(None);
        CURRENT.with(|current| current.replace(None));
    }
}

/// Returns the executor of the simulation that the calling thread is part of.
pub(crate) fn current_executor() -> Option<Arc<dyn Executor>> {
    let schedule = CURRENT.with(|current| current.borrow().clone())?;
    Some(Arc::new(Threads(schedule)))
}

/// Lets `time` pass for the logs of the simulation that the caller is part of.
///
/// Each I/O call that is in flight now has then been in flight for `time` longer. So a test holds
/// a call with a [`gate`](crate::simulation::Fault::gate), lets time pass, and sees what the log
/// does about the stall. No other part of the log depends on this time. Without a call, no time
/// passes in a simulation.
///
/// ```
/// use std::time::Duration;
/// use highwater::{Wal, simulation::{self, Disk, Op, Simulation}};
///
/// Simulation::new(1).run(async {
///     let disk = Disk::new(1);
///     let wal = Wal::options().open_with(disk.clone()).await.unwrap();
///     let gate = disk.faults().on(Op::Sync).once().gate();
///     let other = wal.clone();
///     let commit = simulation::spawn(async move { other.append_and_sync("held").await });
///     gate.reached(1).await;
///     simulation::pass_time(Duration::from_secs(2));
///     assert!(wal.health().get().is_stalled());
///     gate.open();
///     commit.await.unwrap().unwrap();
///     simulation::pass_time(Duration::from_secs(15));
///     assert!(wal.health().get().is_good());
/// });
/// ```
///
/// # Panics
///
/// Outside of a simulation.
pub fn pass_time(time: Duration) {
    let schedule = CURRENT.with(|current| current.borrow().clone());
    match schedule {
        Some(schedule) => schedule.pass_time(time),
        None => panic!("`pass_time` was called outside of a simulation"),
    }
}

/// Runs each job on an idle worker, or on a new one.
struct Threads(Arc<Schedule>);

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").finish_non_exhaustive()
    }
}

impl Executor for Threads {
    fn spawn(&self, work: Task) {
        let mut state = self.0.state();
        if state.is_ending {
            // The drop of a job notifies its log, which must not happen under this lock.
            drop(state);
            drop(work);
            return;
        }
        let worker = state.idle.pop().unwrap_or_else(|| {
            let worker = Arc::new(Worker::default());
            let (thread, schedule) = (Arc::clone(&worker), Arc::clone(&self.0));
            state.threads.push(std::thread::spawn(move || run(&thread, &schedule)));
            worker
        });
        *worker.work.lock_always() = Some(work);
        state.runnable.push(worker);
    }

    fn watches(&self) -> bool {
        true
    }

    fn watch(&self, watchable: Weak<dyn Watchable>) -> bool {
        self.0.watch(watchable);
        true
    }
}

/// The main function of a worker's thread.
fn run(worker: &Arc<Worker>, schedule: &Arc<Schedule>) {
    let turns = WorkerTurns { schedule: Arc::clone(schedule), worker: Arc::clone(worker) };
    let _entered = enter(schedule, Arc::new(turns));
    #[cfg(feature = "__sabotage")]
    crate::sabotage::enter(schedule.sabotage);
    loop {
        worker.baton.wait();
        let Some(work) = worker.work.lock_always().take() else {
            return;
        };
        // A job that panics has notified its waiters when it was dropped.
        drop(catch_unwind(AssertUnwindSafe(work)));
        if !schedule.is_idle_again(worker) {
            return;
        }
        schedule.main.give();
    }
}

/// The turns of a worker's thread.
struct WorkerTurns {
    schedule: Arc<Schedule>,
    worker: Arc<Worker>,
}

impl Turns for WorkerTurns {
    fn pass(&self) {
        if self.schedule.let_others_run(&self.worker) {
            self.schedule.main.give();
            self.worker.baton.wait();
        }
    }

    fn wait(&self) -> bool {
        let decides = self.schedule.must_let_others_run(&self.worker);
        if decides {
            self.schedule.main.give();
            self.worker.baton.wait();
        } else {
            std::thread::yield_now();
        }
        decides
    }
}
