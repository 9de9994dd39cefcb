//! Processes over TCP on loopback, with real files. Either side is killed under load, and nothing
//! that was acknowledged with k = 1 is lost on either side.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures::TryStreamExt;
use highwater::{Lsn, Wal};
use highwater_replicate::{Options, Replica, Replicas, SharedSecret};
use tokio::net::{TcpListener, TcpStream};

const ROLE: &str = "HIGHWATER_REPLICATE_ROLE";
const SEGMENT_BYTES: u64 = 64 << 10;

fn secret() -> SharedSecret {
    SharedSecret::new("of this test")
}

fn log_options() -> highwater::Options {
    Wal::options().segment_bytes(SEGMENT_BYTES).ring_bytes(16 << 10)
}

/// Prints a line, so that the parent has it before this process can be killed.
fn report(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// Leads the log, and appends with k = 1 from several tasks until it is killed.
async fn lead(directory: PathBuf) {
    let wal = log_options().open(directory).await.unwrap();
    let replicas = Replicas::new(&wal, Options::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    report(&format!("port {}", listener.local_addr().unwrap().port()));
    for task in 0..8 {
        let replicas = replicas.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let payload = format!("{task} {number} {}", "x".repeat(number % 700));
                let lsn = replicas.append_and_replicate(payload.clone(), 1).await.unwrap();
                report(&format!("acknowledged {lsn} {payload}"));
            }
        });
    }
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let replicas = replicas.clone();
        tokio::spawn(async move { replicas.serve(stream, &secret()).await });
    }
}

/// Follows the leader until it is killed.
async fn follow(directory: PathBuf, port: u16) {
    let replica = Replica::open("b", directory, Options::default()).await.unwrap();
    loop {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await {
            let _ = replica.follow(stream, &secret()).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The body of the child processes. Without the variable it is an empty test.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut words = role.splitn(3, ' ');
    let (role, port) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
    let directory = PathBuf::from(words.next().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        // A child whose parent is gone ends, too.
        let limit = tokio::time::sleep(Duration::from_secs(60));
        tokio::select! {
            () = limit => {}
            () = async {
                match role {
                    "lead" => lead(directory).await,
                    _ => follow(directory, port).await,
                }
            } => {}
        }
    });
}

/// A child process that is killed when it is dropped.
struct Process(Child);

impl Process {
    fn start(role: &str, port: u16, directory: &Path) -> Process {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(ROLE, format!("{role} {port} {}", directory.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        Process(child.unwrap())
    }

    /// Kills the process, which has no chance to flush anything.
    fn kill(mut self) -> Option<BufReader<std::process::ChildStdout>> {
        let out = self.0.stdout.take().map(BufReader::new);
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        out
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads lines of the leader until it has acknowledged `count` more records.
fn read_acknowledged(
    out: &mut impl BufRead,
    count: usize,
    acknowledged: &mut BTreeMap<u64, String>,
) -> Option<u16> {
    let (mut port, mut seen) = (None, 0);
    let mut line = String::new();
    while seen < count {
        line.clear();
        if out.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
            return port;
        }
        let mut words = line.trim_end_matches('\n').splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("port"), Some(number), None) => {
                port = number.parse().ok();
                return port;
            }
            (Some("acknowledged"), Some(lsn), Some(payload)) => {
                acknowledged.insert(lsn.parse().unwrap(), payload.to_owned());
                seen += 1;
            }
            _ => {}
        }
    }
    port
}

async fn check(wal: &Wal, acknowledged: &BTreeMap<u64, String>) {
    let records: Vec<_> = wal.replay(..).try_collect().await.unwrap();
    let records: BTreeMap<_, _> = records.into_iter().map(|it| (it.lsn, it.payload)).collect();
    for (lsn, payload) in acknowledged {
        assert_eq!(records.get(&Lsn::new(*lsn)).map(|it| &it[..]), Some(payload.as_bytes()));
    }
}

#[test]
fn either_side_can_be_killed_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a"), directory.path().join("b"));
    let mut acknowledged = BTreeMap::new();
    for round in 0..6 {
        let mut leader = Process::start("lead", 0, &a);
        let mut out = BufReader::new(leader.0.stdout.take().unwrap());
        let port = read_acknowledged(&mut out, usize::MAX, &mut acknowledged).unwrap();
        let mut replica = Process::start("follow", port, &b);
        for _ in 0..round % 3 {
            read_acknowledged(&mut out, 100, &mut acknowledged);
            replica.kill();
            replica = Process::start("follow", port, &b);
        }
        read_acknowledged(&mut out, 150, &mut acknowledged);
        // Each order of the two kills. The rest of the leader's lines counts, too.
        if round % 2 == 0 {
            leader.kill();
            replica.kill();
        } else {
            replica.kill();
            leader.kill();
        }
        read_acknowledged(&mut out, usize::MAX, &mut acknowledged);
    }
    assert!(acknowledged.len() > 600);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let wal = log_options().open(&a).await.unwrap();
        check(&wal, &acknowledged).await;
        let replica = Replica::open("b", &b, Options::default()).await.unwrap();
        let epoch = replica.next_epoch().await.unwrap();
        let promoted = replica.promote_with(epoch, log_options()).await.unwrap();
        check(&promoted, &acknowledged).await;
    });
}
