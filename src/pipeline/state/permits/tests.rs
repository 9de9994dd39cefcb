//! The order of requests, futures that are not polled, and leaks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Wake,
};

use futures::FutureExt;

use super::*;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    fn new() -> (Arc<Self>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Polls up to `times` times while the request wakes itself.
fn poll_on<'a>(acquire: &mut Acquire<'a>, times: u32) -> Option<Result<Permit<'a>, NoPermit>> {
    let (count, waker) = Count::new();
    let mut context = Context::from_waker(&waker);
    for _ in 0..times {
        let before = count.get();
        if let Poll::Ready(taken) = acquire.poll_unpin(&mut context) {
            return Some(taken);
        }
        if count.get() == before {
            return None;
        }
    }
    None
}

#[test]
fn permits_return_when_dropped() {
    let permits = Permits::new(64);
    let all = permits.try_acquire(64).unwrap();
    assert_eq!(permits.try_acquire(8).unwrap_err(), NoPermit::Full);
    drop(all);
    permits.try_acquire(64).unwrap().forget();
    permits.release(64);
    assert_eq!(permits.free_bytes(), 64);
}

#[test]
fn large_request_gets_its_turn_beside_small_ones() {
    let permits = Permits::new(64);
    let held = permits.try_acquire(8).unwrap();
    let (count, waker) = Count::new();
    let mut context = Context::from_waker(&waker);
    let mut large = permits.acquire(64);
    assert!(large.poll_unpin(&mut context).is_pending());
    let mut small = permits.acquire(8);
    assert!(small.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(permits.try_acquire(8).unwrap_err(), NoPermit::Full, "it came later");
    assert_eq!(count.get(), 0);
    drop(held);
    assert_eq!(count.get(), 1);
    assert!(small.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
    let taken = large.now_or_never().unwrap().unwrap();
    assert!(poll_on(&mut small, PATIENCE * 4).is_none(), "taken bytes can't be withdrawn");
    drop(taken);
    assert!(poll_on(&mut small, 1).unwrap().is_ok());
}

/// When each write woke all requests in line, a thousand waiting appends cost a million polls.
#[test]
fn watched_release_wakes_only_offered_requests() {
    let permits = Permits::new(64);
    permits.try_acquire(64).unwrap().forget();
    let (first, first_waker) = Count::new();
    let (others, others_waker) = Count::new();
    let mut line: Vec<_> = (0..50).map(|_| permits.acquire(64)).collect();
    for (i, acquire) in line.iter_mut().enumerate() {
        let waker = if i == 0 { &first_waker } else { &others_waker };
        assert!(acquire.poll_unpin(&mut Context::from_waker(waker)).is_pending());
    }
    permits.release_watched(64);
    assert_eq!((first.get(), others.get()), (1, 0));
    assert!(permits.is_stuck(), "until the first one is polled");
    // The watch gives the others their turn, one after the other.
    for _ in 1..50 {
        let mut blocked = Blocked::default();
        permits.watch(&mut blocked);
        permits.watch(&mut blocked);
    }
    assert_eq!(others.get(), 49);
    assert!(poll_on(&mut line[49], 1).unwrap().is_ok(), "the last one is polled");
    assert!(!permits.is_stuck(), "bytes are in flight, or no request waits");
}

#[test]
fn unpolled_request_blocks_no_polled_one() {
    for bytes in [8, 64] {
        let permits = Permits::new(64);
        let held = permits.try_acquire(64).unwrap();
        let (count, waker) = Count::new();
        let mut unpolled = permits.acquire(64);
        assert!(unpolled.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
        let mut polled = permits.acquire(bytes);
        assert!(polled.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        drop(held);
        assert_eq!(count.get(), 1, "it is woken to see whether the other one is polled");
        assert!(poll_on(&mut polled, PATIENCE - 1).is_none(), "the other one has its chance");
        let taken = poll_on(&mut polled, 2).expect("it takes its bytes").unwrap();
        drop(taken);
        assert!(poll_on(&mut unpolled, 1).unwrap().is_ok(), "it only lost its turn");
    }
}

#[test]
fn unpolled_requests_in_a_row_block_no_polled_one() {
    let permits = Permits::new(64);
    let held = permits.try_acquire(64).unwrap();
    let mut unpolled: Vec<_> = (0..5).map(|_| permits.acquire(64)).collect();
    for request in &mut unpolled {
        assert!(request.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    let mut polled = permits.acquire(64);
    assert!(poll_on(&mut polled, 1).is_none());
    drop(held);
    assert!(poll_on(&mut polled, 6 * PATIENCE).expect("it takes its bytes").is_ok());
    assert_eq!(permits.free_bytes(), 64);
}

#[test]
fn unpolled_request_does_not_block_attempts() {
    let permits = Permits::new(64);
    let held = permits.try_acquire(64).unwrap();
    let mut unpolled = permits.acquire(64);
    assert!(unpolled.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(held);
    let refused = (0..=PATIENCE).take_while(|_| permits.try_acquire(8).is_err()).count();
    assert_eq!(refused, PATIENCE as usize - 1);
}

#[test]
fn request_that_lost_its_turn_holds_longer() {
    let permits = Permits::new(64);
    let mut large = permits.acquire(64);
    for round in 0..4 {
        let held = permits.try_acquire(64).unwrap();
        assert!(poll_on(&mut large, 1).is_none());
        let mut other = permits.acquire(8);
        assert!(poll_on(&mut other, 1).is_none());
        drop(held);
        let patience = PATIENCE << round;
        assert!(poll_on(&mut other, patience - 1).is_none(), "round {round}");
        assert!(poll_on(&mut other, 1).is_some(), "round {round}");
    }
}

#[test]
fn dropped_request_gives_up_its_turn() {
    let permits = Permits::new(64);
    let held = permits.try_acquire(64).unwrap();
    let (count, waker) = Count::new();
    let mut first = permits.acquire(64);
    assert!(first.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
    let mut second = permits.acquire(64);
    assert!(second.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    drop(first);
    assert_eq!(count.get(), 0);
    let mut first = permits.acquire(32);
    assert!(first.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(held);
    assert_eq!(count.get(), 1, "the second request has the turn");
    drop(first);
    let taken = poll_on(&mut second, 1).unwrap().unwrap();
    drop(taken);
    // With an offer.
    let held = permits.try_acquire(64).unwrap();
    let (count, waker) = Count::new();
    let mut first = permits.acquire(64);
    assert!(first.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(held);
    let mut second = permits.acquire(64);
    assert!(second.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    let before = count.get();
    drop(first);
    assert_eq!(count.get(), before + 1);
    assert!(poll_on(&mut second, 1).is_some());
    assert_eq!(permits.free_bytes(), 64);
    assert!(permits.try_acquire(64).is_ok(), "appends skip the lock again");
}

#[test]
fn close_refuses_and_wakes_all() {
    let permits = Permits::new(64);
    let held = permits.try_acquire(64).unwrap();
    let (count, waker) = Count::new();
    let mut requests: Vec<_> = (1..4).map(|i| permits.acquire(8 * i)).collect();
    for request in &mut requests {
        assert!(request.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    }
    permits.close();
    assert_eq!(count.get(), 3);
    for request in &mut requests {
        assert_eq!(poll_on(request, 1).unwrap().unwrap_err(), NoPermit::Closed);
    }
    assert_eq!(permits.try_acquire(8).unwrap_err(), NoPermit::Closed);
    drop(held);
}

/// Threads take bytes, wait for them, cancel half way, or do not poll again until the end.
#[test]
fn contention_loses_no_permit() {
    let permits = Permits::new(256);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let permits = &permits;
            scope.spawn(move || {
                let mut held = std::collections::VecDeque::new();
                for round in 0..if cfg!(miri) { 10 } else { 400u64 } {
                    let bytes = 8 << ((round * 7 + thread) % 6);
                    let mut request = permits.acquire(bytes);
                    match (round + thread) % 4 {
                        0 => drop(poll_on(&mut request, 1)),
                        1 => {
                            if poll_on(&mut request, 1).is_none() {
                                held.push_back(request);
                            }
                        }
                        _ => drop(futures::executor::block_on(request).unwrap()),
                    }
                    if held.len() > 3 {
                        held.pop_front();
                    }
                }
            });
        }
    });
    assert_eq!(permits.free_bytes(), 256);
    assert!(permits.queue().is_empty() && permits.try_acquire(256).is_ok());
}
