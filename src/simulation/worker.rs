//! The threads of a simulation: only one of all runs at a time, and it says when it lets go.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex},
};

use crate::{
    executor::Task,
    simulation::{
        fault::lock,
        scheduler::{Shared, enter},
    },
    turn::Turns,
};

/// What a thread must have to run.
#[derive(Debug, Default)]
pub(super) struct Baton {
    is_here: Mutex<bool>,
    given: Condvar,
}

impl Baton {
    pub(super) fn give(&self) {
        *lock(&self.is_here) = true;
        self.given.notify_one();
    }

    pub(super) fn wait(&self) {
        let is_here = lock(&self.is_here);
        if let Ok(mut is_here) = self.given.wait_while(is_here, |is_here| !*is_here) {
            *is_here = false;
        }
    }
}

/// A thread for the log's work.
#[derive(Default)]
pub(super) struct Worker {
    pub(super) baton: Baton,
    /// Work not begun. A worker that gets the baton without any ends.
    pub(super) work: Mutex<Option<Task>>,
}

impl Worker {
    /// Whether it has work that it has not begun.
    pub(super) fn has_work(&self) -> bool {
        lock(&self.work).is_some()
    }

    /// What the worker's thread does.
    pub(super) fn run(self: Arc<Self>, shared: &Arc<Shared>) {
        let turns = WorkerTurns { shared: Arc::clone(shared), worker: Arc::clone(&self) };
        let _entered = enter(shared, Arc::new(turns));
        #[cfg(feature = "__sabotage")]
        crate::sabotage::enter(shared.sabotage);
        loop {
            self.baton.wait();
            let Some(work) = lock(&self.work).take() else {
                return;
            };
            // Work that panics has told those who wait for it when it was dropped.
            drop(catch_unwind(AssertUnwindSafe(work)));
            if !shared.is_idle_again(&self) {
                return;
            }
            shared.main.give();
        }
    }
}

struct WorkerTurns {
    shared: Arc<Shared>,
    worker: Arc<Worker>,
}

impl Turns for WorkerTurns {
    fn pass(&self) {
        if self.shared.let_others_run(&self.worker) {
            self.shared.main.give();
            self.worker.baton.wait();
        }
    }

    fn wait(&self) -> bool {
        let decides = self.shared.must_let_others_run(&self.worker);
        if decides {
            self.shared.main.give();
            self.worker.baton.wait();
        } else {
            std::thread::yield_now();
        }
        decides
    }
}
