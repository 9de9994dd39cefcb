//! A future that the log's own pool drives, in short jobs: so what goes on in the background needs
//! neither a task nor a thread of a runtime, and works wherever the log's jobs do.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use crate::pipeline::{Core, Job};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Work that is begun whenever it is wanted and not under way.
pub(super) struct Background {
    core: Arc<Core>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Not there while it is polled, or when there is none.
    work: Option<Work>,
    phase: Phase,
    /// It was woken while it could not be scheduled.
    is_woken: bool,
    /// What is begun when it has ended.
    next: Option<Work>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Scheduled,
    Running,
}

impl Background {
    pub(super) fn new(core: Arc<Core>) -> Arc<Self> {
        Arc::new(Background { core, state: Mutex::default() })
    }

    /// Neither is work polled or dropped under this lock, nor is a job started.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins work, or has it begun behind that which is under way. Call it without any lock held.
    pub(super) fn begin(self: &Arc<Self>, make: impl FnOnce() -> Work) {
        let unused = {
            let mut state = self.lock();
            match (&state.work, state.phase) {
                (None, Phase::Idle) => {
                    state.work = Some(make());
                    state.phase = Phase::Scheduled;
                    None
                }
                _ if state.is_woken && state.phase == Phase::Idle => {
                    state.is_woken = false;
                    state.phase = Phase::Scheduled;
                    state.next.replace(make())
                }
                _ => {
                    let unused = state.next.replace(make());
                    drop(state);
                    drop(unused);
                    return;
                }
            }
        };
        drop(unused);
        self.schedule();
    }

    /// Whether work waits to be polled by whoever comes by: in place nobody else does.
    pub(super) fn is_left_waiting(&self) -> bool {
        let state = self.lock();
        state.is_woken && state.phase == Phase::Idle
    }

    fn schedule(self: &Arc<Self>) {
        let turn = Turn { background: Arc::clone(self), is_done: false };
        Job::new(Arc::clone(&self.core), move |_| turn.run()).spawn();
    }

    fn run(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        let mut context = Context::from_waker(&waker);
        loop {
            let work = {
                let mut state = self.lock();
                state.phase = Phase::Running;
                state.is_woken = false;
                state.work.take()
            };
            let Some(mut work) = work else {
                self.lock().phase = Phase::Idle;
                return;
            };
            let polled = work.as_mut().poll(&mut context);
            let ended = polled == Poll::Ready(());
            let mut done = None;
            let mut state = self.lock();
            if ended {
                done = Some(work);
                state.work = state.next.take();
                state.is_woken = state.work.is_some();
            } else {
                state.work = Some(work);
            }
            if !state.is_woken {
                state.phase = Phase::Idle;
                drop(state);
                return;
            }
            drop(state);
            drop(done);
        }
    }
}

impl Wake for Background {
    fn wake(self: Arc<Self>) {
        {
            let mut state = self.lock();
            // In place a job would run here, under whatever lock the waker is called.
            if state.phase != Phase::Idle || self.core.executor.runs_in_place() {
                state.is_woken = true;
                return;
            }
            if state.work.is_none() {
                return;
            }
            state.phase = Phase::Scheduled;
        }
        self.schedule();
    }
}

/// One job's share. Dropped before it ran, nobody will poll the work again.
struct Turn {
    background: Arc<Background>,
    is_done: bool,
}

impl Turn {
    fn run(mut self) {
        self.is_done = true;
        self.background.run();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_done {
            let mut state = self.background.lock();
            let dead = (state.work.take(), state.next.take());
            state.phase = Phase::Idle;
            drop(state);
            drop(dead);
        }
    }
}
