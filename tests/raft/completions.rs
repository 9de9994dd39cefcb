//! Completions: each once, in the order of the log, whatever ends the log; and nobody waits for a purge.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use highwater::{
    Error, Wal,
    raft::{Entries, RaftGroup, RaftLog},
    simulation::{Disk, Faults, Op},
    storage::{FileStorage, MemoryStorage},
};

fn entry(index: u64) -> Entries {
    let mut entries = Entries::new();
    entries.push(index, 1, format!("entry {index}").as_bytes());
    entries
}

type Answers = Arc<Mutex<Vec<(u64, Result<(), Error>)>>>;

/// Appends so many entries and notes their completions.
async fn append_noting(group: &RaftGroup, count: u64, answers: &Answers) {
    for _ in 0..count {
        let next = group.state().next;
        let ticket = group.append(entry(next)).await.unwrap();
        let (lsn, answers) = (ticket.lsn().as_u64(), Arc::clone(answers));
        ticket.on_durable(move |outcome| answers.lock().unwrap().push((lsn, outcome)));
    }
}

fn assert_in_order(answers: &Answers, count: usize) {
    let answers = answers.lock().unwrap();
    assert_eq!(answers.len(), count);
    assert!(answers.windows(2).all(|pair| pair[0].0 < pair[1].0), "{answers:?}");
}

async fn in_order_on_files() {
    let directory = tempfile::tempdir().unwrap();
    let log = RaftLog::open(directory.path().join("raft")).await.unwrap();
    let answers = Answers::default();
    let group = log.group(1);
    append_noting(&group, 500, &answers).await;
    log.close().await.unwrap();
    assert_in_order(&answers, 500);
    assert!(answers.lock().unwrap().iter().all(|(_, outcome)| outcome.is_ok()));
    let refused = group.append(entry(500)).await;
    assert!(matches!(refused, Err(Error::Closed { .. })), "{refused:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn completions_come_in_order_on_one_thread() {
    in_order_on_files().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completions_come_in_order_on_many_threads() {
    in_order_on_files().await;
}

/// A completion may do whatever a caller may, as no lock is held: this one asks the group, registers
/// another, and panics.
#[tokio::test]
async fn completions_run_without_a_lock_and_one_that_panics_takes_no_other_with_it() {
    let log = RaftLog::options().open_with(MemoryStorage::new()).await.unwrap();
    let group = log.group(1);
    let (told, heard) = mpsc::channel();
    let first = group.append(entry(1)).await.unwrap();
    let second = group.append(entry(2)).await.unwrap();
    let third = group.append(entry(3)).await.unwrap();
    let (inner, tell) = (group.clone(), told.clone());
    first.on_durable(move |_| {
        assert_eq!(inner.state().next, 4);
        assert_eq!(inner.try_read(1..4, u64::MAX).unwrap().unwrap().len(), 3);
        second.on_durable(move |outcome| tell.send((2, outcome.is_ok())).unwrap());
        panic!("a completion's own mistake");
    });
    third.on_durable(move |outcome| told.send((3, outcome.is_ok())).unwrap());
    let heard: Vec<_> = heard.iter().take(2).collect();
    assert_eq!(heard, [(2, true), (3, true)]);
    assert!(group.append(entry(4)).await.is_ok());
}

#[tokio::test]
async fn a_failed_flush_is_told_to_every_completion_and_to_those_that_come_later() {
    let disk = Disk::new(1);
    let log = RaftLog::options().open_with(disk.clone()).await.unwrap();
    let group = log.group(1);
    group.append(entry(1)).await.unwrap().synced().await.unwrap();
    let tickets = [group.append(entry(2)).await.unwrap(), group.append(entry(3)).await.unwrap()];
    disk.faults().on(Op::Sync).once().fail_os(5);
    let answers = Answers::default();
    for ticket in tickets {
        let (lsn, answers) = (ticket.lsn().as_u64(), Arc::clone(&answers));
        ticket.on_durable(move |outcome| answers.lock().unwrap().push((lsn, outcome)));
    }
    assert_in_order(&answers, 2);
    assert!(answers.lock().unwrap().iter().all(|(_, outcome)| outcome.is_err()));
    let refused = group.append(entry(4)).await;
    assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
    // What was appended can still be read.
    assert_eq!(group.read(1..4, u64::MAX).await.unwrap().len(), 3);
}

#[test]
fn a_runtime_that_is_gone_answers_every_completion() {
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
    let answers = Answers::default();
    let noted = Arc::clone(&answers);
    let group = runtime.block_on(async {
        let storage = faults.over(FileStorage::create(&path).unwrap()).on_pool();
        let log = RaftLog::options().open_with(storage).await.unwrap();
        let group = log.group(1);
        append_noting(&group, 20, &noted).await;
        group
    });
    // The pool goes with jobs that were never begun.
    runtime.shutdown_background();
    gate.open();
    let began = Instant::now();
    while answers.lock().unwrap().len() < 20 {
        // One more sync is asked of what is gone: that is answered too.
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", answers.lock().unwrap());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_in_order(&answers, 20);
    drop(group);
}

#[tokio::test]
async fn a_log_that_is_dropped_answers_every_completion() {
    let directory = tempfile::tempdir().unwrap();
    let answers = Answers::default();
    {
        let log = RaftLog::open(directory.path().join("raft")).await.unwrap();
        append_noting(&log.group(1), 100, &answers).await;
    }
    let began = Instant::now();
    while answers.lock().unwrap().len() < 100 {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_in_order(&answers, 100);
}

/// `HIGHWATER_PURGE_ENTRIES` sets how many entries; the default is what takes about a second.
#[tokio::test(flavor = "current_thread")]
async fn a_purge_of_very_many_entries_keeps_nobody_waiting() {
    let count = std::env::var("HIGHWATER_PURGE_ENTRIES");
    let count: u64 = count.map_or(60_000, |count| count.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let wal = Wal::options().segment_bytes(1 << 20);
    let log = RaftLog::options().wal(wal).open(directory.path().join("raft")).await.unwrap();
    let group = log.group(1);
    // One record an entry: the most that there can be to let go.
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
