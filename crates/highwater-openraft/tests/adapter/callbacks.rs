//! The callback of an append is always called: once, in order, never under a lock, and with the
//! error if there is one.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use highwater::{
    Error, OnStall, Wal,
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

/// Returns the error of the log inside an error of the store.
fn cause(error: &io::Error) -> &Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>());
    match inner.expect("a StoreError is inside") {
        StoreError::Log { source, .. } => source.log_error().expect("an error of the log"),
        other => panic!("{other}"),
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(Duration::from_secs(60), future).await;
    answer.unwrap_or_else(|_| panic!("{what}: no answer"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callbacks_of_all_groups_come_in_log_order() {
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
                // Every reader can read the entry at once.
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
            // The recording tasks may overtake each other, but none is missing.
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

/// With a blocked device, each callback comes after all earlier callbacks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callback_comes_after_its_flush_and_earlier_ones() {
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

/// While the disk hangs, a log that fails its waiters never reports an entry as saved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callback_during_a_stall_gets_an_error() {
    let faults = Faults::new();
    let short = Duration::from_millis(40);
    let policy = OnStall::FailWaiters { after: 2 * short };
    let options = Store::options().wal(Wal::options().stall_after(short).on_stall(policy));
    let log = options.open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    let mut store = Store::of_log(log).unwrap();
    append_durably(&mut store, entries(1, 1..2)).await.unwrap();
    let gate = faults.on(Op::Sync).once().gate();
    let held = append(&mut store, entries(1, 2..3)).await.unwrap();
    let error = within("the callback", held).await.unwrap().unwrap_err();
    assert!(cause(&error).is_indeterminate(), "{error}");
    assert!(store.health().get().is_stalled());
    let vote = store.save_vote(&openraft::Vote::new(2, 1)).await.unwrap_err();
    assert!(cause(&vote).is_indeterminate(), "{vote}");
    gate.open();
    let mut health = store.health();
    let thawed = health.wait_for(|health| !health.is_stalled());
    within("the end of the stall", thawed).await.unwrap();
    append_durably(&mut store, entries(1, 3..4)).await.unwrap();
    assert_eq!(store.try_get_log_entries(1..).await.unwrap(), entries(1, 1..4));
}

/// The callback uses the store at once, as RaftCore may if it is woken in place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callback_may_use_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).await.unwrap();
    let group = store.group().clone();
    drop(append(&mut store, entries(1, 1..9)).await.unwrap());
    let (send, receive) = tokio::sync::oneshot::channel();
    let ticket = group.set_vote("x").await.unwrap();
    ticket.on_durable(move |outcome| {
        outcome.unwrap();
        // Both take the group's lock.
        let cached = group.decoded(1..9, u64::MAX).parts.len();
        send.send((group.state().next, cached)).unwrap();
    });
    let seen = within("the callback", receive).await.unwrap();
    assert_eq!(seen, (9, 1));
}

#[tokio::test]
async fn failed_flush_fails_callbacks_and_later_calls() {
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

    // The callback is called once even if the log rejects the entries.
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

    // After reopening, the log holds the acknowledged entries.
    drop(store);
    let disk = disk.crash(highwater::simulation::Survival::Nothing);
    let mut store = Medium::Disk(disk).open(Store::options()).await.unwrap();
    assert_eq!(store.try_get_log_entries(..3).await.unwrap(), entries(1, 1..3));
    assert_eq!(store.read_vote().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_completes_pending_and_rejects_later_appends() {
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
async fn runtime_end_completes_every_callback() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let other = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let opened = other.spawn(async move { Store::open(path).await });
    let mut store = opened.await.unwrap().unwrap();
    append_durably(&mut store, entries(1, 1..2)).await.unwrap();
    other.shutdown_background();
    // The runtime's threads first finish their current jobs.
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

/// An append that is dropped while it waits for room reports an error to its callback.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_append_calls_back_with_an_error() {
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
    // The log continues to work.
    append_durably(&mut store, entries(1, next..next + 1)).await.unwrap();
    let read = store.try_get_log_entries(..).await.unwrap();
    assert_eq!(read, entries(1, 1..next + 1));
}
