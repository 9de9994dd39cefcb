//! Calls that begin beside a watching thread that ends: no call is left unwatched.

use std::sync::Arc;

use loom::thread;

use super::*;
use crate::pipeline::state::loom_tests::explore;

const FILE: Sequence = Sequence(1);

/// The two sides of the protocol, or a broken copy of one of them.
#[derive(Clone, Copy)]
struct Sides {
    /// Begins a call. Returns whether the caller has to start a watching thread.
    begin: fn(&InFlight) -> bool,
    /// Ends the watching thread. Returns whether it has to continue.
    end_watch: fn(&InFlight) -> bool,
}

const REAL: Sides = Sides {
    begin: |calls| {
        calls.begin(Lane::Write, Operation::Write, FILE);
        calls.is_watched.claim(|| true)
    },
    end_watch: |calls| calls.is_watched.release(|| calls.look(Lane::Write).is_in_flight()),
};

/// A call begins while the watching thread, which has seen none, ends.
fn race(sides: Sides) {
    let calls = Arc::new(InFlight::new());
    assert!(calls.is_watched.claim(|| true), "the thread of an earlier call");
    let theirs = Arc::clone(&calls);
    let watch = thread::spawn(move || (sides.end_watch)(&theirs));
    let starts_thread = (sides.begin)(&calls);
    let continues = watch.join().unwrap();
    assert!(starts_thread || continues, "the call is not watched");
    assert!(!(starts_thread && continues), "two threads watch it");
}

#[test]
fn call_beside_ending_watch_is_watched() {
    explore(|| race(REAL));
}

#[test]
#[should_panic(expected = "the call is not watched")]
fn call_that_looks_before_it_stores_is_caught() {
    explore(|| {
        race(Sides {
            begin: |calls| {
                let starts_thread = calls.is_watched.claim(|| true);
                calls.begin(Lane::Write, Operation::Write, FILE);
                starts_thread
            },
            ..REAL
        });
    });
}

#[test]
#[should_panic(expected = "the call is not watched")]
fn watch_that_looks_before_it_ends_is_caught() {
    explore(|| {
        race(Sides {
            end_watch: |calls| {
                let is_in_flight = calls.look(Lane::Write).is_in_flight();
                calls.is_watched.release(|| false);
                is_in_flight
            },
            ..REAL
        });
    });
}

/// A look never mixes the operation of one call with the count of another.
#[test]
fn look_beside_calls_is_of_one_call() {
    explore(|| {
        let calls = Arc::new(InFlight::new());
        let theirs = Arc::clone(&calls);
        let look = thread::spawn(move || theirs.look(Lane::Sync));
        calls.begin(Lane::Sync, Operation::Flush, Sequence(1));
        calls.end(Lane::Sync);
        calls.begin(Lane::Sync, Operation::Prepare, Sequence(2));
        let seen = look.join().unwrap();
        match seen.count {
            1 => assert_eq!((seen.operation, seen.sequence), (Operation::Flush, Sequence(1))),
            3 => assert_eq!((seen.operation, seen.sequence), (Operation::Prepare, Sequence(2))),
            _ => assert!(!seen.is_in_flight()),
        }
    });
}
