//! The hot paths, each as a work that can be repeated any number of times.
//!
//! One thread runs the tasks, and no timer is set. Segments are large enough that no run prepares
//! the next one, and rings never fill, because these costs occur in steps.

mod append;
mod commit;
mod enqueue;
mod read;
mod setup;

use crate::{failure::Failure, load::Load};

pub struct Work {
    pub name: &'static str,
    /// The counted operation, as text.
    pub operation: &'static str,
    /// The number of turns N; the two runs do N and 2 N.
    pub turns: u64,
    pub operations_per_turn: u64,
    /// True if two runs agree within 0.1 %. If two threads wake each other, they do not agree,
    /// because the kernel chooses which thread runs first, and the amount of work depends on it.
    pub is_exact: bool,
    run: fn(&Load) -> Result<(), Failure>,
}

impl Work {
    pub fn tolerance_percent(&self) -> f64 {
        if self.is_exact { 3.0 } else { 15.0 }
    }

    /// Returns the tolerance in another environment, wider because another compiler inlines
    /// differently.
    pub fn elsewhere_percent(&self) -> f64 {
        if self.is_exact { 12.0 } else { 30.0 }
    }
}

const fn work(
    name: &'static str,
    operation: &'static str,
    turns: u64,
    run: fn(&Load) -> Result<(), Failure>,
) -> Work {
    Work { name, operation, turns, operations_per_turn: 1, is_exact: true, run }
}

pub const WORKS: &[Work] = &[
    work("append_64_memory", "append of 64 B on `MemoryStorage`", 15_000, append::memory),
    work(
        "append_64_in_place",
        "append of 64 B, written in place to a file",
        15_000,
        append::in_place,
    ),
    Work {
        is_exact: false,
        ..work(
            "append_64_pool",
            "append of 64 B by one task, each through the pool",
            2_000,
            append::pool,
        )
    },
    Work {
        is_exact: false,
        operations_per_turn: append::TASKS,
        ..work(
            "append_64_pool_1024",
            "append of 64 B by 1,024 tasks, through the pool",
            12,
            append::many,
        )
    },
    Work {
        operations_per_turn: append::BATCH_RECORDS,
        ..work(
            "frame_256",
            "CRC and framing of a 256 B record in a batch of 64",
            100,
            append::batch,
        )
    },
    work("enqueue_64", "enqueue of 64 B, with its share of the write", 20_000, enqueue::small),
    work("enqueue_256", "enqueue of 256 B, with its share of the write", 7_500, enqueue::medium),
    work(
        "try_enqueue_64",
        "try_enqueue of 64 B, with its share of the write",
        15_000,
        enqueue::trying,
    ),
    work("commit_64_alone", "append_and_sync of 64 B on `MemoryStorage`", 10_000, commit::alone),
    work(
        "commit_64_1_waiter",
        "append_and_sync of 64 B that wakes 1 waiting task",
        2_000,
        commit::for_one,
    ),
    work(
        "commit_64_64_waiters",
        "append_and_sync of 64 B that wakes 64 waiting tasks",
        200,
        commit::for_many,
    ),
    Work {
        operations_per_turn: read::RECORDS,
        ..work("replay_256", "replay of a record of 256 B", 8, read::replay)
    },
    Work {
        operations_per_turn: read::PIECES,
        ..work("checksum_256", "read and CRC of 256 B of a sealed segment", 20, read::checksum)
    },
];

/// Does a work in this process.
///
/// # Errors
///
/// If there is no such work, or if the work fails.
pub fn run(name: &str, turns: &str) -> Result<(), Failure> {
    let work = WORKS.iter().find(|work| work.name == name).ok_or("there is no such work")?;
    (work.run)(&Load::of(turns)?)
}
