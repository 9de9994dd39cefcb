//! The hot paths, each as a work that can be done any number of times.
//!
//! One thread runs the tasks, no timer is set. Segments are so large that no run comes to where the
//! next one is prepared, and no ring fills: those are costs of their own, and they come in steps.

mod append;
mod commit;
mod enqueue;
mod read;

use std::future::Future;

use highwater::{Options, Preallocation, Wal};
use tokio::runtime::Builder;

use crate::{Failure, load::Load};

pub struct Work {
    pub name: &'static str,
    /// What is counted once.
    pub operation: &'static str,
    /// The N of N and 2 N.
    pub turns: u64,
    pub operations_per_turn: u64,
    /// Whether two runs agree to a thousandth. Where two threads wake each other they don't: which of
    /// them goes on first is the kernel's choice, and what it finds then another amount of work.
    pub is_exact: bool,
    run: fn(&Load) -> Result<(), Failure>,
}

impl Work {
    pub fn tolerance_percent(&self) -> f64 {
        if self.is_exact { 3.0 } else { 15.0 }
    }

    /// Another compiler inlines otherwise.
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
            "append of 64 B, one task, a hop to the pool each",
            2_000,
            append::pool,
        )
    },
    Work {
        is_exact: false,
        operations_per_turn: append::TASKS,
        ..work(
            "append_64_pool_1024",
            "append of 64 B, 1,024 tasks, through the pool",
            12,
            append::many,
        )
    },
    Work {
        operations_per_turn: append::BATCH_RECORDS,
        ..work(
            "frame_256",
            "CRC and framing: a record of a batch of 64, 256 B each",
            100,
            append::batch,
        )
    },
    work("enqueue_64", "enqueue of 64 B, and its part of the write", 20_000, enqueue::small),
    work("enqueue_256", "enqueue of 256 B, and its part of the write", 7_500, enqueue::medium),
    work(
        "try_enqueue_64",
        "try_enqueue of 64 B, and its part of the write",
        15_000,
        enqueue::trying,
    ),
    work("commit_64_alone", "append_and_sync of 64 B on `MemoryStorage`", 10_000, commit::alone),
    work(
        "commit_64_1_waiter",
        "the same, and 1 task woken that waits for it",
        2_000,
        commit::for_one,
    ),
    work(
        "commit_64_64_waiters",
        "the same, and 64 tasks woken that wait for it",
        200,
        commit::for_many,
    ),
    Work {
        operations_per_turn: read::RECORDS,
        ..work("replay_256", "a replayed record of 256 B", 8, read::replay)
    },
    Work {
        operations_per_turn: read::PIECES,
        ..work("checksum_256", "read and CRC of 256 B of a sealed segment", 20, read::checksum)
    },
];

/// Does a work, here.
///
/// # Errors
///
/// If there is no such work, or what it answered.
pub fn run(name: &str, turns: &str) -> Result<(), Failure> {
    let work = WORKS.iter().find(|work| work.name == name).ok_or("no such work")?;
    (work.run)(&Load::of(turns)?)
}

fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    Ok(Builder::new_current_thread().max_blocking_threads(1).build()?.block_on(future))
}

fn options() -> Options {
    Wal::options().segment_bytes(64 << 20).preallocation(Preallocation::Sparse)
}
