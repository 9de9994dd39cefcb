//! A debt beside a watching thread that ends: no mark stays owed without a thread that sees it.

use std::sync::Arc;

use loom::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::OwedMark;
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
            assert!(owed.owe());
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
            assert!(owed.owe());
            starts_thread
        });
    });
}

/// The last handle and the watching thread take the same debt: one of them writes the mark.
#[test]
fn one_thread_takes_the_debt() {
    explore(|| {
        let owed = Arc::new(OwedMark::new());
        assert!(owed.owe());
        let theirs = Arc::clone(&owed);
        let other = thread::spawn(move || theirs.take());
        let takes = owed.take();
        assert!(takes ^ other.join().unwrap());
    });
}

/// The syncer owes the mark of a flush while the short thread takes the debt of the one before it.
/// `owe` is the real one, or a broken copy.
fn newer_debt(owe: fn(&OwedMark)) {
    let shared = Arc::new((OwedMark::new(), AtomicU64::new(0)));
    assert!(shared.0.owe());
    let theirs = Arc::clone(&shared);
    let short = thread::spawn(move || {
        let (owed, synced) = &*theirs;
        owed.take().then(|| synced.load(Ordering::Acquire))
    });
    shared.1.store(1, Ordering::Release);
    owe(&shared.0);
    let seen = short.join().unwrap();
    assert!(shared.0.is_owed() || seen == Some(1), "the debt of the newer flush is lost");
}

#[test]
fn debt_of_a_newer_flush_is_not_lost() {
    explore(|| {
        newer_debt(|owed| {
            owed.owe();
        });
    });
}

#[test]
#[should_panic(expected = "the debt of the newer flush is lost")]
fn debt_that_is_only_looked_at_is_caught() {
    explore(|| {
        newer_debt(|owed| {
            if !owed.is_owed() {
                owed.owe();
            }
        });
    });
}
