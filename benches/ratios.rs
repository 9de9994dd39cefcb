//! Compares the log with plain file operations ("floors") in one run, as ratios.
//!
//! `cargo bench --bench ratios [-- ROUNDS]` does every work once in each round. If the machine's
//! speed drifts, it drifts for all works. The end of the run prints the minimum, median and
//! maximum.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a bench may panic, and prints its results"
)]

mod positional;

use std::{
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use highwater::{Preallocation, Wal};
use positional::FileExt;
use tokio::runtime::{Builder, Runtime};

const RECORD: [u8; 256] = [0x5a; 256];
const FRAME_BYTES: u64 = 272;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--memory-child") {
        return memory_child();
    }
    let rounds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(5);
    let mut table = Table::default();
    for round in 0..rounds {
        println!("round {} of {rounds}", round + 1);
        floors(&mut table);
        commits(&mut table);
        enqueue(&mut table);
        replay(&mut table);
        opening(&mut table);
    }
    memory(&mut table);
    table.print();
}

/// The values of each work, one per round.
#[derive(Default)]
struct Table {
    rows: Vec<(&'static str, Vec<f64>)>,
}

impl Table {
    fn add(&mut self, name: &'static str, value: f64) {
        match self.rows.iter_mut().find(|row| row.0 == name) {
            Some(row) => row.1.push(value),
            None => self.rows.push((name, vec![value])),
        }
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.rows.iter().find(|row| row.0 == name).map(|row| row.1.clone()).unwrap_or_default()
    }

    fn print(&self) {
        println!("\n{:<44} {:>12} {:>12} {:>12}", "work", "min", "median", "max");
        for (name, values) in &self.rows {
            let (min, median, max) = spread(values);
            println!("{name:<44} {min:>12.1} {median:>12.1} {max:>12.1}");
        }
        println!("\n{:<44} {:>8} {:>8} {:>8}   target", "ratio", "min", "median", "max");
        for (over, under, target) in RATIOS {
            let pairs = self.values(over).into_iter().zip(self.values(under));
            let ratios: Vec<f64> = pairs.map(|(a, b)| a / b).collect();
            let (min, median, max) = spread(&ratios);
            let name = format!("{over} / {under}");
            println!("{name:<44} {min:>8.2} {median:>8.2} {max:>8.2}   {target}");
        }
    }
}

const COMMITS_1: &str = "commits/s, 1 task";
const COMMITS_64: &str = "commits/s, 64 tasks";
const FLOOR_SYNC: &str = "pwrite + fdatasync/s, zero-filled";
const FLOOR_WRITE: &str = "MiB/s, pwrite 64 KiB, zero-filled";
const FLOOR_WRITE_FRESH: &str = "MiB/s, pwrite 64 KiB, reserved";
const ENQUEUE: &str = "MiB/s, enqueue 256 B, 1 task, zero-filled";
const ENQUEUE_FRESH: &str = "MiB/s, enqueue 256 B, 1 task, reserved";
const ENQUEUE_ROTATING: &str = "MiB/s, enqueue, rotating every 16 MiB";
const OPEN_SMALL: &str = "ms, open after close, 1 MiB";
const OPEN_LARGE: &str = "ms, open after close, 1 GiB";

const RATIOS: [(&str, &str, &str); 5] = [
    (COMMITS_64, COMMITS_1, ">= 12"),
    (COMMITS_1, FLOOR_SYNC, ">= 0.6"),
    (ENQUEUE_FRESH, FLOOR_WRITE_FRESH, ">= 0.9"),
    (ENQUEUE, FLOOR_WRITE, ">= 0.9, see docs"),
    (OPEN_LARGE, OPEN_SMALL, "<= 2"),
];

fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.as_slice() {
        [] => (0.0, 0.0, 0.0),
        sorted => (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]),
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn zero_filled(path: &Path, bytes: u64) -> File {
    let file =
        File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    // As the log does: larger writes leave larger folios, which are slower to flush.
    let zeros = vec![0; 64 << 10];
    for offset in (0..bytes).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset).unwrap();
    }
    file.sync_all().unwrap();
    file
}

type Prepare = fn(&Path, u64) -> File;

fn reserved(path: &Path, bytes: u64) -> File {
    use highwater::storage::{FileStorage, Storage};
    // The storage reserves the space, so that both sides use the same kind of file.
    let directory = FileStorage::create(path.parent().unwrap()).unwrap();
    let file = directory.create("reserved").unwrap();
    file.reserve(bytes).unwrap();
    file.sync_all().unwrap();
    File::options().write(true).open(path.with_file_name("reserved")).unwrap()
}

fn floors(table: &mut Table) {
    let directory = tempfile::tempdir_in(".").unwrap();
    let file = zero_filled(&directory.path().join("floor"), 16 << 20);
    let frame = [0x5a; FRAME_BYTES as usize];
    let (count, begun) = (2000u64, Instant::now());
    for i in 0..count {
        file.write_all_at(&frame, i * FRAME_BYTES).unwrap();
        file.sync_data().unwrap();
    }
    table.add(FLOOR_SYNC, count as f64 / begun.elapsed().as_secs_f64());
}

