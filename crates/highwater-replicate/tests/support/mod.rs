//! Two nodes in one process, on simulated disks, with a stream between them.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "shared by tests that use different parts; a mistake in a test must stop it"
)]

use std::{collections::BTreeMap, future::Future, time::Duration};

use futures::TryStreamExt;
use highwater::{Lsn, Wal, simulation::Disk, storage::Storage};
use highwater_replicate::{Error, Options, Replica, Replicas, Unauthenticated};
use tokio::{io::AsyncReadExt, task::JoinHandle};

/// Small, so that a short run has several segments.
pub const SEGMENT_BYTES: u64 = 8 << 10;

pub fn log_options() -> highwater::Options {
    Wal::options().segment_bytes(SEGMENT_BYTES).ring_bytes(1 << 10)
}

pub fn options() -> Options {
    Options::default()
}

/// Runs a test without a real clock.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(test)
}

/// A connection between a leader and a replica.
pub struct Link {
    pub served: JoinHandle<Result<(), Error>>,
    pub followed: JoinHandle<Result<(), Error>>,
}

impl Link {
    pub fn new(replicas: &Replicas, replica: &Replica) -> Link {
        let (ours, theirs) = tokio::io::duplex(4 << 10);
        let (leader, copy) = (replicas.clone(), replica.clone());
        Link {
            served: tokio::spawn(async move { leader.serve(ours, &Unauthenticated).await }),
            followed: tokio::spawn(async move { copy.follow(theirs, &Unauthenticated).await }),
        }
    }

    /// Cuts the connection, and waits until both sides have noticed.
    pub async fn cut(self) {
        self.served.abort();
        let _ = self.served.await;
        let _ = self.followed.await;
    }

    /// Waits until both sides have ended by themselves. Returns their errors: leader, replica.
    pub async fn ended(self) -> (Error, Error) {
        (self.served.await.unwrap().unwrap_err(), self.followed.await.unwrap().unwrap_err())
    }
}

/// A connection on which the leader's bytes stop after `bytes`, while both sides stay connected.
pub fn stalled(replicas: &Replicas, replica: &Replica, bytes: u64) -> JoinHandle<()> {
    let (near, leader_end) = tokio::io::duplex(4096);
    let (far, replica_end) = tokio::io::duplex(4096);
    let (leader, copy) = (replicas.clone(), replica.clone());
    tokio::spawn(async move {
        let (from_leader, mut to_leader) = tokio::io::split(leader_end);
        let (mut from_replica, mut to_replica) = tokio::io::split(replica_end);
        let mut some = from_leader.take(bytes);
        let forth = async {
            tokio::io::copy(&mut some, &mut to_replica).await.unwrap();
            std::future::pending::<()>().await;
        };
        let (served, followed, ..) = tokio::join!(
            leader.serve(near, &Unauthenticated),
            copy.follow(far, &Unauthenticated),
            tokio::io::copy(&mut from_replica, &mut to_leader),
            forth,
        );
        drop((served, followed));
    })
}

/// Connects again after each end of a connection, as a program does.
pub struct Kept {
    task: JoinHandle<()>,
}

impl Kept {
    pub fn new(replicas: &Replicas, replica: &Replica) -> Kept {
        let (leader, copy) = (replicas.clone(), replica.clone());
        let task = tokio::spawn(async move {
            loop {
                let (served, followed) = Link::new(&leader, &copy).ended().await;
                eprintln!("leader: {served}; replica: {followed}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Kept { task }
    }

    pub async fn cut(self) {
        self.task.abort();
        let _ = self.task.await;
        // The tasks of the connection end when their streams do.
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
}

/// Waits until the replica has everything that the leader has synced.
pub async fn caught_up(wal: &Wal, replica: &Replica) {
    wal.sync().await.unwrap();
    let source = highwater::shipping::Source::new(wal);
    let (epoch, synced) = (source.epoch(), source.synced());
    let mut marks = replica.watch();
    let reached = marks.wait_for(|marks| marks.epoch == epoch && marks.synced >= synced);
    tokio::time::timeout(Duration::from_secs(600), reached).await.unwrap().unwrap();
}

pub async fn replica_on(disk: &Disk) -> Replica {
    Replica::open_with("b", disk.clone(), options()).await.unwrap()
}

/// Opens the copy as soon as its last handle is gone.
pub async fn reopened(disk: &Disk) -> Replica {
    replica_on(disk).await
}

pub fn read_file(storage: &dyn Storage, name: &str) -> Vec<u8> {
    let file = storage.open(name).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    let mut count = 0;
    while count < bytes.len() {
        let read = file.read_at(&mut bytes[count..], count as u64).unwrap();
        assert!(read > 0, "{name}");
        count += read;
    }
    bytes
}

/// Returns the segments of a directory by name.
pub fn segment_files(storage: &dyn Storage) -> BTreeMap<String, Vec<u8>> {
    let names = storage.list().unwrap().into_iter();
    let segments = names.filter(|name| name.ends_with(".wal"));
    segments.map(|name| (name.clone(), read_file(storage, &name))).collect()
}

/// Checks that each segment of the copy is equal to the leader's up to the end of the copy, and
/// zero from there on. `end` is that end.
pub fn assert_identical(leader: &dyn Storage, copy: &dyn Storage, end: Lsn) {
    let (leader, copy) = (segment_files(leader), segment_files(copy));
    assert!(!copy.is_empty());
    let base = |bytes: &[u8]| u64::from_le_bytes(bytes[32..40].try_into().unwrap());
    let ends = copy.values().skip(1).map(|next| base(next)).chain([end.as_u64()]);
    for ((name, bytes), end) in copy.iter().zip(ends) {
        let theirs = leader.get(name).unwrap_or_else(|| panic!("{name} is not the leader's"));
        let used = usize::try_from(4096 + end - base(bytes)).unwrap();
        assert!(bytes[..used] == theirs[..used], "{name} differs");
    }
    let (name, newest) = copy.last_key_value().unwrap();
    let used = usize::try_from(4096 + end.as_u64() - base(newest)).unwrap();
    assert!(newest[used..].iter().all(|&byte| byte == 0), "{name}: bytes after the end");
}

/// Returns the records of a log.
pub async fn records(wal: &Wal) -> Vec<(Lsn, Vec<u8>)> {
    let replay = wal.replay(..).map_ok(|record| (record.lsn, record.payload.to_vec()));
    replay.try_collect().await.unwrap()
}
