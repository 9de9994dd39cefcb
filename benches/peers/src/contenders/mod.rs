//! Who takes part, and what each of them can do.

mod by_hand;
mod fjall;
mod floor;
pub mod highwater;
mod kaya;
mod okaywal;
mod raft_engine;
mod raft_log;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sqlite;
mod wal_db;

use std::{future::Future, path::Path};

use crate::{
    outcome::Outcome,
    tasks, threads,
    work::{Assignment, Kind, Runtime, Work},
};

/// A log that blocks: used by threads.
pub trait Log: Send + Sync + Sized + 'static {
    /// One thread does the work of all tasks, a record of each at a time: what a floor is.
    const ALONE: bool = false;
    type Writer<'a>: Writer;

    fn open(assignment: &Assignment) -> Self;
    fn writer(&self, lane: usize) -> Self::Writer<'_>;
    /// Reads every record there is in `directory`, page cache warm. Whatever its interface makes
    /// part of it is timed.
    fn replay(assignment: &Assignment, each: &mut dyn FnMut(&[u8])) -> Replayed;
    /// As its documentation says a program should end.
    fn close(self) {}
}

/// One thread's way into a log.
pub trait Writer {
    fn append(&mut self, record: &[u8]);
    fn commit(&mut self, record: &[u8]);
    /// An append that needn't be answered before the next; `drain` waits for all of them.
    fn enqueue(&mut self, record: &[u8]) {
        self.append(record);
    }
    /// All records as one, durable if `sync`.
    fn batch(&mut self, records: &[Vec<u8>], sync: bool);
    /// Ends a run of appends that were only handed over.
    fn drain(&mut self) {}
}

/// A log that is async: used by tasks. Its handle is cheap to clone.
pub trait AsyncLog: Clone + Send + Sync + 'static {
    type Ticket: Send;

    fn open(assignment: &Assignment) -> impl Future<Output = Self> + Send;
    fn append(&self, record: &[u8]) -> impl Future<Output = ()> + Send;
    fn commit(&self, record: &[u8]) -> impl Future<Output = ()> + Send;
    /// Hands a record over without waiting for it.
    fn enqueue(&self, record: &[u8]) -> impl Future<Output = Self::Ticket> + Send;
    /// Waits for a record that was handed over, and with it for those before it.
    fn drain(ticket: Self::Ticket) -> impl Future<Output = ()> + Send;
    fn batch(&self, records: &[Vec<u8>]) -> impl Future<Output = ()> + Send;
    fn replay(
        assignment: &Assignment,
        each: &mut (dyn FnMut(&[u8]) + Send),
    ) -> impl Future<Output = Replayed> + Send;
    fn close(self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// The time that reading took; the records are counted by who asked for them.
#[derive(Clone, Copy, Debug)]
pub struct Replayed {
    pub seconds: f64,
}

/// What some contenders have no way to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Every record it takes is synced.
    Append,
    /// One record at a time.
    Batch,
    /// Nothing there is a log that opens.
    Open,
    /// Whether it syncs is set for all at once.
    Mixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Ours,
    Peer,
    /// What people write themselves.
    ByHand,
    /// What the operating system does without a log.
    Floor,
}

pub struct Contender {
    pub name: &'static str,
    /// How it is used.
    pub how: &'static str,
    pub role: Role,
    /// It is used by tasks of a runtime; else by threads.
    pub tasks: bool,
    lacks: &'static [Lack],
    pub run: fn(&Assignment) -> Outcome,
}

impl Contender {
    pub fn can(&self, work: &Work) -> bool {
        let lacks = |lack| self.lacks.contains(&lack);
        match work.kind {
            // Runtimes are of no concern to threads.
            _ if work.runtime != Runtime::Multi(2) && !self.tasks => false,
            // A floor of many appends would be one of large writes, which `enqueue` has.
            Kind::Append if self.is_floor() => work.tasks == 1,
            Kind::Commit => true,
            Kind::OpenLoop { .. } => !self.is_floor(),
            Kind::Append | Kind::Enqueue => !lacks(Lack::Append),
            Kind::Mixed { .. } => !lacks(Lack::Append) && !lacks(Lack::Mixed) && !self.is_floor(),
            Kind::Batch { .. } => !lacks(Lack::Batch),
            // Reading is the same.
            Kind::Replay => self.name != "highwater-in-place",
            Kind::Open | Kind::Recover => !lacks(Lack::Open),
            Kind::Follow => self.name == "highwater",
        }
    }

