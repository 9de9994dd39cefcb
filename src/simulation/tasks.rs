//! The tasks of a simulation.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use futures::future::{AbortHandle, LocalBoxFuture, abortable};
use tokio::sync::oneshot;

/// The number of a task. The first is the future given to
/// [`Simulation::run`](crate::simulation::Simulation::run).
pub(super) type TaskId = u64;

pub(super) const MAIN: TaskId = 0;

/// The tasks that are not being polled.
#[derive(Default)]
pub(super) struct Tasks {
    waiting: BTreeMap<TaskId, LocalBoxFuture<'static, ()>>,
}

/// Spawned tasks that were not taken over yet, and the number of tasks so far.
#[derive(Default)]
struct Spawned {
    new: Vec<(TaskId, LocalBoxFuture<'static, ()>)>,
    count: TaskId,
}

thread_local! {
    static SPAWNED: RefCell<Option<Rc<RefCell<Spawned>>>> = const { RefCell::new(None) };
}

/// Lets the calling thread spawn tasks until this value is dropped.
pub(super) struct Spawning(());

impl Spawning {
    pub(super) fn begin() -> Self {
        SPAWNED.with(|spawned| *spawned.borrow_mut() = Some(Rc::default()));
        Spawning(())
    }
}

impl Drop for Spawning {
    fn drop(&mut self) {
        drop(SPAWNED.with(|spawned| spawned.borrow_mut().take()));
    }
}

impl Tasks {
    /// Takes over the newly spawned tasks, and returns their numbers.
    pub(super) fn take_over(&mut self) -> Vec<TaskId> {
        let spawned = SPAWNED.with(|spawned| spawned.borrow().clone());
        let new = spawned.map(|spawned| std::mem::take(&mut spawned.borrow_mut().new));
        let mut ids = Vec::new();
        for (id, task) in new.into_iter().flatten() {
            ids.push(id);
            self.waiting.insert(id, task);
        }
        ids
    }

    pub(super) fn poll(&mut self, id: TaskId, context: &mut Context<'_>) {
        // A task that has ended may be woken once more.
        let Some(mut task) = self.waiting.remove(&id) else { return };
        if task.as_mut().poll(context).is_pending() {
            self.waiting.insert(id, task);
        }
    }
}

/// Spawns a future as a new task of the simulation that polls the caller.
///
/// # Panics
///
/// Outside of a [`Simulation`](crate::simulation::Simulation).
pub fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let spawned = SPAWNED.with(|spawned| spawned.borrow().clone());
    let Some(spawned) = spawned else {
        panic!("simulation::spawn was called outside of Simulation::run");
    };
    let (future, abort) = abortable(future);
    let (send, receive) = oneshot::channel();
    let task = async move {
        if let Ok(output) = future.await {
            // The handle may have been dropped.
            let _ = send.send(output);
        }
    };
    let mut spawned = spawned.borrow_mut();
    spawned.count += 1;
    let id = MAIN + spawned.count;
    spawned.new.push((id, Box::pin(task)));
    Task { abort, receive }
}

/// The handle of a spawned task. It is a future of the task's output, `None` if the task was
/// aborted. Dropping the handle leaves the task running.
#[derive(Debug)]
pub struct Task<T> {
    abort: AbortHandle,
    receive: oneshot::Receiver<T>,
}

impl<T> Task<T> {
    /// Drops the task's future at the task's next turn.
    pub fn abort(&self) {
        self.abort.abort();
    }
}

impl<T> Future for Task<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.receive).poll(context).map(Result::ok)
    }
}

/// Lets other tasks and the log's work run.
///
/// # Cancel safety
///
/// Dropping the future only ends the waiting.
pub async fn yield_now() {
    let mut has_yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
