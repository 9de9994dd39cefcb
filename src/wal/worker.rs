//! Whether the caller may block its thread: it is a task on a worker of a multi-thread runtime.
//!
//! `block_in_place` moves the other tasks of such a worker to another thread. Elsewhere it panics
//! (on a `current_thread` runtime, in a `LocalSet`), or has no tasks to move (in `block_on`). No
//! call of tokio distinguishes these cases in all versions that the log supports. But a waker that
//! `yield_now` gets is kept for later on a worker and on a `current_thread` runtime, and is woken
//! at once anywhere else. The flavor of the runtime excludes `current_thread`.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::{Id, block_in_place, try_id, yield_now},
};

thread_local! {
    /// The task that was last seen on a worker. Its runtime polls it on workers only, so the result
    /// stays true for this task. After `block_in_place` the test below would fail within the same
    /// poll, because the thread is no worker until the poll ends.
    static SEEN: Cell<Option<Id>> = const { Cell::new(None) };
}

/// Blocks workers for the tasks that use one log.
#[derive(Debug, Default)]
pub(super) struct Blocking {
    /// Set when `block_in_place` has refused, by a panic that is caught. It does so if a task of a
    /// `current_thread` runtime has entered the handle of a multi-thread runtime.
    has_refused: AtomicBool,
}

impl Blocking {
    /// Returns whether the caller is a task on a worker of a multi-thread runtime.
    pub(super) fn is_possible(&self) -> bool {
        // The root future of `block_on` has no id. A refusal is a panic, which must not end the
        // process.
        let Some(task) = try_id() else { return false };
        if self.has_refused.load(Ordering::Relaxed) || cfg!(panic = "abort") {
            return false;
        }
        // First, because a task on a worker may block on another runtime, and keeps its id there.
        let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
        if !flavor.is_ok_and(|flavor| flavor == RuntimeFlavor::MultiThread) {
            return false;
        }
        // A thread that is ending has dropped its thread-local.
        let is_seen = SEEN.try_with(|seen| seen.get() == Some(task)).unwrap_or(false);
        if is_seen || !keeps_wakers() {
            return is_seen;
        }
        SEEN.try_with(|seen| seen.set(Some(task))).is_ok()
    }

    /// Runs `work` on this thread, after its other tasks were moved to another thread. Returns
    /// `false` without running it if that is impossible. The caller has called
    /// [`is_possible`](Blocking::is_possible).
    pub(super) fn run(&self, work: &mut dyn FnMut()) -> bool {
        let mut has_begun = false;
        let blocked = catch_unwind(AssertUnwindSafe(|| {
            block_in_place(|| {
                has_begun = true;
                work();
            });
        }));
        match blocked {
            Ok(()) => true,
            Err(panic) if has_begun => resume_unwind(panic),
            Err(_) => {
                self.has_refused.store(true, Ordering::Relaxed);
                false
            }
        }
    }
}

/// Returns whether a waker that `yield_now` gets is kept for later.
fn keeps_wakers() -> bool {
    let probe = Arc::new(Probe::default());
    let waker = Waker::from(Arc::clone(&probe));
    let is_pending = pin!(yield_now()).poll(&mut Context::from_waker(&waker)).is_pending();
    is_pending && !probe.is_woken.load(Ordering::Relaxed)
}

#[derive(Default)]
struct Probe {
    is_woken: AtomicBool,
}

impl Wake for Probe {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use tokio::{
        runtime::{Builder, Runtime},
        task::LocalSet,
    };

    use super::*;

    fn multi_thread() -> Runtime {
        Builder::new_multi_thread().worker_threads(2).build().unwrap()
    }

    fn current_thread() -> Runtime {
        Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn task_on_worker_may_block() {
        let runtime = multi_thread();
        let both = runtime.spawn(async {
            let (blocking, mut ran) = (Blocking::default(), false);
            let before = blocking.is_possible();
            let blocked = blocking.run(&mut || ran = true);
            // The thread may have lost its worker.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let after = blocking.is_possible() && blocking.run(&mut || {});
            yield_now().await;
            (before, blocked && ran, after, blocking.is_possible())
        });
        assert_eq!(runtime.block_on(both).unwrap(), (true, true, true, true));
    }

    #[test]
    fn others_may_not_block() {
        assert!(!Blocking::default().is_possible(), "no runtime");
        let runtime = multi_thread();
        assert!(
            !runtime.block_on(async { Blocking::default().is_possible() }),
            "the root of block_on"
        );
        let local = runtime.block_on(LocalSet::new().run_until(async {
            tokio::task::spawn_local(async { Blocking::default().is_possible() }).await.unwrap()
        }));
        assert!(!local, "a LocalSet");
        let pool = runtime.spawn_blocking(|| Blocking::default().is_possible());
        assert!(!runtime.block_on(pool).unwrap(), "a thread of the pool");
        let current = current_thread();
        let spawned = current.spawn(async { Blocking::default().is_possible() });
        assert!(!current.block_on(spawned).unwrap(), "current_thread");
    }

    /// A task keeps its id while it blocks on another runtime.
    #[test]
    fn runtime_within_a_task_may_not_block() {
        let runtime = multi_thread();
        let nested = runtime.spawn(async {
            let blocking = Blocking::default();
            let outside = blocking.is_possible();
            let inside =
                block_in_place(|| current_thread().block_on(async { blocking.is_possible() }));
            (outside, inside)
        });
        assert_eq!(runtime.block_on(nested).unwrap(), (true, false));
    }

    #[test]
    fn panic_of_work_is_passed_on() {
        let runtime = multi_thread();
        let blocking = Arc::new(Blocking::default());
        let mine = Arc::clone(&blocking);
        let panicked = runtime.spawn(async move { mine.run(&mut || panic!("of the work")) });
        assert!(runtime.block_on(panicked).unwrap_err().is_panic());
        assert!(!blocking.has_refused.load(Ordering::Relaxed));
    }

    #[test]
    fn refusal_is_remembered() {
        let (runtime, current) = (multi_thread(), current_thread());
        let handle = runtime.handle().clone();
        let refused = current.spawn(async move {
            // The guard makes the task look like one on a worker.
            let (_entered, blocking) = (handle.enter(), Blocking::default());
            let looks_possible = blocking.is_possible();
            let ran = blocking.run(&mut || {});
            (looks_possible, ran, blocking.is_possible())
        });
        assert_eq!(current.block_on(refused).unwrap(), (true, false, false));
    }
}
