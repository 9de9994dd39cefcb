//! Polls a future in short jobs on the log's own pool.
//!
//! So background work needs neither a task nor a thread of a runtime, and it runs on every executor
//! that runs the log's jobs.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Wake, Waker},
};

use crate::{
    pipeline::{Core, embed::spawn},
    sync::LockAlways,
};

type BackgroundFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs one piece of work at a time, and at most one more after it.
pub(crate) struct Background {
    core: Arc<Core>,
    state: Mutex<BackgroundState>,
}

#[derive(Default)]
struct BackgroundState {
    /// `None` while the work is polled, and when there is no work.
    work: Option<BackgroundFuture>,
    phase: BackgroundPhase,
    /// The work was woken while it could not be scheduled.
    is_woken: bool,
    /// The work that begins when the current one ends.
    next: Option<BackgroundFuture>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BackgroundPhase {
    #[default]
    Idle,
    Scheduled,
    Running,
}

impl Background {
    pub(crate) fn new(core: Arc<Core>) -> Arc<Self> {
        Arc::new(Background { core, state: Mutex::default() })
    }

    /// Never poll or drop work, or start a job, under this lock.
    fn lock(&self) -> MutexGuard<'_, BackgroundState> {
        self.state.lock_always()
    }

    /// Starts work now, or after the work that is running. Call it without any lock held.
    pub(crate) fn begin(self: &Arc<Self>, make: impl FnOnce() -> BackgroundFuture) {
        let unused = {
            let mut state = self.lock();
            match (&state.work, state.phase) {
                (None, BackgroundPhase::Idle) => {
                    state.work = Some(make());
                    state.phase = BackgroundPhase::Scheduled;
                    None
                }
                _ if state.is_woken && state.phase == BackgroundPhase::Idle => {
                    state.is_woken = false;
                    state.phase = BackgroundPhase::Scheduled;
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

    /// Returns true if the work was woken and no job will poll it. Then the next
    /// [`begin`](Self::begin) must. This happens only if jobs run in place.
    pub(crate) fn needs_poll(&self) -> bool {
        let state = self.lock();
        state.is_woken && state.phase == BackgroundPhase::Idle
    }

    fn schedule(self: &Arc<Self>) {
        let job = PollJob { background: Arc::clone(self), is_done: false };
        spawn(&self.core, move || job.run());
    }

    fn run(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        let mut context = Context::from_waker(&waker);
        loop {
            let work = {
                let mut state = self.lock();
                state.phase = BackgroundPhase::Running;
                state.is_woken = false;
                state.work.take()
            };
            let Some(mut work) = work else {
                self.lock().phase = BackgroundPhase::Idle;
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
                state.phase = BackgroundPhase::Idle;
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
            // A job in place would run right here, under any lock that the waker's caller holds.
            if state.phase != BackgroundPhase::Idle || self.core.executor().runs_in_place() {
                state.is_woken = true;
                return;
            }
            if state.work.is_none() {
                return;
            }
            state.phase = BackgroundPhase::Scheduled;
        }
        self.schedule();
    }
}

/// The closure of one job. If the job is dropped before it has run, the work is dropped, too.
struct PollJob {
    background: Arc<Background>,
    is_done: bool,
}

impl PollJob {
    fn run(mut self) {
        self.is_done = true;
        self.background.run();
    }
}

impl Drop for PollJob {
    fn drop(&mut self) {
        if !self.is_done {
            let mut state = self.background.lock();
            let unused = (state.work.take(), state.next.take());
            state.phase = BackgroundPhase::Idle;
            drop(state);
            drop(unused);
        }
    }
}
