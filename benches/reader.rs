//! Measures reading with a `Reader`.
//!
//! Compares its replay with the replay of the log itself. Measures the delay of a follower that
//! polls, the cost of a poll of an unchanged log, and the speed of salvage on a damaged log.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench may panic, prints its results, and rounds them"
)]

use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use highwater::{Lsn, Reader, Record, Wal};

const LOG_BYTES: u64 = 64 << 20;
const RUNS: usize = 7;

async fn count<E>(mut records: impl Stream<Item = Result<Record, E>> + Unpin) -> (u64, u64) {
    let (mut whole, mut damaged) = (0, 0);
    while let Some(record) = records.next().await {
        *if record.is_ok() { &mut whole } else { &mut damaged } += 1;
    }
    (whole, damaged)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

async fn replays() {
    for record_bytes in [32, 256, 4096] {
        let directory = tempfile::tempdir_in(".").unwrap();
        let wal = Wal::open(directory.path()).await.unwrap();
        for _ in 0..LOG_BYTES / record_bytes {
            wal.enqueue(vec![0x5a; usize::try_from(record_bytes).unwrap()]).await.unwrap();
        }
        wal.sync().await.unwrap();
        let reader = Reader::options().written(true).open(directory.path()).await.unwrap();
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..RUNS {
            let begun = Instant::now();
            let replay = wal.replay(..);
            tokio::spawn(count(replay)).await.unwrap();
            times[0].push(begun.elapsed());
            let begun = Instant::now();
            let replay = reader.replay(..);
            tokio::spawn(count(replay)).await.unwrap();
            times[1].push(begun.elapsed());
            let begun = Instant::now();
            let salvage = Reader::options().salvage(directory.path()).await.unwrap();
            tokio::spawn(count(salvage)).await.unwrap();
            times[2].push(begun.elapsed());
        }
        let rates = times.map(|times| LOG_BYTES as f64 / median(times).as_secs_f64() / 1e9);
        println!(
            "{record_bytes:>5} B: Wal::replay {:.2} GB/s, Reader::replay {:.2} GB/s, salvage {:.2} GB/s",
            rates[0], rates[1], rates[2]
        );
    }
}

/// Measures the time from the end of a sync until the follower returns the record.
async fn latencies(interval: Duration) {
    let directory = tempfile::tempdir_in(".").unwrap();
    let wal = Wal::open(directory.path()).await.unwrap();
    let reader = Reader::options().poll_interval(interval).open(directory.path()).await.unwrap();
    let mut tail = reader.follow(Lsn::ZERO);
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let follower = tokio::spawn(async move {
        while let Some(Ok(_)) = tail.next().await {
            if sender.send(Instant::now()).is_err() {
                break;
            }
        }
    });
    let mut late = Vec::new();
    for i in 0..150u64 {
        // Varies the position within the poll interval.
        tokio::time::sleep(Duration::from_micros(i * 137 % 5000)).await;
        wal.append_and_sync(b"how late").await.unwrap();
        let synced = Instant::now();
        late.push(receiver.recv().await.unwrap().saturating_duration_since(synced));
    }
    late.sort();
    follower.abort();
    println!(
        "follow, interval {interval:?}: p50 {:?}, p99 {:?} after the sync",
        late[late.len() / 2],
        late[late.len() * 99 / 100]
    );
}

/// Measures a refresh of a log that has not grown.
async fn idle() {
    for segment_count in [1, 1000] {
        let directory = tempfile::tempdir_in(".").unwrap();
        let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
        let wal = options.open(directory.path()).await.unwrap();
        for _ in 1..segment_count {
            wal.append(vec![1; 4000]).await.unwrap();
        }
        wal.close().await.unwrap();
        let begun = Instant::now();
        let reader = Reader::open(directory.path()).await.unwrap();
        let opened = begun.elapsed();
        let begun = Instant::now();
        for _ in 0..100 {
            reader.refresh().await.unwrap();
        }
        println!("{segment_count} segments: open {opened:?}, refresh {:?}", begun.elapsed() / 100);
    }
}

async fn damaged() {
    let directory = tempfile::tempdir_in(".").unwrap();
    let wal = Wal::open(directory.path()).await.unwrap();
    for _ in 0..LOG_BYTES / 256 {
        wal.enqueue(vec![0x5a; 256]).await.unwrap();
    }
    wal.close().await.unwrap();
    let mut hits = 0;
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        for at in (8192..bytes.len()).step_by(64 << 10) {
            bytes[at] ^= 1;
            hits += 1;
        }
        std::fs::write(&path, bytes).unwrap();
    }
    let begun = Instant::now();
    let salvage = Reader::options().salvage(directory.path()).await.unwrap();
    let (whole, gaps) = tokio::spawn(count(salvage)).await.unwrap();
    let rate = LOG_BYTES as f64 / begun.elapsed().as_secs_f64() / 1e9;
    println!("salvage with {hits} damaged bytes: {whole} records, {gaps} gaps, {rate:.2} GB/s");
}

#[tokio::main]
async fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    replays().await;
    for interval in [20, 1] {
        latencies(Duration::from_millis(interval)).await;
    }
    idle().await;
    damaged().await;
}
