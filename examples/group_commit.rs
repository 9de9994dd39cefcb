//! Group commit: one flush answers everybody who waits for it, so durable commits get cheaper the
//! more tasks make them. There is no timer: a lone writer is never made to wait for company.
//!
//! ```text
//! cargo run --release --example group_commit
//! ```

#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::time::{Duration, Instant};

use highwater::Wal;
use tokio::task::JoinSet;

const RECORD: [u8; 256] = [b'.'; 256];

/// How many tasks, and how many commits each of them makes.
const ROUNDS: [(u32, u32); 5] = [(1, 1000), (8, 500), (64, 300), (256, 150), (1024, 75)];

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let wal = Wal::open(directory.path()).await?;
    commit(&wal, 8, 25).await?; // the first commits also create the log's files

    println!("tasks   commits   commits/s   fsyncs per commit   time of one commit");
    for (tasks, commits_each) in ROUNDS {
        let before = wal.stats().sync_count;
        let elapsed = commit(&wal, tasks, commits_each).await?;
        let fsyncs = wal.stats().sync_count - before;
        print_round(tasks, commits_each, elapsed, fsyncs);
    }
    wal.close().await?;
    Ok(())
}

/// Has each of the tasks commit so many records, one after the other.
async fn commit(wal: &Wal, task_count: u32, commits_each: u32) -> Result<Duration> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..task_count {
        let wal = wal.clone();
        tasks.spawn(async move {
            for _ in 0..commits_each {
                wal.append_and_sync(&RECORD).await?;
            }
            Ok::<_, highwater::Error>(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(begun.elapsed())
}

#[allow(clippy::cast_precision_loss, reason = "rates for a person to read")]
fn print_round(tasks: u32, commits_each: u32, elapsed: Duration, fsyncs: u64) {
    let commits = tasks * commits_each;
    println!(
        "{tasks:>5} {commits:>9} {:>11.0} {:>19.4} {:>20}",
        f64::from(commits) / elapsed.as_secs_f64(),
        fsyncs as f64 / f64::from(commits),
        format!("{:.2?}", elapsed / commits_each), // each task makes one at a time
    );
}
