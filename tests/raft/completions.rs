//! Completions run once each, in the order of the log, however the log ends. A purge is fast.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use highwater::{
    Wal,
    raft::{Entries, Error, RaftGroup, RaftLog},
    simulation::{Disk, Faults, Op},
    storage::{FileStorage, MemoryStorage},
};

fn entry(index: u64) -> Entries {
    let mut entries = Entries::new();
    entries.push(index, 1, format!("entry {index}").as_bytes());
    entries
}

/// The LSN and the outcome of each completion, in the order of the calls.
type Outcomes = Arc<Mutex<Vec<(u64, Result<(), Error>)>>>;

/// Appends `count` entries and records their completions.
async fn append_recording(group: &RaftGroup, count: u64, outcomes: &Outcomes) {
    for _ in 0..count {
        let next = group.state().next;
        let ticket = group.append(entry(next)).await.unwrap();
        let (lsn, outcomes) = (ticket.lsn().as_u64(), Arc::clone(outcomes));
        ticket.on_durable(move |outcome| outcomes.lock().unwrap().push((lsn, outcome)));
    }
}

fn assert_in_order(outcomes: &Outcomes, count: usize) {
    let outcomes = outcomes.lock().unwrap();
    assert_eq!(outcomes.len(), count);
    assert!(outcomes.windows(2).all(|pair| pair[0].0 < pair[1].0), "{outcomes:?}");
}

async fn completions_keep_the_order() {
    let directory = tempfile::tempdir().unwrap();
    let log = RaftLog::open(directory.path().join("raft")).await.unwrap();
    let outcomes = Outcomes::default();
    let group = log.group(1);
    append_recording(&group, 500, &outcomes).await;
    log.close().await.unwrap();
    assert_in_order(&outcomes, 500);
    assert!(outcomes.lock().unwrap().iter().all(|(_, outcome)| outcome.is_ok()));
    let refused = group.append(entry(500)).await;
    assert!(matches!(&refused, Err(error) if error.is_closed()), "{refused:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn completions_on_one_thread_keep_the_order() {
    completions_keep_the_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completions_on_many_threads_keep_the_order() {
    completions_keep_the_order().await;
}

/// A completion may call the log, because no lock is held. This one reads the group, registers
/// another completion, and panics.
#[tokio::test]
async fn completion_panics_and_the_others_still_run() {
    let log = RaftLog::options().open_with(MemoryStorage::new()).await.unwrap();
    let group = log.group(1);
    let (sender, received) = mpsc::channel();
    let first = group.append(entry(1)).await.unwrap();
    let second = group.append(entry(2)).await.unwrap();
    let third = group.append(entry(3)).await.unwrap();
    let (inner, second_sender) = (group.clone(), sender.clone());
    first.on_durable(move |_| {
        assert_eq!(inner.state().next, 4);
        assert_eq!(inner.try_read(1..4, u64::MAX).unwrap().unwrap().len(), 3);
        second.on_durable(move |outcome| second_sender.send((2, outcome.is_ok())).unwrap());
        panic!("a completion panics");
    });
    third.on_durable(move |outcome| sender.send((3, outcome.is_ok())).unwrap());
    let received: Vec<_> = received.iter().take(2).collect();
    assert_eq!(received, [(2, true), (3, true)]);
    assert!(group.append(entry(4)).await.is_ok());
}

#[tokio::test]
async fn failed_flush_fails_earlier_and_later_completions() {
    let disk = Disk::new(1);
    let log = RaftLog::options().open_with(disk.clone()).await.unwrap();
    let group = log.group(1);
    group.append(entry(1)).await.unwrap().synced().await.unwrap();
    let tickets = [group.append(entry(2)).await.unwrap(), group.append(entry(3)).await.unwrap()];
    disk.faults().on(Op::Sync).once().fail_os(5);
    let outcomes = Outcomes::default();
    for ticket in tickets {
        let (lsn, outcomes) = (ticket.lsn().as_u64(), Arc::clone(&outcomes));
        ticket.on_durable(move |outcome| outcomes.lock().unwrap().push((lsn, outcome)));
    }
    assert_in_order(&outcomes, 2);
    assert!(outcomes.lock().unwrap().iter().all(|(_, outcome)| outcome.is_err()));
    let refused = group.append(entry(4)).await;
    assert!(matches!(&refused, Err(error) if error.is_poisoned()), "{refused:?}");
    // The appended entries can still be read.
    assert_eq!(group.read(1..4, u64::MAX).await.unwrap().len(), 3);
}

#[test]
fn runtime_gone_calls_every_completion() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("raft");
    let faults = Faults::new();
    let gate = faults.on(Op::Sync).skip(3).gate();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let outcomes = Outcomes::default();
    let recorded = Arc::clone(&outcomes);
    let group = runtime.block_on(async {
        let storage = faults.over(FileStorage::create(&path).unwrap()).on_pool();
        let log = RaftLog::options().open_with(storage).await.unwrap();
        let group = log.group(1);
        append_recording(&group, 20, &recorded).await;
        group
    });
    // The pool is dropped with jobs that never started.
    runtime.shutdown_background();
    gate.open();
    let began = Instant::now();
    while outcomes.lock().unwrap().len() < 20 {
        // A sync requested after the runtime is gone completes too.
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", outcomes.lock().unwrap());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_in_order(&outcomes, 20);
    drop(group);
}

#[tokio::test]
async fn dropped_log_calls_every_completion() {
    let directory = tempfile::tempdir().unwrap();
    let outcomes = Outcomes::default();
    {
        let log = RaftLog::open(directory.path().join("raft")).await.unwrap();
        append_recording(&log.group(1), 100, &outcomes).await;
    }
    let began = Instant::now();
    while outcomes.lock().unwrap().len() < 100 {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_in_order(&outcomes, 100);
}

/// `HIGHWATER_PURGE_ENTRIES` sets the number of entries; the default takes about a second.
#[tokio::test(flavor = "current_thread")]
async fn purge_of_many_entries_does_not_block_appends() {
    let count = std::env::var("HIGHWATER_PURGE_ENTRIES");
    let count: u64 = count.map_or(60_000, |count| count.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let wal = Wal::options().segment_bytes(1 << 20);
    let log = RaftLog::options().wal(wal).open(directory.path().join("raft")).await.unwrap();
    let group = log.group(1);
    // One record per entry, so that the purge drops as many records as possible.
    for index in 1..=count {
        drop(group.append(entry(index)).await.unwrap());
    }
    log.sync().await.unwrap();
    let began = Instant::now();
    let ticket = group.purge(count - 10, 1, "id").await.unwrap();
    let purge = began.elapsed();
    let mut longest = Duration::ZERO;
    for index in count + 1..count + 200 {
        let began = Instant::now();
        drop(group.append(entry(index)).await.unwrap());
        longest = longest.max(began.elapsed());
    }
    ticket.synced().await.unwrap();
    println!("{count} entries: the purge took {purge:?}, the longest append after it {longest:?}");
    assert_eq!(group.state().first, count - 9);
    assert!(purge < Duration::from_secs(1), "{purge:?}");
    log.close().await.unwrap();
}
