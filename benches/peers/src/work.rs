//! The works as data. A child process gets its work as JSON.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// A workload, the same for every contender that can do it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The name that `--only` matches.
    pub name: String,
    pub kind: Kind,
    /// The number of tasks for async logs, or of threads (at most [`THREADS_MAX`]) for the others.
    pub tasks: usize,
    pub records: Records,
    pub runtime: Runtime,
    /// The payload bytes that a work with a fixed amount writes or reads; 0 without a fixed amount.
    pub bytes: u64,
    /// The payload bytes in the log before the work starts.
    pub filled_bytes: u64,
    /// `KEY=VALUE` settings for Highwater's contenders. The command line's settings override them.
    pub settings: Vec<String>,
}

/// The most threads that a blocking contender gets, because more are not a realistic use.
pub const THREADS_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Each operation is durable when it returns.
    Commit,
    /// Each operation has been written to the operating system when it returns.
    Append,
    /// One task appends without waiting, and at the end waits until all records are written.
    Enqueue,
    /// Batches of `records` records, each durable when it returns.
    Batch { records: usize },
    /// Every `commit_every`-th operation is a commit, the others are appends.
    Mixed { commit_every: usize },
    /// Commits that start at fixed times: `per_second` commits in bursts of `burst`.
    OpenLoop { per_second: u64, burst: u64 },
    /// Durable batches of `records` records, in a log that keeps its newest `keep_bytes`.
    Churn { records: usize, keep_bytes: u64 },
    /// Reads the whole log with a warm page cache.
    Replay,
    /// Tasks commit, and a reader follows the log.
    Follow,
    /// Opens a log that was closed.
    Open,
    /// Opens a log whose process ended without closing it.
    Recover,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Records {
    Fixed(usize),
    /// Many small and few large records: see [`crate::records`].
    Mixture,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runtime {
    CurrentThread,
    Multi(usize),
}

/// When a child process stops.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Limits {
    pub warm_up: Duration,
    pub measure: Duration,
    /// If set, the run ends after this number of operations of all tasks together.
    pub operations: Option<u64>,
    /// True if the work has a fixed amount. All of it is measured, and `measure` is only a time
    /// limit.
    pub fixed: bool,
}

/// The input of a child process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assignment {
    pub contender: String,
    pub work: Work,
    pub limits: Limits,
    /// The directory of the log, which no other run uses.
    pub directory: PathBuf,
    /// Only write the log that the work needs, and end as the work requires.
    pub prepare: bool,
    /// Read the log back, and check that it has all acknowledged records.
    pub verify: bool,
    /// `KEY=VALUE` settings for Highwater's contenders.
    pub settings: Vec<String>,
}

impl Assignment {
    /// Returns the file for contenders whose log is a single file.
    pub fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }
}

impl Work {
    fn new(name: String, kind: Kind, tasks: usize, record: usize) -> Self {
        let records = Records::Fixed(record);
        let (runtime, settings) = (Runtime::Multi(2), Vec::new());
        Work { name, kind, tasks, records, runtime, bytes: 0, filled_bytes: 0, settings }
    }

    pub fn commit(tasks: usize) -> Self {
        Work::new(format!("commit/{tasks}"), Kind::Commit, tasks, RECORD)
    }

    pub fn append(tasks: usize) -> Self {
        Work::new(format!("append/{tasks}"), Kind::Append, tasks, RECORD)
    }

    pub fn enqueue(record: usize, bytes: u64) -> Self {
        let work = Work::new(format!("enqueue/{record}"), Kind::Enqueue, 1, record);
        Work { bytes, ..work }
    }

    /// One million appends by 1,000 tasks; the result is the peak memory.
    pub fn memory() -> Self {
        let bytes = 1_000_000 * RECORD as u64;
        Work { bytes, ..Work::new("memory/1000".to_owned(), Kind::Append, 1000, RECORD) }
    }

