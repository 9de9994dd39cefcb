//! An async write-ahead log for tokio: the durable, append-only substrate under databases, queues
//! and Raft nodes.
//!
//! Many tasks append at once, without a lock; one flush answers everybody who waits for it. Two
//! high-water marks tell how far the log has come: **written** (with the operating system: survives
//! the end of the process) and **synced** (on stable storage: survives a loss of power). Nothing
//! below a mark that was reported is ever lost, dropping a future never leaves a gap, and opening
//! tells a torn tail from corruption exactly.
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
//! - `simulation`: a crash-test kit, for this log and for what is built on it. Nothing else changes.
//! - `cli`: the command-line tool `highwater`, and `serde::Serialize` for what [`inspect`] gives.
//! - `typed`: records of a type of one's own, through the codecs of tokio-util.
//! - `serde`: `typed`, and a ready codec for whatever serde can write.
//! - `raft`: an indexed log for Raft, of one group or of many in one log.
//! - `lz4`, `zstd`: records can be [compressed](Compression), and such records read.
//!
//! # Layout
//!
//! In reading order; each module imports only from those above it.
//!
//! - `lsn`, `error`, `options`, `watermarks`, `record`: the vocabulary.
//! - `format`: what the bytes mean. Pure.
//! - [`storage`]: names and bytes, and the only place that touches a file system.
//! - `simulation` (a feature): a crash-test kit, for this log and for what is built on it.
//! - `segments`: the files of a log.
//! - `pipeline`: ring, writer, syncer, and those who wait for them.
//! - `replay`, `follow`, `recovery`: reading, and what opening does.
//! - [`inspect`]: what stands in a log, read beside its writer.
//! - `wal`: the handle.
//! - [`reader`]: reading beside a writer, without its lock; and what is left of a damaged log.
//! - `typed` (a feature): records of a type of one's own.
//! - `raft` (a feature): the log of Raft nodes.
//!
//! `docs/ARCHITECTURE.md`, `docs/FORMAT.md` and `docs/DURABILITY.md` are the long forms.

/// The README's example compiles.
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
pub mod inspect;
mod lsn;
mod options;
mod pipeline;
#[cfg(feature = "raft")]
pub mod raft;
pub mod reader;
mod record;
mod recovery;
mod replay;
#[cfg(feature = "__sabotage")]
#[doc(hidden)]
pub mod sabotage;
#[cfg(not(feature = "__sabotage"))]
mod sabotage;
mod segments;
#[cfg(feature = "simulation")]
pub mod simulation;
mod stats;
pub mod storage;
mod sync;
mod turn;
#[cfg(feature = "typed")]
pub mod typed;
mod wal;
mod watermarks;

pub use error::{Error, Result};
pub use follow::Follow;
pub use lsn::Lsn;
pub use options::{Compression, OnDamage, Preallocation};
pub use pipeline::{Payload, Percentiles};
pub use reader::Reader;
pub use record::Record;
pub use recovery::{Cut, CutCopy, DurableCut, RecoveryReport, Warning};
pub use replay::Replay;
pub use stats::Stats;
pub use wal::{
    Appended, Copied, Durability, Lease, Options, PeriodicSync, Recovered, Recovery, SealedSegment,
    SealedSegments, SyncEvery, Ticket, Wal, WalSink,
};
pub use watermarks::Watermarks;
