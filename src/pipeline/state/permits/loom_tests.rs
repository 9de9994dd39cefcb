//! Requests beside each other, and beside threads that return bytes.

use std::{pin::pin, sync::Arc};

use loom::thread;

use super::*;
use crate::pipeline::state::loom_tests::{WakeCount, explore};

/// Polls once; `None` while it waits.
fn poll<'a>(request: Pin<&mut Acquire<'a>>, waker: &Waker) -> Option<Result<Permit<'a>, NoPermit>> {
    match request.poll(&mut Context::from_waker(waker)) {
        Poll::Ready(taken) => Some(taken),
        Poll::Pending => None,
    }
}

#[test]
fn request_finds_returned_bytes_or_is_woken() {
    explore(|| {
        let permits = Arc::new(Permits::new(8));
        permits.take_uncontended(8).unwrap().forget();
        let giver = thread::spawn({
            let permits = Arc::clone(&permits);
            move || permits.release(8)
        });
        let (bell, waker) = WakeCount::new();
        let mut request = pin!(permits.acquire(8));
        let taken = poll(request.as_mut(), &waker);
        giver.join().unwrap();
        if taken.is_none() {
            assert!(bell.count() > 0, "a wake-up is lost");
            assert!(poll(request.as_mut(), &waker).is_some_and(|taken| taken.is_ok()));
        } else {
            drop(taken);
        }
        assert_eq!(permits.free_bytes(), 8);
    });
}

#[test]
fn requests_never_exceed_the_total() {
    explore(|| {
        let permits = Arc::new(Permits::new(16));
        let other = thread::spawn({
            let permits = Arc::clone(&permits);
            move || drop(permits.take_uncontended(16))
        });
        let (bell, waker) = WakeCount::new();
        let mut request = pin!(permits.acquire(8));
        let taken = poll(request.as_mut(), &waker);
        let is_taken = taken.is_some();
        drop(taken);
        other.join().unwrap();
        if !is_taken {
            assert!(bell.count() > 0, "a wake-up is lost");
            assert!(poll(request.as_mut(), &waker).is_some());
        }
        assert_eq!(permits.free_bytes(), 16);
        assert!(permits.take_uncontended(16).is_ok(), "no request waits, so the fast way is open");
    });
}

/// The first request gets an offer and is dropped while the second one is polled.
#[test]
fn dropped_request_gives_up_its_turn() {
    explore(|| {
        let permits = Arc::new(Permits::new(8));
        permits.take_uncontended(8).unwrap().forget();
        let dropper = thread::spawn({
            let permits = Arc::clone(&permits);
            move || {
                let mut first = permits.acquire(8);
                let first_polled = poll(Pin::new(&mut first), Waker::noop());
                permits.release(8);
                drop(first_polled);
                drop(first);
            }
        });
        let (bell, waker) = WakeCount::new();
        let mut second = pin!(permits.acquire(8));
        let taken = poll(second.as_mut(), &waker);
        let is_taken = taken.is_some();
        drop(taken);
        dropper.join().unwrap();
        if !is_taken {
            assert!(bell.count() > 0, "a wake-up is lost");
            let taken = (0..4).find_map(|_| poll(second.as_mut(), &waker));
            assert!(taken.is_some_and(|taken| taken.is_ok()));
        }
        assert_eq!(permits.free_bytes(), 8);
    });
}

/// The first request is never polled again. The second one is woken, or wakes itself, until it has
/// its room.
#[test]
fn unpolled_request_blocks_no_polled_one() {
    explore(|| {
        let permits = Arc::new(Permits::new(8));
        permits.take_uncontended(8).unwrap().forget();
        let mut first = permits.acquire(8);
        assert!(poll(Pin::new(&mut first), Waker::noop()).is_none());
        let giver = thread::spawn({
            let permits = Arc::clone(&permits);
            move || permits.release(8)
        });
        let (bell, waker) = WakeCount::new();
        let mut second = pin!(permits.acquire(8));
        let mut taken = poll(second.as_mut(), &waker);
        giver.join().unwrap();
        let mut seen = 0;
        while taken.is_none() {
            let count = bell.count();
            assert!(count > seen, "a wake-up is lost");
            seen = count;
            taken = poll(second.as_mut(), &waker);
        }
        drop(taken);
        drop(first);
        assert_eq!(permits.free_bytes(), 8);
    });
}

#[test]
fn close_wakes_a_request() {
    explore(|| {
        let permits = Arc::new(Permits::new(8));
        permits.take_uncontended(8).unwrap().forget();
        let closer = thread::spawn({
            let permits = Arc::clone(&permits);
            move || permits.close()
        });
        let (bell, waker) = WakeCount::new();
        let mut request = pin!(permits.acquire(8));
        let taken = poll(request.as_mut(), &waker);
        closer.join().unwrap();
        match taken {
            Some(taken) => assert_eq!(taken.err(), Some(NoPermit::Closed)),
            None => {
                assert!(bell.count() > 0, "a wake-up is lost");
                let taken = poll(request.as_mut(), &waker).and_then(Result::err);
                assert_eq!(taken, Some(NoPermit::Closed));
            }
        }
    });
}
