//! Callbacks that wait for the synced mark. Each runs once, in log order.
//!
//! A waiting task is woken and may run late, or never if its runtime is gone. A completion is
//! called by the thread that moves the mark or stops the log, without any lock held.

use std::collections::VecDeque;

use crate::{
    error::Result,
    pipeline::state::epochs::Goal,
    sync::{LockAlways, Mutex, MutexGuard},
};

/// Called when its goal is reached, or with the reason why it never will be.
pub(crate) type Completion = Box<dyn FnOnce(Result<()>) + Send>;

#[derive(Default)]
pub(crate) struct Completions(Mutex<CompletionQueue>);

#[derive(Default)]
struct CompletionQueue {
    /// Ordered by the goal's end; equal ends in order of arrival.
    waiting: VecDeque<(Goal, Completion)>,
    /// True while a thread runs completions. That thread looks again before it leaves, so no
    /// completion overtakes another.
    is_running: bool,
}

impl std::fmt::Debug for Completions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Completions").finish_non_exhaustive()
    }
}

impl Completions {
    /// No completion runs under this lock, so nothing panics under it.
    fn queue(&self) -> MutexGuard<'_, CompletionQueue> {
        self.0.lock_always()
    }

    pub(crate) fn add(&self, goal: Goal, completion: Completion) {
        let mut queue = self.queue();
        let place = queue.waiting.partition_point(|(other, _)| other.end <= goal.end);
        queue.waiting.insert(place, (goal, completion));
    }

    /// Returns whether a completion waits.
    pub(crate) fn are_waiting(&self) -> bool {
        !self.queue().waiting.is_empty()
    }

    /// Takes the role of the thread that runs completions. Returns `false` if no completion waits,
    /// or another thread has the role. That thread takes the lock again before it leaves, and sees
    /// the caller's completion.
    pub(crate) fn begin(&self) -> bool {
        let mut queue = self.queue();
        let begins = !queue.is_running && !queue.waiting.is_empty();
        queue.is_running |= begins;
        begins
    }

    /// Takes the first completion if `outcome` of its goal is known. Otherwise gives the role up.
    pub(crate) fn next(
        &self,
        outcome: impl FnOnce(Goal) -> Option<Result<()>>,
    ) -> Option<(Completion, Result<()>)> {
        let mut queue = self.queue();
        let due = queue.waiting.front().and_then(|(goal, _)| outcome(*goal));
        let next = due.and_then(|due| Some((queue.waiting.pop_front()?.1, due)));
        queue.is_running = next.is_some();
        next
    }
}
