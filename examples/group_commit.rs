//! Shows group commit: one flush makes the records of all waiting tasks durable.
//!
//! The example commits from 1 to 1,024 tasks and prints a table. The more tasks commit at the same
//! time, the fewer flushes each commit needs. The log has no timer, so a single task never waits
//! for other tasks. To run it:
//!
//! ```text
//! cargo run --release --example group_commit
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::time::{Duration, Instant};

use highwater::Wal;
use tokio::task::JoinSet;

const RECORD: [u8; 256] = [b'.'; 256];

/// The numbers of tasks, and of commits by each task.
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

/// Lets each task commit `commits_each` records, one after the other. Returns the time it took.
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

#[allow(clippy::cast_precision_loss, reason = "the rates are only printed")]
fn print_round(tasks: u32, commits_each: u32, elapsed: Duration, fsyncs: u64) {
    let commits = tasks * commits_each;
    println!(
        "{tasks:>5} {commits:>9} {:>11.0} {:>19.4} {:>20}",
        f64::from(commits) / elapsed.as_secs_f64(),
        fsyncs as f64 / f64::from(commits),
        format!("{:.2?}", elapsed / commits_each), // a task commits one record at a time
    );
}
