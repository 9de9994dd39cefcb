//! Answers that wait for the synced mark: given in the order of the log, each once, whatever happens.
//!
//! A task that waits for a mark is woken and may come too late, or never, when its runtime is gone. An
//! answer is given by whoever moves the mark or stops the log, on that thread, with no lock held.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError},
};

use crate::{
    error::{Error, Result},
    pipeline::{core::Core, epochs::Goal},
    sync::{Mutex, MutexGuard},
};

/// What is called when its goal is reached, or never will be.
pub(crate) type Answer = Box<dyn FnOnce(Result<()>) + Send>;

#[derive(Default)]
pub(super) struct Answers(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    /// By the goal's end; those with the same in the order in which they came.
    waiting: VecDeque<(Goal, Answer)>,
    /// Somebody gives answers, and looks again before it lets go: so no answer overtakes another.
    is_giving: bool,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

impl Answers {
    /// No answer runs under this lock, so nothing panics under it.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Has everything below the goal synced, and `answer` called when it is, or when it is sure that
    /// it won't be: then with the reason. It may be called before this returns.
    pub(crate) fn when_synced(self: &Arc<Self>, goal: Goal, answer: Answer) {
        {
            let mut queue = self.answers.lock();
            let place = queue.waiting.partition_point(|(other, _)| other.end <= goal.end);
            queue.waiting.insert(place, (goal, answer));
        }
        if self.synced.get() < goal.end && self.status.check().is_ok() {
            self.demand_sync(goal.end);
        }
        self.give_answers();
    }

    /// Gives the answers that are due. Called, without any lock, by whoever has moved the synced mark
    /// or stopped the log, after it has.
    pub(super) fn give_answers(&self) {
        {
            let mut queue = self.answers.lock();
            if queue.is_giving || queue.waiting.is_empty() {
                // Whoever gives them takes this lock again before it stops, and sees what we stored.
                return;
            }
            queue.is_giving = true;
        }
        loop {
            let (answer, outcome) = {
                let mut queue = self.answers.lock();
                let due = queue.waiting.front().and_then(|(goal, _)| self.outcome(*goal));
                let next = due.and_then(|due| Some((queue.waiting.pop_front()?.1, due)));
                let Some(next) = next else {
                    queue.is_giving = false;
                    return;
                };
                next
            };
            // The code of users: its panic is theirs, and the others get their answers all the same.
            if catch_unwind(AssertUnwindSafe(|| answer(outcome))).is_err() {
                tracing::error!(log = self.storage.location(), "a completion panicked");
            }
        }
    }

    /// What became of a goal; `None` if that isn't known yet.
    fn outcome(&self, goal: Goal) -> Option<Result<()>> {
        let synced = self.synced.get();
        if let Err(error) = self.epochs.check(goal) {
            return Some(Err(error));
        }
        if synced >= goal.end {
            return Some(Ok(()));
        }
        match self.status.check() {
            Err(error) => Some(Err(error)),
            Ok(()) if self.status.is_abandoned() => {
                Some(Err(Error::Closed { reason: "its last handle is gone" }))
            }
            Ok(()) => None,
        }
    }
}
