//! An async write-ahead log for tokio: the durable, append-only base of databases, queues and Raft
//! nodes.
//!
//! Many tasks append at the same time, without a lock. One flush serves all tasks that wait for it.
//! Two marks show how far the log is durable: all records below **written** survive the end of the
//! process, because the operating system has them. All records below **synced** survive a power
//! loss, because they are on stable storage. No record below a reported mark is ever lost. Dropping
//! a future never leaves a gap. Opening distinguishes a torn tail from corruption exactly.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
//! use futures::TryStreamExt;
//! use highwater::Wal;
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("log");
//! let wal = Wal::open(path).await?;
//! println!("{}", wal.recovery());
//!
//! wal.append(b"in the page cache").await?;
//! let lsn = wal.append_and_sync(b"on stable storage").await?;
//! wal.append_batch([b"all of this", b"or nothing."]).await?;
//!
//! let mut records = wal.replay(lsn..);
//! while let Some(record) = records.try_next().await? {
//!     println!("{}: {} bytes", record.lsn, record.payload.len());
//! }
//! wal.close().await?;
//! # Ok(()) }
//! ```
//!
//! # Features
//!
//! - `simulation`: a crash-test kit for this log and for programs that use it. It changes nothing
//!   else.
//! - `typed`: records of the user's type, through the codecs of tokio-util.
//! - `serde`: `typed`, a codec for all types that serde can serialize, and `serde::Serialize` for
//!   the types of [`inspect`].
//! - `raft`: an indexed log for Raft, of one group or of many groups in one log.
//! - `metrics`: counters, gauges and histograms through the facade `metrics`. `docs/METRICS.md`
//!   lists them.
//! - `lz4`, `zstd`: [compresses](Compression) records, and reads compressed ones.
//!
//! # Layout
//!
//! In reading order. Each module imports only from the modules before it.
//!
//! - `lsn`, `operation`, `error`, `options`, `health`, `watermarks`, `record`: the vocabulary.
//! - `format`: what the bytes mean. Pure.
//! - [`storage`]: names and bytes. The only module that uses a file system.
//! - `simulation` (a feature): a crash-test kit for this log and for programs that use it.
//! - `segments`: the files of a log.
//! - `pipeline`: ring, writer, syncer, and the tasks that wait for them.
//! - `replay`, `follow`, `recovery`: reading, and opening.
//! - [`inspect`]: the contents of a log, read while it may be written.
//! - `wal`: the handle.
//! - [`reader`]: reads a log without its lock while it may be written, and salvages a damaged one.
//! - `shipping` (hidden): the bytes of a log, for the crate `highwater-replicate`.
//! - `typed` (a feature): records of the user's type.
//! - `raft` (a feature): the log of Raft nodes.
//!
//! `docs/ARCHITECTURE.md`, `docs/FORMAT.md` and `docs/DURABILITY.md` have the details.

#![cfg_attr(docsrs, feature(doc_cfg))]

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod error;
mod executor;
mod follow;
mod format;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(doctest)]
mod guide;
mod health;
pub mod inspect;
mod lock_owner;
mod lsn;
mod operation;
mod options;
mod pipeline;
#[cfg(feature = "raft")]
pub mod raft;
pub mod reader;
mod record;
mod recovery;
mod replay;
mod retention;
#[cfg(feature = "__sabotage")]
#[doc(hidden)]
pub mod sabotage;
#[cfg(not(feature = "__sabotage"))]
mod sabotage;
mod segments;
#[doc(hidden)]
pub mod shipping;
#[cfg(feature = "simulation")]
pub mod simulation;
mod stats;
#[cfg(any(feature = "__sabotage", fuzzing))]
#[doc(hidden)]
pub mod steps;
#[cfg(not(any(feature = "__sabotage", fuzzing)))]
mod steps;
pub mod storage;
mod sync;
mod turn;
#[cfg(feature = "typed")]
pub mod typed;
mod wal;
mod watermarks;

pub use error::{ClosedBy, Error, Result};
pub use follow::Follow;
pub use health::Health;
pub use lock_owner::LockOwner;
pub use lsn::{Lsn, Start};
pub use operation::Operation;
pub use options::{Compression, InlineSyncs, OnDamage, OnStall, Preallocation, SyncMethod};
pub use pipeline::{Payload, Percentiles};
pub use reader::Reader;
pub use record::Record;
pub use recovery::{Cut, CutCopy, DurableCut, RecoveryReport, Warning};
pub use replay::Replay;
pub use retention::{OnBudget, Retention};
pub use stats::{Holder, Stats};
pub use wal::{
    Appended, Copied, Durability, HealthWatch, Lease, LogSegment, Options, PeriodicSync, Recovered,
    Recovery, SealedSegment, SealedSegments, Slot, SlotInfo, SyncEvery, Ticket, Wal, WalSink,
    Watch,
};
pub use watermarks::Watermarks;
