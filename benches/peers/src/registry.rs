//! The contenders: their names, and which works each of them can do.

#[cfg(feature = "rocksdb")]
use crate::contenders::rocksdb;
use crate::{
    contenders::{
        by_hand, fjall, floor, highwater, kaya, okaywal, raft_engine, raft_log, sqlite, wal_db,
    },
    outcome::Outcome,
    tasks, threads,
    work::{Assignment, Kind, Runtime, Work},
};

/// An operation that a contender does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The contender syncs every record.
    Append,
    /// The contender writes one record at a time.
    Batch,
    /// Opening is not measured, because there is no recovery, or `highwater` measures it.
    Open,
    /// The contender either syncs all records or none.
    Mixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Ours,
    Peer,
    /// Code that applications write instead of using a library.
    ByHand,
    /// The operating system without a log.
    Floor,
}

/// The contenders that can drop old records, and a floor that writes over them.
const CHURNING: &[&str] =
    &["highwater", "highwater-in-place", "wal-db", "okaywal", "raft-engine", "raw-zeroed"];

/// The contender that does only commits, to compare the runtimes.
pub const CURRENT_THREAD: &str = "highwater-current-thread";

pub struct Contender {
    pub name: &'static str,
    /// How the bench configures and calls it.
    pub how: &'static str,
    pub role: Role,
    /// True if tasks of a runtime use it; otherwise threads do.
    pub tasks: bool,
    lacks: &'static [Lack],
    pub run: fn(&Assignment) -> Outcome,
}

impl Contender {
    /// Returns whether the contender can do the work in a comparable way.
    pub fn can(&self, work: &Work) -> bool {
        let lacks = |lack| self.lacks.contains(&lack);
        match work.kind {
            // It has its own runtime.
            _ if self.name == CURRENT_THREAD => {
                work.kind == Kind::Commit && work.runtime == Runtime::Multi(2)
            }
            // The runtime does not matter to contenders that use threads.
            _ if work.runtime != Runtime::Multi(2) && !self.tasks => false,
            // With several tasks a floor would make large writes, which `enqueue` measures.
            Kind::Append if self.is_floor() => work.tasks == 1,
            Kind::Commit => true,
            Kind::OpenLoop { .. } => !self.is_floor(),
            Kind::Append | Kind::Enqueue => !lacks(Lack::Append),
            Kind::Mixed { .. } => !lacks(Lack::Append) && !lacks(Lack::Mixed) && !self.is_floor(),
            Kind::Batch { .. } => !lacks(Lack::Batch),
            // `highwater` measures the same read path.
            Kind::Replay => self.name != "highwater-in-place",
            Kind::Open | Kind::Recover => !lacks(Lack::Open),
            Kind::Churn { .. } => CHURNING.contains(&self.name),
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
        how: "inline_writes(65536), inline_syncs(Always), and what --set changes",
        role: Role::Ours,
        tasks: true,
        lacks: &[Lack::Open],
        run: tasks::run::<highwater::Highwater<true>>,
    },
    Contender {
        name: CURRENT_THREAD,
        how: "as highwater, on a current_thread runtime; only commits",
        role: Role::Ours,
        tasks: true,
        lacks: &[],
        run: tasks::run_on_current_thread::<highwater::Highwater>,
    },
    Contender {
        name: "wal-db",
        how: "Wal::open, append_and_sync; segments where records are dropped",
        role: Role::Peer,
        tasks: false,
        lacks: &[Lack::Batch],
        run: wal_db::run,
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
        how: "defaults; a Raft group for each thread, one entry a write; smaller files in churn",
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
        how: "defaults (a flush waits 1 ms for more records); one writer behind a mutex, flush with a callback",
        role: Role::Peer,
        tasks: false,
        lacks: &[],
        run: threads::run::<raft_log::Raft<true>>,
    },
    Contender {
        name: "raft-log-0",
        how: "as raft-log, with flush_batch_wait 0",
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
        how: "one thread, pwrite and fdatasync into a file with reserved blocks (fallocate)",
        role: Role::Floor,
        tasks: false,
        lacks: &[Lack::Open],
        run: threads::run::<floor::Floor<false>>,
    },
];

/// Contenders whose flushes take 1 ms more. They run with `--delayed` or if they are named.
pub static DELAYED: &[Contender] = &[
    Contender {
        name: "highwater-1ms",
        how: "defaults, and what --set changes; a storage that sleeps 1 ms after each flush",
        role: Role::Ours,
        tasks: true,
        lacks: &[Lack::Open],
        run: tasks::run::<highwater::Highwater<false, true>>,
    },
    Contender {
        name: "raw-1ms",
        how: "as raw-zeroed, and sleeps 1 ms after each flush",
        role: Role::Floor,
        tasks: false,
        lacks: &[Lack::Open],
        run: threads::run::<floor::Floor<true, true>>,
    },
];

/// Returns the floor whose flushes a contender's commits are compared with.
pub fn floor_of(contender: &str) -> &'static str {
    let is_delayed = DELAYED.iter().any(|delayed| delayed.name == contender);
    if is_delayed { "raw-1ms" } else { "raw-zeroed" }
}

/// Runs the contender that the assignment names.
pub fn run(assignment: &Assignment) -> Outcome {
    let mut contenders = ALL.iter().chain(DELAYED);
    let contender = contenders.find(|contender| contender.name == assignment.contender);
    (contender.expect("a registered contender").run)(assignment)
}
