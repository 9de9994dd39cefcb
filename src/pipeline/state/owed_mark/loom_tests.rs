//! A debt beside a watching thread that ends: no mark stays owed without a thread that sees it.

use std::sync::Arc;

use loom::thread;

use super::*;
use crate::pipeline::state::{loom_tests::explore, scheduled::Scheduled};

/// Owes a mark while the watching thread, which has seen no debt, ends. `owe` returns whether the
/// caller has to start a watching thread.
fn race(owe: fn(&OwedMark, &Scheduled) -> bool) {
    let shared = Arc::new((OwedMark::new(), Scheduled::new()));
    assert!(shared.1.claim(|| true), "the thread of an earlier call");
    let theirs = Arc::clone(&shared);
    let watch = thread::spawn(move || theirs.1.release(|| theirs.0.is_owed()));
    let starts_thread = owe(&shared.0, &shared.1);
    let continues = watch.join().unwrap();
    assert!(starts_thread || continues, "no thread sees the debt");
    assert!(!(starts_thread && continues), "two threads see the debt");
}

#[test]
fn debt_beside_ending_watch_is_seen() {
    explore(|| {
        race(|owed, is_watched| {
            owed.owe();
            is_watched.claim(|| true)
        });
    });
}

#[test]
#[should_panic(expected = "no thread sees the debt")]
fn debt_that_is_stored_late_is_caught() {
    explore(|| {
        race(|owed, is_watched| {
            let starts_thread = is_watched.claim(|| true);
            owed.owe();
            starts_thread
        });
    });
}

/// The last handle and the watching thread take the same debt: one of them writes the mark.
#[test]
fn one_thread_takes_the_debt() {
    explore(|| {
        let owed = Arc::new(OwedMark::new());
        owed.owe();
        let theirs = Arc::clone(&owed);
        let other = thread::spawn(move || theirs.take());
        let takes = owed.take();
        assert!(takes ^ other.join().unwrap());
    });
}