    pub fn batch(records: usize) -> Self {
        Work::new(format!("batch/{records}"), Kind::Batch { records }, 1, RECORD)
    }

    /// Commits of records of `record` bytes, by 8 tasks.
    pub fn commit_of(record: usize) -> Self {
        Work::new(format!("commit-of/{record}"), Kind::Commit, 8, record)
    }

    /// Commits by 64 tasks through a ring of `bytes` bytes.
    pub fn ring(bytes: u64) -> Self {
        let work = Work::new(format!("ring/{bytes}"), Kind::Commit, 64, RECORD);
        Work { settings: vec![format!("ring_bytes={bytes}")], ..work }
    }

    /// Commits by 64 tasks into a log that already has `bytes` payload bytes.
    pub fn into_log(bytes: u64) -> Self {
        let work = Work::new(format!("log/{bytes}"), Kind::Commit, 64, RECORD);
        Work { filled_bytes: bytes, ..work }
    }

    /// Returns the work that fills the log beforehand, if this work needs a filled log.
    pub fn preparing(&self) -> Option<Work> {
        match self.kind {
            Kind::Replay | Kind::Open | Kind::Recover => Some(self.clone()),
            _ if self.filled_bytes > 0 => {
                Some(Work { kind: Kind::Open, bytes: self.filled_bytes, ..self.clone() })
            }
            _ => None,
        }
    }

    /// Records of mixed sizes, by 64 tasks.
    pub fn mixture(kind: Kind, name: &str) -> Self {
        let work = Work::new(format!("mixture/{name}"), kind, 64, RECORD);
        Work { records: Records::Mixture, ..work }
    }

    /// Durable batches of 64 records, `bytes` in total. The log keeps the newest eighth.
    pub fn churn(record: usize, bytes: u64) -> Self {
        let kind = Kind::Churn { records: 64, keep_bytes: bytes / 8 };
        Work { bytes, ..Work::new(format!("churn/{record}"), kind, 1, record) }
    }

    pub fn mixed(commit_every: usize) -> Self {
        let kind = Kind::Mixed { commit_every };
        Work::new(format!("mixed/{commit_every}"), kind, 64, RECORD)
    }

    pub fn open_loop(per_second: u64, burst: u64) -> Self {
        let kind = Kind::OpenLoop { per_second, burst };
        let name = match burst {
            1 => format!("open-loop/{per_second}"),
            burst => format!("bursts/{burst}-of-{per_second}"),
        };
        Work::new(name, kind, THREADS_MAX, RECORD)
    }

    pub fn follow(tasks: usize) -> Self {
        Work::new(format!("follow/{tasks}"), Kind::Follow, tasks, RECORD)
    }

    pub fn open(bytes: u64) -> Self {
        let work = Work::new(format!("open/{}", size(bytes)), Kind::Open, 1, RECORD);
        Work { bytes, ..work }
    }

    pub fn recover(bytes: u64) -> Self {
        let work = Work::new(format!("recover/{}", size(bytes)), Kind::Recover, 1, RECORD);
        Work { bytes, ..work }
    }

    pub fn on(self, runtime: Runtime) -> Self {
        let name = match runtime {
            Runtime::CurrentThread => format!("{}/current-thread", self.name),
            Runtime::Multi(workers) => format!("{}/workers-{workers}", self.name),
        };
        Work { name, runtime, ..self }
    }

    pub fn replay(record: usize, bytes: u64) -> Self {
        let work = Work::new(format!("replay/{record}"), Kind::Replay, 1, record);
        Work { bytes, ..work }
    }
}

fn size(bytes: u64) -> String {
    match (bytes >> 30, bytes >> 20) {
        (0, 0) => format!("{}KiB", bytes >> 10),
        (0, mib) => format!("{mib}MiB"),
        (gib, _) => format!("{gib}GiB"),
    }
}

/// The record bytes of all works that do not vary the size.
pub const RECORD: usize = 256;