fn commits(table: &mut Table) {
    for (name, tasks, each) in [(COMMITS_1, 1u64, 2000u64), (COMMITS_64, 64, 1000)] {
        let directory = tempfile::tempdir_in(".").unwrap();
        let elapsed = runtime().block_on(async {
            // Large enough that no run rotates, because rotation has a separate row.
            let wal = Wal::options().segment_bytes(64 << 20).open(directory.path()).await.unwrap();
            let begun = Instant::now();
            let tasks: Vec<_> = (0..tasks)
                .map(|_| {
                    let wal = wal.clone();
                    tokio::spawn(async move {
                        for _ in 0..each {
                            wal.append_and_sync(&RECORD).await.unwrap();
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            begun.elapsed()
        });
        table.add(name, (tasks * each) as f64 / elapsed.as_secs_f64());
    }
}

fn enqueue(table: &mut Table) {
    const TOTAL: u64 = 256 << 20;
    let mib = |elapsed: Duration| TOTAL as f64 / (1 << 20) as f64 / elapsed.as_secs_f64();
    for (name, prepare) in [(FLOOR_WRITE, zero_filled as Prepare), (FLOOR_WRITE_FRESH, reserved)] {
        let directory = tempfile::tempdir_in(".").unwrap();
        let file = prepare(&directory.path().join("floor"), TOTAL);
        let block = vec![0x5a; 64 << 10];
        let begun = Instant::now();
        for offset in (0..TOTAL).step_by(block.len()) {
            file.write_all_at(&block, offset).unwrap();
        }
        table.add(name, mib(begun.elapsed()));
    }
    let works = [
        (ENQUEUE, 2 * TOTAL, Preallocation::ZeroFill),
        (ENQUEUE_FRESH, 2 * TOTAL, Preallocation::Reserve),
        (ENQUEUE_ROTATING, 16 << 20, Preallocation::ZeroFill),
    ];
    for (name, segment_bytes, preallocation) in works {
        let directory = tempfile::tempdir_in(".").unwrap();
        let elapsed = runtime().block_on(async {
            let options = Wal::options().segment_bytes(segment_bytes).preallocation(preallocation);
            let wal = options.open(directory.path()).await.unwrap();
            let begun = Instant::now();
            let task = tokio::spawn(async move {
                let mut last = None;
                for _ in 0..TOTAL / FRAME_BYTES {
                    last = Some(wal.enqueue(&RECORD).await.unwrap());
                }
                last.unwrap().written().await.unwrap();
            });
            task.await.unwrap();
            begun.elapsed()
        });
        table.add(name, mib(elapsed));
    }
}

fn replay(table: &mut Table) {
    let directory = tempfile::tempdir_in(".").unwrap();
    runtime().block_on(async {
        let wal = filled(directory.path(), 128 << 20, 16 << 20).await;
        let task = tokio::spawn(async move {
            let begun = Instant::now();
            let mut records = wal.replay(..);
            let mut count = 0u64;
            while let Some(record) = records.try_next().await.unwrap() {
                count += u64::from(record.payload[0] == 0x5a);
            }
            count as f64 / begun.elapsed().as_secs_f64()
        });
        table.add("records/s, replay 256 B, warm", task.await.unwrap());
    });
}

async fn filled(path: &Path, bytes: u64, segment_bytes: u64) -> Wal {
    let wal = Wal::options().segment_bytes(segment_bytes).open(path).await.unwrap();
    for _ in 0..bytes / FRAME_BYTES {
        wal.enqueue(&RECORD).await.unwrap();
    }
    wal.sync().await.unwrap();
    wal
}

fn opening(table: &mut Table) {
    for (name, bytes) in [(OPEN_SMALL, 1 << 20), (OPEN_LARGE, 1 << 30)] {
        let directory = tempfile::tempdir_in(".").unwrap();
        runtime().block_on(async {
            filled(directory.path(), bytes, 16 << 20).await.close().await.unwrap();
            let mut times = Vec::new();
            for _ in 0..5 {
                let begun = Instant::now();
                let wal = Wal::open(directory.path()).await.unwrap();
                times.push(begun.elapsed().as_secs_f64() * 1e3);
                wal.close().await.unwrap();
            }
            table.add(name, spread(&times).1);
        });
    }
}

/// Measures in a separate process, so that the peak contains nothing else.
fn memory(table: &mut Table) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .arg("--memory-child")
        .output()
        .unwrap();
    let peak: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    table.add("MiB, peak, 1 M appends by 1,000 tasks", peak);
}

fn memory_child() {
    let directory = tempfile::tempdir_in(".").unwrap();
    runtime().block_on(async {
        let wal = Wal::open(directory.path()).await.unwrap();
        let tasks: Vec<_> = (0..1000)
            .map(|_| {
                let wal = wal.clone();
                tokio::spawn(async move {
                    for _ in 0..1000 {
                        wal.append(&RECORD).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{:.1}", kib / 1024.0);
}
