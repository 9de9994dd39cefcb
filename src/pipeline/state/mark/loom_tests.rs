//! Waiters beside threads that advance, cancel and stop.

use std::sync::Arc;

use loom::{sync::atomic::AtomicBool, thread};

use super::*;
use crate::pipeline::state::loom_tests::{WakeCount, explore};

const TARGET: Lsn = Lsn::new(8);

type Register = fn(&Mark, Lsn, &mut Option<WaiterId>, &Waker) -> bool;

fn spawn(mark: &Arc<Mark>, act: impl FnOnce(&Mark) + 'static) -> thread::JoinHandle<()> {
    let mark = Arc::clone(mark);
    thread::spawn(move || act(&mark))
}

fn register_beside_advance(register: Register, advance: fn(&Mark, Lsn)) {
    explore(move || {
        let mark = Arc::new(Mark::new(Lsn::ZERO));
        let advancer = spawn(&mark, move |mark| advance(mark, TARGET));
        let (bell, waker) = WakeCount::new();
        let reached = register(&mark, TARGET, &mut None, &waker);
        advancer.join().unwrap();
        assert!(reached || bell.count() == 1, "a wake-up is lost");
        assert_eq!(mark.waiter_count(), 0);
    });
}

#[test]
fn waiter_sees_the_mark_or_is_woken() {
    register_beside_advance(Mark::register, Mark::advance);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn control_mark_not_read_again_under_lock() {
    let register: Register = |mark, target, waiter, waker| {
        if mark.get() >= target {
            return true;
        }
        *waiter = Some(mark.queue.lock_always().insert(Rank::Writer, target, waker.clone()));
        false
    };
    register_beside_advance(register, Mark::advance);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn control_mark_stored_after_waking() {
    register_beside_advance(Mark::register, |mark, to| {
        let reached = mark.queue.lock_always().take_reached(to);
        reached.into_iter().for_each(Waker::wake);
        mark.value.fetch_max(to, Ordering::AcqRel);
    });
}

/// As in `Reached`: a stop after the check wakes the waiter.
fn register_beside_a_stop(looks_first: bool) {
    explore(move || {
        let mark = Arc::new(Mark::new(Lsn::ZERO));
        let stopped = Arc::new(AtomicBool::new(false));
        let stopper = spawn(&mark, {
            let stopped = Arc::clone(&stopped);
            move |mark| {
                stopped.store(true, Ordering::Release);
                mark.wake_all();
            }
        });
        let (bell, waker) = WakeCount::new();
        let mut seen = looks_first && stopped.load(Ordering::Acquire);
        assert!(!mark.register(TARGET, &mut None, &waker));
        seen |= !looks_first && stopped.load(Ordering::Acquire);
        stopper.join().unwrap();
        assert!(seen || bell.count() == 1, "a stop is missed");
    });
}

#[test]
fn waiter_sees_the_stop_or_is_woken() {
    register_beside_a_stop(false);
}

#[test]
#[should_panic(expected = "a stop is missed")]
fn control_status_read_before_registering() {
    register_beside_a_stop(true);
}

/// The next waiter with the same target is still woken once. The queue is empty at the end.
#[test]
fn cancel_beside_advance_leaves_no_waiter() {
    explore(|| {
        let mark = Arc::new(Mark::new(Lsn::ZERO));
        let ((gone_bell, gone_waker), (bell, waker)) = (WakeCount::new(), WakeCount::new());
        let (mut gone, mut stays) = (None, None);
        assert!(!mark.register(TARGET, &mut gone, &gone_waker));
        assert!(!mark.register(TARGET, &mut stays, &waker));
        let advancer = spawn(&mark, |mark| mark.advance(TARGET));
        mark.cancel(gone.unwrap());
        advancer.join().unwrap();
        assert_eq!(bell.count(), 1);
        assert!(gone_bell.count() <= 1);
        let queue = mark.queue.lock_always();
        assert_eq!((queue.waiters.len(), queue.gone_count), (0, 0));
    });
}

#[test]
fn waiters_out_of_order_are_each_woken() {
    explore(|| {
        let mark = Arc::new(Mark::new(Lsn::ZERO));
        let waiters: Vec<_> = [2, 1]
            .map(|times| {
                let (bell, waker) = WakeCount::new();
                let mark = Arc::clone(&mark);
                thread::spawn(move || {
                    let target = Lsn::new(times * TARGET.as_u64());
                    (mark.register(target, &mut None, &waker), bell)
                })
            })
            .into();
        mark.advance(TARGET);
        mark.advance(TARGET.plus(TARGET.as_u64()));
        for waiter in waiters {
            let (reached, bell) = waiter.join().unwrap();
            assert_eq!(bell.count(), usize::from(!reached));
        }
        assert_eq!(mark.waiter_count(), 0);
    });
}

/// Two jobs may advance one mark, the later one first. The mark never goes back, and no waiter is
/// left.
#[test]
fn concurrent_advances_never_go_back() {
    explore(|| {
        let mark = Arc::new(Mark::new(Lsn::ZERO));
        let far = TARGET.plus(8);
        let advancers = [far, TARGET].map(|to| spawn(&mark, move |mark| mark.advance(to)));
        let ((near_bell, near_waker), (far_bell, far_waker)) = (WakeCount::new(), WakeCount::new());
        let far_reached = mark.register(far, &mut None, &far_waker);
        let near_reached = mark.register(TARGET, &mut None, &near_waker);
        assert!(near_reached || !far_reached);
        advancers.into_iter().for_each(|advancer| advancer.join().unwrap());
        assert_eq!(mark.get(), far);
        assert!(far_reached || far_bell.count() == 1);
        assert!(near_reached || near_bell.count() == 1);
    });
}

/// A waiter that was woken early polls again, with another waker.
#[test]
fn waiter_registers_again_beside_advance() {
    explore(|| {
        let mark = Arc::new(Mark::new(Lsn::ZERO));
        let ((_, first_waker), (bell, waker)) = (WakeCount::new(), WakeCount::new());
        let mut id = None;
        assert!(!mark.register(TARGET, &mut id, &first_waker));
        let others = [spawn(&mark, Mark::wake_all), spawn(&mark, |mark| mark.advance(TARGET))];
        let reached = mark.register(TARGET, &mut id, &waker);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(reached || bell.count() == 1);
        assert!(mark.register(TARGET, &mut id, &waker));
        assert_eq!(id, None, "a reached mark keeps no waiter");
        let queue = mark.queue.lock_always();
        assert_eq!((queue.waiters.len(), queue.gone_count), (0, 0));
    });
}

/// A waiter that sees the mark reached keeps no place, even if the mark moves back before the
/// waiters are woken.
#[test]
fn reached_waiter_leaves_beside_lowering() {
    explore(|| {
        let mark = Arc::new(Mark::new(Lsn::ZERO));
        let (_, waker) = WakeCount::new();
        let mut id = None;
        assert!(!mark.register(TARGET, &mut id, &waker));
        let raiser = spawn(&mark, |mark| mark.advance(TARGET));
        let lowerer = spawn(&mark, |mark| {
            mark.lower(Lsn::ZERO);
            mark.wake_all();
        });
        let reached = mark.register(TARGET, &mut id, &waker);
        raiser.join().unwrap();
        lowerer.join().unwrap();
        assert_eq!(reached, id.is_none());
        if let Some(id) = id {
            mark.cancel(id);
        }
        assert_eq!((mark.waiter_count(), mark.writer_count()), (0, 0));
    });
}
