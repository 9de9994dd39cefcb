//! The callback of an append: always called, once, in order, never under a lock, and with the error
//! when there is one.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use highwater::{
    Error,
    simulation::{Disk, Faults, Op},
    storage::MemoryStorage,
};
use highwater_openraft::{LogStore, StoreError};
use openraft::{
    RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
    type_config::TypeConfigExt,
};

use crate::{
    medium::{Medium, Store, append, append_durably, entries, tiny},
    state_machine::Types,
};

/// What Highwater said, inside what openraft is told.
fn cause(error: &io::Error) -> &Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>());
    match inner.expect("a StoreError is inside") {
        StoreError::Log { source, .. } => source,
        other => panic!("{other}"),
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(Duration::from_secs(60), future).await;
    answer.unwrap_or_else(|_| panic!("{what}: no answer"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callbacks_come_in_the_order_of_the_log_from_all_groups() {
    const GROUPS: u64 = 8;
    const APPENDS: u64 = 200;
    let directory = tempfile::tempdir().unwrap();
    let log = Store::options().open(directory.path()).await.unwrap();
    let mut tasks = Vec::new();
    for group in 0..GROUPS {
        let mut store = Store::of_group(log.group(group)).unwrap();
        tasks.push(tokio::spawn(async move {
            let called = Arc::new(Mutex::new(Vec::new()));
            let mut ends = Vec::new();
            for index in 1..=APPENDS {
                let answered = append(&mut store, entries(1, index..index + 1)).await.unwrap();
                // Readable at once, by every reader.
                let read = store.get_log_reader().await.try_get_log_entries(index..).await;
                assert_eq!(read.unwrap(), entries(1, index..index + 1));
                let called = Arc::clone(&called);
                ends.push(tokio::spawn(async move {
                    answered.await.expect("it is called").unwrap();
                    called.lock().unwrap().push(index);
                }));
            }
            for end in ends {
                end.await.unwrap();
            }
            // The tasks that note it may overtake each other; none is missing.
            let mut called = called.lock().unwrap().clone();
            called.sort_unstable();
            assert_eq!(called, (1..=APPENDS).collect::<Vec<_>>());
        }));
    }
    for task in tasks {
        within("a group", task).await.unwrap();
    }
    let syncs = log.wal().stats().sync_count;
    assert!(syncs < GROUPS * APPENDS / 2, "{syncs} flushes: they are shared");
    log.close().await.unwrap();
}

/// When a callback comes, all of those before it have come: looked at with a device that is held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_callback_comes_before_the_flush_nor_before_an_earlier_one() {
    let faults = Faults::new();
    let storage = faults.over(MemoryStorage::new()).on_pool();
    let log = Store::options().open_with(storage).await.unwrap();
    let mut store = Store::of_log(log).unwrap();
    append_durably(&mut store, entries(1, 1..2)).await.unwrap();

    let gate = faults.on(Op::Sync).once().gate();
    let mut called = Vec::new();
    for index in 2..50 {
        called.push(append(&mut store, entries(1, index..index + 1)).await.unwrap());
    }
    within("the flush begins", gate.reached(1)).await;
    assert!(called.iter_mut().all(|called| called.try_recv().is_err()), "called before the flush");
    gate.open();
    let last = called.pop().unwrap();
    within("the last one", last).await.unwrap().unwrap();
    for mut called in called {
        called.try_recv().expect("those before it have been called").unwrap();
    }
}

/// A callback that uses the store at once, as RaftCore may when it is woken in place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_can_be_used_from_within_a_callback() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).await.unwrap();
    let group = store.group().clone();
    drop(append(&mut store, entries(1, 1..9)).await.unwrap());
    let (send, receive) = tokio::sync::oneshot::channel();
    let ticket = group.set_vote("x").await.unwrap();
    ticket.on_durable(move |outcome| {
        outcome.unwrap();
        // Both take the group's lock.
        let kept = group.kept(1..9, u64::MAX).parts.len();
        send.send((group.state().next, kept)).unwrap();
    });
    let seen = within("the callback", receive).await.unwrap();
    assert_eq!(seen, (9, 1));
}

#[tokio::test]
async fn a_failed_flush_reaches_every_callback_and_every_later_call() {
    let disk = Disk::new(1);
    let mut store = Medium::Disk(disk.clone()).open(Store::options()).await.unwrap();
    append_durably(&mut store, entries(1, 1..3)).await.unwrap();
    disk.faults().on(Op::Sync).fail(io::ErrorKind::TimedOut);
    let first = append(&mut store, entries(1, 3..4)).await;
    let error = match first {
        Ok(called) => called.await.expect("it is called").unwrap_err(),
        Err(error) => error,
    };
    assert!(cause(&error).is_poisoned(), "{error}");
    assert!(error.to_string().contains("raft group 0"), "{error}");

    // Also when the log doesn't take the entries at all, the callback is called, once.
    disk.faults().heal();
    let (send, called) = Types::oneshot();
    let error = store.append(entries(1, 4..5), IOFlushed::signal(send)).await.unwrap_err();
    assert!(cause(&error).is_poisoned(), "{error}");
    let error = within("the callback", called).await.expect("it is called").unwrap_err();
    assert!(cause(&error).is_poisoned(), "{error}");
    let vote = openraft::Vote::new(2, 1);
    assert!(cause(&store.save_vote(&vote).await.unwrap_err()).is_poisoned());
    assert!(cause(&store.save_committed(None).await.unwrap_err()).is_poisoned());
    assert!(cause(&store.truncate_after(None).await.unwrap_err()).is_poisoned());

    // Opened again, it holds what was answered.
    drop(store);
    let disk = disk.crash(highwater::simulation::Survival::Nothing);
    let mut store = Medium::Disk(disk).open(Store::options()).await.unwrap();
    assert_eq!(store.try_get_log_entries(..3).await.unwrap(), entries(1, 1..3));
    assert_eq!(store.read_vote().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_answers_what_is_on_its_way_and_refuses_what_comes_later() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).await.unwrap();
    let mut called = Vec::new();
    for index in 1..100 {
        called.push(append(&mut store, entries(1, index..index + 1)).await.unwrap());
    }
    within("closing", store.close()).await.unwrap();
    for called in called {
        within("a callback", called).await.expect("it is called").unwrap();
    }
    let (send, called) = Types::oneshot();
    let error = store.append(entries(1, 100..101), IOFlushed::signal(send)).await.unwrap_err();
    assert!(cause(&error).is_closed(), "{error}");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    let error = within("the callback", called).await.expect("it is called").unwrap_err();
    assert!(cause(&error).is_closed(), "{error}");
    within("closing again", store.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_logs_runtime_answers_every_callback() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let other = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let opened = other.spawn(async move { Store::open(path).await });
    let mut store = opened.await.unwrap().unwrap();
    append_durably(&mut store, entries(1, 1..2)).await.unwrap();
    other.shutdown_background();
    // Its threads end when they are done with what they are at; until then all is as usual.
    let ends = async {
        for index in 2.. {
            let (send, called) = Types::oneshot();
            let entries = entries(1, index..index + 1);
            let appended = store.append(entries, IOFlushed::signal(send)).await;
            let called = within("a callback", called).await.expect("it is called");
            assert!(appended.is_ok() || called.is_err());
            if called.is_err() {
                break;
            }
        }
    };
    within("a log without a runtime makes nothing durable", ends).await;
}

/// An append that is dropped while it waits for room has promised nothing, and its callback says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_append_calls_back_with_an_error() {
    let faults = Faults::new();
    let storage = faults.over(MemoryStorage::new()).on_pool();
    let log = tiny().open_with(storage).await.unwrap();
    let mut store: LogStore<Types> = LogStore::of_log(log).unwrap();
    append_durably(&mut store, entries(1, 1..2)).await.unwrap();
    let gate = faults.on(Op::Write).once().gate();
    let mut on_their_way = Vec::new();
    let mut next = 2;
    let mut cancelled = loop {
        let (send, called) = Types::oneshot();
        let appended = store.append(entries(1, next..next + 20), IOFlushed::signal(send));
        match tokio::time::timeout(Duration::from_millis(200), appended).await {
            Ok(appended) => {
                appended.unwrap();
                on_their_way.push(called);
                next += 20;
            }
            Err(_) => break called,
        }
        assert!(next < 10_000, "a ring of a kibibyte is full some day");
    };
    let error = cancelled.try_recv().expect("it is called").unwrap_err();
    assert!(error.to_string().contains("cancelled"), "{error}");
    gate.open();
    for called in on_their_way {
        within("a callback", called).await.expect("it is called").unwrap();
    }
    // And the log goes on where it was.
    append_durably(&mut store, entries(1, next..next + 1)).await.unwrap();
    let read = store.try_get_log_entries(..).await.unwrap();
    assert_eq!(read, entries(1, 1..next + 1));
}
