//! Costs of slots, alternating with a log without them.
//!
//! `cargo bench --bench slots [-- ROUNDS]` prints, for each round: commits of 64 tasks, without a
//! slot and with one that advances with each record; and opening and truncating a log with 0 and
//! with 1,000 slots.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench may panic, and prints its results"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use highwater::Wal;
use tokio::runtime::{Builder, Runtime};

const RECORD: [u8; 256] = [0x5a; 256];
const TASKS: usize = 64;
const TIME: Duration = Duration::from_millis(1500);

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Returns the commits of 64 tasks in a second.
async fn commits(with_slot: bool) -> f64 {
    let directory = tempfile::tempdir_in(".").unwrap();
    let wal = Wal::open(directory.path()).await.unwrap();
    let slot = match with_slot {
        true => Some(Arc::new(wal.slot("consumer").await.unwrap())),
        false => None,
    };
    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (wal, slot) = (wal.clone(), slot.clone());
            tokio::spawn(async move {
                let mut count = 0u64;
                while begun.elapsed() < TIME {
                    let lsn = wal.append_and_sync(&RECORD).await.unwrap();
                    if let Some(slot) = &slot {
                        slot.advance(lsn).unwrap();
                    }
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

/// Returns the milliseconds of opening a log that was closed, of opening one that was not, and of a
/// truncation.
async fn many(slot_count: usize) -> [f64; 3] {
    let directory = tempfile::tempdir_in(".").unwrap();
    let wal = Wal::open(directory.path()).await.unwrap();
    for slot in 0..slot_count {
        drop(wal.slot(&format!("consumer {slot}")).await.unwrap());
    }
    for _ in 0..(64 << 20) / 272 {
        wal.enqueue(&RECORD).await.unwrap();
    }
    wal.sync().await.unwrap();
    wal.close().await.unwrap();
    let ms = |begun: Instant| begun.elapsed().as_secs_f64() * 1e3;
    let begun = Instant::now();
    let wal = Wal::open(directory.path()).await.unwrap();
    let closed = ms(begun);
    assert_eq!(wal.slots().len(), slot_count);
    let lsn = wal.append_and_sync(&RECORD).await.unwrap();
    let begun = Instant::now();
    wal.truncate_before(lsn).await.unwrap();
    let truncated = ms(begun);
    drop(wal);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    let wal = Wal::open(directory.path()).await.unwrap();
    let unclosed = ms(begun);
    assert_eq!(wal.slots().len(), slot_count);
    [closed, unclosed, truncated]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds: u32 = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(5);
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        // The order alternates, because the speed of a machine drifts.
        let mut rates = [0.0; 2];
        for with_slot in [round % 2 == 0, round % 2 == 1] {
            rates[usize::from(with_slot)] = runtime().block_on(commits(with_slot));
        }
        let [off, on] = rates;
        ratios.push(on / off);
        println!("round {round}: commits/s without a slot {off:.0}, with {on:.0}: {:.3}", on / off);
        for slot_count in [0, 1000] {
            let [closed, unclosed, truncated] = runtime().block_on(many(slot_count));
            println!(
                "  {slot_count:>4} slots: opened after close in {closed:.1} ms, else in \
                 {unclosed:.1} ms, truncated in {truncated:.1} ms"
            );
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio of commits: {:.3}", ratios[ratios.len() / 2]);
}
