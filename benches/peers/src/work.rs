//! What is to be done, as data: a work goes to a child process as JSON.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// One thing every contender that can does the same way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// As `--only` finds it.
    pub name: String,
    pub kind: Kind,
    /// Tasks for what is async; for what blocks as many threads, up to [`THREADS_MAX`].
    pub tasks: usize,
    pub records: Records,
    pub runtime: Runtime,
    /// How much a work with a fixed amount writes (or finds written), in bytes of payload.
    pub bytes: u64,
    /// So many bytes of payload stand in the log already when it begins.
    pub filled_bytes: u64,
    /// `KEY=VALUE` settings of Highwater's own contenders, before those of the command line.
    pub settings: Vec<String>,
}

/// More threads than this are no way to use anything; peers that block have no more.
pub const THREADS_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Each operation is durable when it returns.
    Commit,
    /// Each operation is with the operating system when it returns.
    Append,
    /// Appends as fast as one task can hand them over; the end waits until all are written.
    Enqueue,
    /// So many records as one batch, durable when it returns.
    Batch { records: usize },
    /// Every so many-th operation is a commit, the others appends.
    Mixed { commit_every: usize },
    /// Commits that begin at fixed times, so many per second, in bursts of so many.
    OpenLoop { per_second: u64, burst: u64 },
    /// Reads all that was written, page cache warm.
    Replay,
    /// A writer that commits and a reader that follows it.
    Follow,
    /// Opening a log that was closed.
    Open,
    /// Opening a log whose process was killed.
    Recover,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Records {
    Fixed(usize),
    /// Mostly small, few large: see [`crate::records`].
    Mixture,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runtime {
    CurrentThread,
    Multi(usize),
}

/// When a child stops.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Limits {
    pub warm_up: Duration,
    pub measure: Duration,
    /// Ends a run of any kind earlier, if given: operations of all tasks together.
    pub operations: Option<u64>,
    /// There is an amount to be done, and all of it is measured; `measure` only ends it.
    pub fixed: bool,
}

/// What a child is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assignment {
    pub contender: String,
    pub work: Work,
    pub limits: Limits,
    /// Where the log is; belongs to this run alone.
    pub directory: PathBuf,
    /// Only prepare what the work will find, and end as it says.
    pub prepare: bool,
    /// Read back what was written and hold it against what was acknowledged.
    pub verify: bool,
    /// `KEY=VALUE` settings of Highwater's own contenders.
    pub settings: Vec<String>,
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

    /// A million appends by a thousand tasks: what is looked at is the peak of memory.
    pub fn memory() -> Self {
        let bytes = 1_000_000 * RECORD as u64;
        Work { bytes, ..Work::new("memory/1000".to_owned(), Kind::Append, 1000, RECORD) }
    }

    pub fn batch(records: usize) -> Self {
        Work::new(format!("batch/{records}"), Kind::Batch { records }, 1, RECORD)
    }

    /// Commits of records of one size, by eight tasks.
    pub fn commit_of(record: usize) -> Self {
        Work::new(format!("commit-of/{record}"), Kind::Commit, 8, record)
    }

    /// Commits by 64 tasks through a ring of so many bytes.
    pub fn ring(bytes: u64) -> Self {
        let work = Work::new(format!("ring/{bytes}"), Kind::Commit, 64, RECORD);
        Work { settings: vec![format!("ring_bytes={bytes}")], ..work }
    }

    /// Commits by 64 tasks into a log that has so many bytes.
    pub fn into_log(bytes: u64) -> Self {
        let work = Work::new(format!("log/{bytes}"), Kind::Commit, 64, RECORD);
        Work { filled_bytes: bytes, ..work }
    }

    /// What prepares it, if something has to stand in the log before.
    pub fn preparing(&self) -> Option<Work> {
        match self.kind {
            Kind::Replay | Kind::Open | Kind::Recover => Some(self.clone()),
            _ if self.filled_bytes > 0 => {
                Some(Work { kind: Kind::Open, bytes: self.filled_bytes, ..self.clone() })
            }
            _ => None,
        }
    }

    /// By 64 tasks, of all sizes.
    pub fn mixture(kind: Kind, name: &str) -> Self {
        let work = Work::new(format!("mixture/{name}"), kind, 64, RECORD);
        Work { records: Records::Mixture, ..work }
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

/// The size all works have that aren't about sizes.
pub const RECORD: usize = 256;
