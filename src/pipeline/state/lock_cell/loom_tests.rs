//! Jobs beside a release of the lock: it is freed, and never while a job runs.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::Context,
};

use loom::{sync::atomic::AtomicBool, thread};

use super::*;
use crate::pipeline::state::loom_tests::{WakeCount, explore};

/// Represents the directory's lock.
struct Lock(Arc<AtomicBool>);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

struct Shared {
    cell: LockCell,
    is_free: Arc<AtomicBool>,
}

impl Shared {
    fn new() -> Arc<Self> {
        let is_free = Arc::new(AtomicBool::new(false));
        let lock = Box::new(Lock(Arc::clone(&is_free)));
        Arc::new(Shared { cell: LockCell::new(Some(lock)), is_free })
    }

    fn is_free(&self) -> bool {
        self.is_free.load(Ordering::Acquire)
    }

    /// Starts a job, which does nothing after a release.
    fn start_job(self: &Arc<Self>) -> thread::JoinHandle<()> {
        let shared = Arc::clone(self);
        thread::spawn(move || {
            if let Some(held) = shared.cell.hold() {
                assert!(!shared.is_free(), "the lock is free while a job runs");
                drop(held);
            }
        })
    }
}

#[test]
fn last_job_or_release_frees_the_lock() {
    explore(|| {
        let shared = Shared::new();
        let jobs = [shared.start_job(), shared.start_job()];
        shared.cell.release_when_idle();
        assert!(shared.cell.hold().is_none(), "no job begins after the release");
        jobs.into_iter().for_each(|job| job.join().unwrap());
        assert!(shared.is_free());
    });
}

#[test]
fn closing_job_waits_for_others_and_frees() {
    explore(|| {
        let shared = Shared::new();
        let jobs = [shared.start_job(), shared.start_job()];
        let held = shared.cell.hold();
        shared.cell.release_from_last_job();
        assert!(shared.is_free());
        drop(held);
        jobs.into_iter().for_each(|job| job.join().unwrap());
    });
}

/// Polls `release` beside a job that frees the lock.
fn release_beside_a_job<F: Future<Output = ()> + 'static>(release: fn(Arc<Shared>) -> F) {
    explore(move || {
        let shared = Shared::new();
        let job = shared.start_job();
        let (bell, waker) = WakeCount::new();
        let context = &mut Context::from_waker(&waker);
        let mut release: Pin<&mut F> = pin!(release(Arc::clone(&shared)));
        let is_ready = release.as_mut().poll(context).is_ready();
        assert!(!is_ready || shared.is_free());
        job.join().unwrap();
        assert!(is_ready || bell.count() == 1, "a wake-up is lost");
        assert!(is_ready || release.poll(context).is_ready());
    });
}

#[test]
fn waiter_for_release_sees_it_or_is_woken() {
    release_beside_a_job(|shared| async move { shared.cell.release().await });
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn control_state_read_before_the_count() {
    release_beside_a_job(|shared| async move {
        shared.cell.release_when_idle();
        while !shared.cell.state().is_free {
            let count = shared.cell.freed.count();
            shared.cell.freed.rung_since(count).await;
        }
    });
}
