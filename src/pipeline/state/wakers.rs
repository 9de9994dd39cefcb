//! Wakers of waiting tasks. They are user code: nothing here runs one under a lock of the log.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::sync::{LockAlways, Mutex, MutexGuard};

/// Wakes each task, even if a waker panics. Call it without any lock held.
#[cfg(not(any(loom, shuttle)))]
pub(crate) fn wake_each(wakers: impl IntoIterator<Item = Waker>) {
    let mut wakers = wakers.into_iter();
    let wake_rest = || wakers.by_ref().for_each(Waker::wake);
    // The panic is the waker's: it stops neither the log nor the other tasks.
    let mut wake_rest = std::panic::AssertUnwindSafe(wake_rest);
    while std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut *wake_rest)).is_err() {
        tracing::error!("the waker of a waiting task panicked; the other tasks are woken");
    }
}

/// As above, without the catch, because a model reports its failures by panics.
#[cfg(any(loom, shuttle))]
pub(crate) fn wake_each(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// The wakers of tasks that wait for the same change.
///
/// Its owner keeps the set under a lock. So the set never clones, drops or runs a waker: it takes
/// wakers and returns them.
#[derive(Debug, Default)]
pub(crate) struct WakerSet {
    next_id: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// A place in a [`WakerSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WakerId(u64);

impl WakerSet {
    /// Keeps `waker` at the place `id`, or at a new one. Returns the waker that it replaces.
    #[must_use = "a waker is dropped without a lock held"]
    pub(crate) fn put(&mut self, id: &mut Option<WakerId>, waker: Waker) -> Option<Waker> {
        let id = id.get_or_insert_with(|| {
            self.next_id += 1;
            WakerId(self.next_id)
        });
        self.wakers.insert(id.0, waker)
    }

    /// Removes the waker at `id`, if it has not been taken.
    #[must_use = "a waker is dropped without a lock held"]
    pub(crate) fn remove(&mut self, id: WakerId) -> Option<Waker> {
        self.wakers.remove(&id.0)
    }

    /// Takes all wakers. Their places stay valid.
    #[must_use = "taken wakers have to be woken"]
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.wakers).into_values()
    }
}

/// Wakes all tasks that wait for a change, and counts the changes.
///
/// A task reads the count, then checks its condition, then waits for a higher count. So it misses
/// no change.
#[derive(Debug, Default)]
pub(crate) struct Bell(Mutex<BellState>);

#[derive(Debug, Default)]
struct BellState {
    count: u64,
    waiting: WakerSet,
}

impl Bell {
    /// No user code runs under this lock.
    fn lock(&self) -> MutexGuard<'_, BellState> {
        self.0.lock_always()
    }

    /// Returns the number of changes so far.
    pub(crate) fn count(&self) -> u64 {
        self.lock().count
    }

    /// Wakes all waiting tasks. Call it without any lock held.
    pub(crate) fn ring(&self) {
        let wakers = {
            let mut state = self.lock();
            state.count += 1;
            state.waiting.take_all()
        };
        wake_each(wakers);
    }

    /// Resolves when there were more than `count` changes.
    pub(crate) fn rung_since(&self, count: u64) -> Rung<'_> {
        Rung { bell: self, count, id: None }
    }
}

/// Waits for a [`Bell`].
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Rung<'a> {
    bell: &'a Bell,
    count: u64,
    id: Option<WakerId>,
}

impl Future for Rung<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let waker = context.waker().clone();
        let (is_rung, unused) = {
            let mut state = this.bell.lock();
            if state.count > this.count {
                (true, Some(waker))
            } else {
                (false, state.waiting.put(&mut this.id, waker))
            }
        };
        drop(unused);
        if is_rung { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Rung<'_> {
    fn drop(&mut self) {
        let removed = self.id.and_then(|id| self.bell.lock().waiting.remove(id));
        drop(removed);
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    struct Panics;

    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker of a user");
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn panicking_waker_leaves_no_other_unwoken() {
        let count = Arc::new(Count::default());
        let wakers = (0..20).map(|number| match number % 3 {
            0 => Waker::from(Arc::new(Panics)),
            _ => Waker::from(Arc::clone(&count)),
        });
        wake_each(wakers.collect::<Vec<_>>());
        assert_eq!(count.0.load(Ordering::Relaxed), 13);
    }

    #[test]
    fn bell_wakes_each_waiter_once() {
        let (bell, count) = (Bell::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(bell.rung_since(0))).collect();
        for rung in &mut waiting {
            assert!(rung.as_mut().poll(&mut context).is_pending());
        }
        waiting.pop();
        bell.ring();
        assert_eq!(count.0.load(Ordering::Relaxed), 2, "a dropped waiter is not woken");
        assert!(waiting[0].as_mut().poll(&mut context).is_ready());
        assert!(Box::pin(bell.rung_since(0)).as_mut().poll(&mut context).is_ready());
    }
}
