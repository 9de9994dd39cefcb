//! [`Simulation`]: runs tasks and the log's jobs one step at a time, in an order that a seed
//! decides.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use crate::{
    simulation::{
        schedule::{NextTurn, Schedule},
        tasks::{MAIN, Spawning, TaskId, Tasks},
        threads::enter,
    },
    sync::LockAlways,
    turn::Turns,
};

/// Runs futures and the background work of their logs step by step, in an order that a seed
/// decides.
///
/// A step of a task is one poll. A step of the log's work ends at its next operation on a
/// [`Disk`](crate::simulation::Disk) or on a storage with [`Faults`](crate::simulation::Faults), or
/// when it would block. So flushes overlap writes, appends and other flushes, as they do on real
/// threads. The same seed gives the same order again. There is no clock: tokio's time does not run,
/// and code that needs it panics.
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
    schedule: Arc<Schedule>,
}

impl Simulation {
    /// Creates the simulation of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Simulation { schedule: Arc::new(Schedule::new(seed)) }
    }

    /// Runs a future and the tasks that it spawns, until the future ends.
    ///
    /// The run ends as a dropped runtime does. Tasks that have not ended are dropped, and so is
    /// background work that has not begun. Work that has begun runs to its end.
    ///
    /// # Panics
    ///
    /// If all tasks and threads wait for each other; within another simulation; if a future panics.
    pub fn run<F: Future>(self, future: F) -> F::Output {
        let schedule = &self.schedule;
        let _entered = enter(schedule, Arc::new(MainTurns(Arc::clone(schedule))));
        let _spawning = Spawning::begin();
        // These values are dropped in reverse order: the tasks, then the jobs, then the
        // thread-locals that jobs use.
        let _ending = Ending(schedule);
        let mut main = pin!(future);
        let mut tasks = Tasks::default();
        loop {
            match schedule.draw() {
                Some(NextTurn::Task(id)) => {
                    let schedule = Arc::clone(schedule);
                    let waker = Waker::from(Arc::new(TaskWaker { id, schedule }));
                    let mut context = Context::from_waker(&waker);
                    if id != MAIN {
                        tasks.poll(id, &mut context);
                    } else if let Poll::Ready(output) = main.as_mut().poll(&mut context) {
                        return output;
                    }
                    self.schedule.state().ready.extend(tasks.take_over());
                }
                Some(NextTurn::Worker(worker)) => schedule.step(&worker),
                None => panic!("deadlock: all tasks wait, and the log has no work"),
            }
        }
    }
}

/// Ends the threads when it is dropped, even by unwinding.
struct Ending<'a>(&'a Arc<Schedule>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // The drop of a job that has not begun notifies its log.
        for worker in self.0.begin_ending() {
            drop(worker.work.lock_always().take());
        }
        // Jobs that have begun end in an order that the seed decides, unless they deadlock.
        while let Some(worker) = self.0.draw_last() {
            self.0.step(&worker);
        }
        for thread in self.0.end() {
            // A worker catches the panics of its jobs.
            let _ = thread.join();
        }
    }
}

struct TaskWaker {
    id: TaskId,
    schedule: Arc<Schedule>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.schedule.state().ready.insert(self.id);
    }
}

/// The turns of the thread that polls tasks.
///
/// That thread gives its turn to a worker if it cannot continue, and by chance at its own I/O.
/// Other tasks run after it has its turn back.
struct MainTurns(Arc<Schedule>);

impl Turns for MainTurns {
    fn pass(&self) {
        let worker = self.0.draw_beside_task();
        worker.iter().for_each(|worker| self.0.step(worker));
    }

    fn rest(&self) -> bool {
        self.pass();
        true
    }

    fn wait(&self) -> bool {
        let worker = self.0.draw_for_blocked_task();
        self.0.step(&worker);
        true
    }
}