    pub fn is_floor(&self) -> bool {
        self.role == Role::Floor
    }

    pub fn is_highwater(&self) -> bool {
        self.role == Role::Ours
    }
}

pub static ALL: &[Contender] = &[
    Contender {
        name: "highwater",
        how: "defaults, and what --set changes",
        role: Role::Ours,
        tasks: true,
        lacks: &[],
        run: tasks::run::<highwater::Highwater>,
    },
    Contender {
        name: "highwater-in-place",
        how: "inline_writes(65536), inline_syncs(true), and what --set changes",
        role: Role::Ours,
        tasks: true,
        lacks: &[Lack::Open],
        run: tasks::run::<highwater::Highwater<true>>,
    },
    Contender {
        name: "wal-db",
        how: "Wal::open, append_and_sync",
        role: Role::Peer,
        tasks: false,
        lacks: &[Lack::Batch],
        run: threads::run::<wal_db::WalDb>,
    },
    Contender {
        name: "okaywal",
        how: "defaults; an entry of one chunk each, committed",
        role: Role::Peer,
        tasks: false,
        lacks: &[Lack::Append],
        run: threads::run::<okaywal::OkayWal>,
    },
    Contender {
        name: "raft-engine",
        how: "defaults; a Raft group for each thread, one entry a write",
        role: Role::Peer,
        tasks: false,
        lacks: &[],
        run: threads::run::<raft_engine::RaftEngine>,
    },
    Contender {
        name: "kaya-wal",
        how: "defaults, Strict or Relaxed; async, blocks in the future",
        role: Role::Peer,
        tasks: true,
        lacks: &[Lack::Batch],
        run: tasks::run::<kaya::Kaya>,
    },
    Contender {
        name: "raft-log",
        how: "defaults (waits 1 ms for company); one writer behind a mutex, flush with a callback",
        role: Role::Peer,
        tasks: false,
        lacks: &[],
        run: threads::run::<raft_log::Raft<true>>,
    },
    Contender {
        name: "raft-log-0",
        how: "the same with flush_batch_wait 0",
        role: Role::Peer,
        tasks: false,
        lacks: &[],
        run: threads::run::<raft_log::Raft<false>>,
    },
    Contender {
        name: "fjall",
        how: "defaults; insert, persist(SyncData) for commits",
        role: Role::Peer,
        tasks: false,
        lacks: &[],
        run: threads::run::<fjall::Fjall>,
    },
    #[cfg(feature = "rocksdb")]
    Contender {
        name: "rocksdb",
        how: "defaults; a write of one put, sync for commits",
        role: Role::Peer,
        tasks: false,
        lacks: &[],
        run: threads::run::<rocksdb::RocksDb>,
    },
    Contender {
        name: "sqlite",
        how: "WAL mode, one connection behind a mutex; FULL for commits, NORMAL for appends",
        role: Role::Peer,
        tasks: false,
        lacks: &[Lack::Mixed],
        run: threads::run::<sqlite::Sqlite>,
    },
    Contender {
        name: "spawn-blocking",
        how: "by hand: one spawn_blocking for each append, a file that grows",
        role: Role::ByHand,
        tasks: true,
        lacks: &[Lack::Open],
        run: tasks::run::<by_hand::SpawnBlocking>,
    },
    Contender {
        name: "mutex-file",
        how: "by hand: a mutex and a file that grows",
        role: Role::ByHand,
        tasks: false,
        lacks: &[Lack::Open],
        run: threads::run::<by_hand::MutexFile>,
    },
    Contender {
        name: "raw-zeroed",
        how: "one thread, pwrite and fdatasync into a zero-filled file",
        role: Role::Floor,
        tasks: false,
        lacks: &[Lack::Open],
        run: threads::run::<floor::Floor<true>>,
    },
    Contender {
        name: "raw-reserved",
        how: "the same into a file whose blocks are reserved (fallocate)",
        role: Role::Floor,
        tasks: false,
        lacks: &[Lack::Open],
        run: threads::run::<floor::Floor<false>>,
    },
];

pub fn named(name: &str) -> Option<&'static Contender> {
    ALL.iter().find(|contender| contender.name == name)
}

/// A name for a log that is one file.
fn one_file(directory: &Path) -> std::path::PathBuf {
    directory.join("log")
}

/// Where a log is a map: in the order in which a thread wrote.
fn key(lane: usize, number: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&(lane as u32).to_be_bytes());
    key[4..].copy_from_slice(&number.to_be_bytes());
    key
}
