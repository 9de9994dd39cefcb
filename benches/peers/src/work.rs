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
        Work { name, kind, tasks, records, runtime: Runtime::Multi(2), bytes: 0 }
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

    pub fn replay(record: usize, bytes: u64) -> Self {
        let work = Work::new(format!("replay/{record}"), Kind::Replay, 1, record);
        Work { bytes, ..work }
    }
}

/// The size all works have that aren't about sizes.
pub const RECORD: usize = 256;
