//! Commits with one replica on loopback against commits without one, and catch-up against a raw
//! copy. Both sides flush real files.
//!
//! `cargo bench -p highwater-replicate --bench replication -- [commits | catch-up]`

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program that prints its measurements"
)]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener as StdListener, TcpStream as StdStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use highwater::{Wal, shipping::Source};
use highwater_replicate::{Options, Replica, Replicas, Unauthenticated};
use tokio::net::{TcpListener, TcpStream};

const RUN: Duration = Duration::from_secs(4);
const RECORD_BYTES: usize = 256;
const CATCH_UP_BYTES: u64 = 1 << 30;

/// Connects a replica to a leader over TCP on loopback.
async fn connect(replicas: &Replicas, replica: &Replica) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (leader, copy) = (replicas.clone(), replica.clone());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        println!("leader: {:?}", leader.serve(stream, &Unauthenticated).await);
    });
    tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        println!("replica: {:?}", copy.follow(stream, &Unauthenticated).await);
    });
}

struct Commits {
    per_second: f64,
    /// From the local sync to the sync of the replica.
    lag: Vec<Duration>,
}

async fn commits(wal: &Wal, replicas: Option<&Replicas>, tasks: usize) -> Commits {
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let lags = Arc::new(Mutex::new(Vec::new()));
    let begun = Instant::now();
    let mut running = Vec::new();
    for _ in 0..tasks {
        let (wal, replicas) = (wal.clone(), replicas.cloned());
        let (stop, count, lags) = (Arc::clone(&stop), Arc::clone(&count), Arc::clone(&lags));
        running.push(tokio::spawn(async move {
            let payload = vec![7; RECORD_BYTES];
            let mut own = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match &replicas {
                    None => drop(wal.append_and_sync(&payload).await.unwrap()),
                    Some(replicas) => {
                        let ticket = wal.enqueue(&payload).await.unwrap();
                        ticket.synced().await.unwrap();
                        let synced = Instant::now();
                        replicas.replicated(&ticket, 1).await.unwrap();
                        own.push(synced.elapsed());
                    }
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            lags.lock().unwrap().extend(own);
        }));
    }
    tokio::time::sleep(RUN).await;
    let (committed, time) = (count.load(Ordering::Relaxed), begun.elapsed());
    stop.store(true, Ordering::Relaxed);
    for task in running {
        task.await.unwrap();
    }
    let mut lag = std::mem::take(&mut *lags.lock().unwrap());
    lag.sort_unstable();
    Commits { per_second: committed as f64 / time.as_secs_f64(), lag }
}

async fn measure_commits(directory: &Path) {
    for tasks in [64, 1024] {
        let wal = Wal::open(directory.join(format!("a{tasks}"))).await.unwrap();
        let replicas = Replicas::new(&wal, Options::default());
        let copy = directory.join(format!("b{tasks}"));
        let replica = Replica::open("b", copy, Options::default()).await.unwrap();
        let mut connected = false;
        for round in 0..3 {
            let local = commits(&wal, None, tasks).await.per_second;
            let flush = wal.stats().sync_time.p50;
            if !connected {
                connect(&replicas, &replica).await;
                replicas.append_and_replicate("connected", 1).await.unwrap();
                connected = true;
            }
            let both = commits(&wal, Some(&replicas), tasks).await;
            let at = |percent: usize| both.lag[both.lag.len() * percent / 100];
            println!(
                "{tasks} tasks, round {round}: {local:.0} commits/s with the replica idle or away, \
                 {:.0} with k = 1: {:.2}; lag p50 {:?}, p99 {:?}; flush p50 {flush:?}",
                both.per_second,
                both.per_second / local,
                at(50),
                at(99),
            );
        }
    }
}

/// Copies files over a loopback connection, with a flush of each.
fn raw_copy(from: &Path, to: &Path) -> Duration {
    fs::create_dir(to).unwrap();
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut names: Vec<_> = fs::read_dir(from).unwrap().map(|it| it.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    names.sort();
    let begun = Instant::now();
    let sender = std::thread::spawn(move || {
        let mut stream = StdStream::connect(address).unwrap();
        let mut buffer = vec![0; 256 << 10];
        for path in names {
            let mut file = fs::File::open(&path).unwrap();
            stream.write_all(&file.metadata().unwrap().len().to_le_bytes()).unwrap();
            loop {
                let count = file.read(&mut buffer).unwrap();
                if count == 0 {
                    break;
                }
                stream.write_all(&buffer[..count]).unwrap();
            }
        }
    });
    let (mut stream, _) = listener.accept().unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut number = 0;
    loop {
        let mut length = [0; 8];
        if stream.read_exact(&mut length).is_err() {
            break;
        }
        let mut left = usize::try_from(u64::from_le_bytes(length)).unwrap();
        let mut file = fs::File::create(to.join(number.to_string())).unwrap();
        while left > 0 {
            let wanted = left.min(buffer.len());
            let count = stream.read(&mut buffer[..wanted]).unwrap();
            file.write_all(&buffer[..count]).unwrap();
            left -= count;
        }
        file.sync_data().unwrap();
        number += 1;
    }
    sender.join().unwrap();
    begun.elapsed()
}

async fn measure_catch_up(directory: &Path) {
    let from = directory.join("a");
    let wal = Wal::open(&from).await.unwrap();
    let payload = vec![7; 4 << 10];
    for _ in 0..CATCH_UP_BYTES / (4 << 10) {
        wal.append(&payload).await.unwrap();
    }
    wal.sync().await.unwrap();
    let synced = Source::new(&wal).synced();
    let replicas = Replicas::new(&wal, Options::default());
    for round in 0..3 {
        let to = directory.join(format!("raw{round}"));
        let source = from.clone();
        let target = to.clone();
        let raw = tokio::task::spawn_blocking(move || raw_copy(&source, &target)).await.unwrap();
        fs::remove_dir_all(&to).unwrap();
        let copy = directory.join(format!("b{round}"));
        let replica = Replica::open("b", &copy, Options::default()).await.unwrap();
        let begun = Instant::now();
        connect(&replicas, &replica).await;
        let mut marks = replica.watch();
        marks.wait_for(|marks| marks.synced >= synced).await.unwrap();
        let caught_up = begun.elapsed();
        println!(
            "catch-up of 1 GiB, round {round}: {caught_up:?}, raw copy {raw:?}: {:.2}",
            raw.as_secs_f64() / caught_up.as_secs_f64()
        );
        replicas.forget("b").await.unwrap();
        drop(replica);
        fs::remove_dir_all(&copy).unwrap();
    }
}

#[tokio::main]
async fn main() {
    let which: Vec<_> = std::env::args().filter(|it| !it.starts_with("--")).skip(1).collect();
    let parent = std::env::var("HIGHWATER_BENCH_DIR").unwrap_or_else(|_| ".".to_owned());
    let directory = tempfile::tempdir_in(parent).unwrap();
    if which.is_empty() || which.iter().any(|it| it == "commits") {
        measure_commits(directory.path()).await;
    }
    if which.is_empty() || which.iter().any(|it| it == "catch-up") {
        measure_catch_up(directory.path()).await;
    }
}
