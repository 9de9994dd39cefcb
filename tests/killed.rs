//! A process killed under load. The model: each record that it acknowledged as
//! written or synced must be there.
//!
//! `HIGHWATER_KILL_ROUNDS` sets the number of kills; 15 by default.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it"
)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use highwater::{Error, Lsn, Wal};

const DIRECTORY: &str = "HIGHWATER_KILLED_DIRECTORY";
const ROUND: &str = "HIGHWATER_KILLED_ROUND";
const TASKS: u64 = 12;

/// Opens the log. Waits for the lock until the last job of the previous handle has ended.
async fn open(directory: &Path) -> Wal {
    let started = Instant::now();
    loop {
        let options = Wal::options().segment_bytes(64 << 10).ring_bytes(16 << 10);
        match options.open(directory).await {
            Err(Error::Locked { .. }) if started.elapsed() < Duration::from_secs(2) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
}

/// Returns the words `round`, `task`, `number`, and bytes derived from them.
fn payload(round: u64, task: u64, number: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    for word in [round, task, number] {
        payload.extend(word.to_le_bytes());
    }
    let more = (round * 31 + task * 7 + number * 13) % 900;
    payload.resize(24 + more as usize, (number % 255) as u8 + 1);
    payload
}

fn words(payload: &[u8]) -> (u64, u64, u64) {
    let word = |i: usize| u64::from_le_bytes(payload[i * 8..i * 8 + 8].try_into().unwrap());
    (word(0), word(1), word(2))
}

/// The child process: appends from 12 tasks until it is killed, and prints acknowledgements.
#[test]
fn child_appends_until_kill() {
    let (Ok(directory), Ok(round)) = (std::env::var(DIRECTORY), std::env::var(ROUND)) else {
        return;
    };
    let round: u64 = round.parse().unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let wal = open(Path::new(&directory)).await;
        let tasks =
            (0..TASKS).map(|task| tokio::spawn(append_until_killed(wal.clone(), round, task)));
        futures::future::join_all(tasks).await;
    });
}

async fn append_until_killed(wal: Wal, round: u64, task: u64) {
    let mut number = 0;
    loop {
        let mut places = Vec::new();
        if task % 4 == 3 {
            let batch = [0, 1, 2].map(|i| payload(round, task, number + i));
            let range = wal.append_batch(&batch).await.unwrap();
            let mut at = range.start.as_u64();
            for part in batch {
                places.push((at, number));
                at += 16 + (part.len() as u64).next_multiple_of(8);
                number += 1;
            }
        } else {
            let payload = payload(round, task, number);
            let lsn = match task % 2 {
                0 => wal.append_and_sync(&payload).await.unwrap(),
                _ => wal.append(&payload).await.unwrap(),
            };
            places.push((lsn.as_u64(), number));
            number += 1;
        }
        for (lsn, number) in places {
            // Written at once, so that a line appears whole or not at all.
            let line = format!("ack {lsn} {task} {number}\n");
            std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        }
        if task % 4 == 1 {
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    }
}

/// The child is not killed before it has acknowledged this many records.
const ACKNOWLEDGED_MIN: usize = 20;

/// Starts and kills a child. Returns the `lsn`, `task` and `number` of acknowledged records.
fn run_and_kill(directory: &Path, round: u64, after: Duration) -> Vec<(Lsn, u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_appends_until_kill", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
    let mut acknowledged = Vec::new();
    let mut kill_at = None;
    let mut killed = false;
    for line in lines {
        let line = String::from_utf8(line.unwrap()).unwrap();
        // The test harness may have written text before the first line.
        let Some(ack) = line.find("ack ").map(|at| &line[at + 4..]) else {
            continue;
        };
        let numbers: Option<Vec<u64>> = ack.split(' ').map(|n| n.parse().ok()).collect();
        if let Some([lsn, task, number]) = numbers.as_deref() {
            acknowledged.push((Lsn::new(*lsn), *task, *number));
        }
        let kill_at = *kill_at.get_or_insert_with(|| Instant::now() + after);
        if !killed && Instant::now() >= kill_at && acknowledged.len() >= ACKNOWLEDGED_MIN {
            child.kill().unwrap();
            killed = true;
        }
    }
    assert!(killed, "the child ended without a kill: {:?}", child.wait());
    child.wait().unwrap();
    // The kill may have cut off the last line.
    acknowledged.pop();
    acknowledged
}

async fn read_all(wal: &Wal) -> Vec<(Lsn, Vec<u8>)> {
    let records = wal.replay(..).map_ok(|record| (record.lsn, record.payload.to_vec()));
    records.try_collect().await.unwrap()
}

/// Checks that each task's records are its own, in order from 0, without a gap.
fn check_order(found: &[(Lsn, Vec<u8>)]) {
    let mut next: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for (lsn, bytes) in found {
        let (round, task, number) = words(bytes);
        assert_eq!(*bytes, payload(round, task, number), "other bytes at {lsn}");
        let next = next.entry((round, task)).or_default();
        assert_eq!(number, *next, "out of order at {lsn}: round {round}, task {task}");
        *next += 1;
    }
    for ((round, task), count) in next {
        assert!(task % 4 != 3 || count % 3 == 0, "part of a batch: round {round}, task {task}");
    }
}

#[test]
fn killed_process_keeps_acknowledged_records() {
    let rounds = std::env::var("HIGHWATER_KILL_ROUNDS").ok().and_then(|n| n.parse().ok());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut acknowledged_count = 0;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut kept = Vec::new();
    let rounds = rounds.unwrap_or(15);
    for round in 0..rounds {
        let after = Duration::from_millis(10 + round * 37 % 190);
        let acknowledged = run_and_kill(&path, round, after);
        acknowledged_count += acknowledged.len();
        let found = runtime.block_on(async {
            let wal = open(&path).await;
            let found = read_all(&wal).await;
            // Every other log stays unclosed, so that the next child recovers it.
            if round % 2 == 0 {
                wal.close().await.unwrap();
            }
            found
        });
        check_order(&found);
        assert_eq!(found[..kept.len()], kept[..], "records of earlier rounds have changed");
        let by_lsn: BTreeMap<_, _> = found.iter().map(|(lsn, payload)| (*lsn, payload)).collect();
        for (lsn, task, number) in acknowledged {
            let expected = payload(round, task, number);
            let kept = by_lsn.get(&lsn).is_some_and(|found| **found == expected);
            assert!(kept, "round {round}: {lsn} (task {task}, {number}) was acknowledged");
        }
        kept = found;
    }
    println!("{acknowledged_count} acknowledged, {} records at the end", kept.len());
    // The last line of each round does not count.
    let floor = rounds * (ACKNOWLEDGED_MIN as u64 - 1);
    assert!(
        acknowledged_count as u64 >= floor,
        "too few records were acknowledged: {acknowledged_count}"
    );
}
