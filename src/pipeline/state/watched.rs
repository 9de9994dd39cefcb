//! The newest value of a log's marks or of its health, for tasks that watch it.
//!
//! The value is returned as a copy, so no user of the log ever holds a lock that the log needs.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{
    error::{Error, Result},
    pipeline::state::wakers::{WakerId, WakerSet, wake_each},
    sync::{LockAlways, Mutex, MutexGuard},
};

/// The newest value, and the tasks that wait for a change.
#[derive(Debug)]
pub(crate) struct Watched<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    value: T,
    /// Counts the changes of the value.
    version: u64,
    /// Why the value will not change any more.
    end: Option<Error>,
    waiting: WakerSet,
}

impl<T: Clone> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Watched(Mutex::new(State { value, version: 0, end: None, waiting: WakerSet::default() }))
    }

    /// No user code runs under this lock.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock_always()
    }

    /// Returns the newest value and its version.
    pub(crate) fn newest(&self) -> (T, u64) {
        let state = self.lock();
        (state.value.clone(), state.version)
    }

    /// Returns why the value will not change any more, if it will not.
    pub(crate) fn ended(&self) -> Option<Error> {
        self.lock().end.clone()
    }

    /// Publishes the value that `look` reads. It counts as a change unless `is_same` returns true
    /// for it and the previous one. `look` runs under the lock, so the value never goes back.
    pub(crate) fn publish(&self, look: impl FnOnce() -> T, is_same: impl FnOnce(&T, &T) -> bool) {
        let (wakers, replaced) = {
            let mut state = self.lock();
            let replaced = std::mem::replace(&mut state.value, look());
            let is_changed = !is_same(&replaced, &state.value);
            state.version += u64::from(is_changed);
            (is_changed.then(|| state.waiting.take_all()), replaced)
        };
        wake_each(wakers.into_iter().flatten());
        drop(replaced);
    }

    /// Notes why the value will not change any more. Only the first reason counts.
    pub(crate) fn end(&self, reason: Error) {
        let wakers = {
            let mut state = self.lock();
            state.end.get_or_insert(reason);
            state.waiting.take_all()
        };
        wake_each(wakers);
    }

    /// Resolves with the value and its version when that differs from `seen`. Fails with the
    /// reason if the value will not change any more.
    pub(crate) fn changed(&self, seen: u64) -> Changed<'_, T> {
        Changed { watched: self, seen, id: None }
    }
}

/// Waits for a change of the value.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Changed<'a, T: Clone> {
    watched: &'a Watched<T>,
    seen: u64,
    id: Option<WakerId>,
}

impl<T: Clone> Future for Changed<'_, T> {
    type Output = Result<(T, u64)>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let waker = context.waker().clone();
        let (outcome, unused) = {
            let mut state = this.watched.lock();
            if state.version != this.seen {
                (Poll::Ready(Ok((state.value.clone(), state.version))), Some(waker))
            } else if let Some(end) = &state.end {
                (Poll::Ready(Err(end.clone())), Some(waker))
            } else {
                (Poll::Pending, state.waiting.put(&mut this.id, waker))
            }
        };
        drop(unused);
        outcome
    }
}

impl<T: Clone> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        let removed = self.id.and_then(|id| self.watched.lock().waiting.remove(id));
        drop(removed);
    }
}
