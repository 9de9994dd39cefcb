//! A log for Raft: entries, votes, truncations and purges of one or many groups.
//!
//! All groups share one [`Wal`](crate::Wal) and its flushes. The module depends on no Raft library;
//! an adapter for a library is small.
//!
//! Each change of a group is a record of that one log. So changes become durable in the order in
//! which they were made, across all groups. After a crash the log holds a prefix of the changes,
//! with every change that an [`AppendTicket`] reported as durable. An entry is never durable
//! without the votes set before it, and `committed` is never durable without its entries.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::raft::Result<()> {
//! use highwater::raft::{Entries, RaftLog};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("raft");
//! let log = RaftLog::open(&path).await?;
//! let group = log.group(7);
//!
//! group.set_vote("term 2: node 1").await?.synced().await?;
//! let mut entries = Entries::new();
//! entries.push(1, 2, b"set x = 1");
//! entries.push(2, 2, b"set x = 2");
//! let ticket = group.append(entries).await?;
//! // Readable at once; durable when the ticket reports it.
//! assert_eq!(group.read(1..3, u64::MAX).await?.len(), 2);
//! ticket.synced().await?;
//! group.set_committed("2").await?;
//!
//! // Drop a suffix after a conflict, and a prefix that a snapshot covers.
//! group.truncate_after(Some(1)).await?;
//! group.purge(1, 2, "2-1").await?;
//! assert_eq!((group.state().first, group.state().next), (2, 2));
//! log.close().await?;
//! # Ok(()) }
//! ```
//!
//! `docs/RAFT.md` explains how to embed the log. `docs/DURABILITY.md` lists the states after a
//! crash.

mod cache;
mod checkpoint;
mod decoded;
mod entries;
mod entry;
mod error;
mod group;
mod group_read;
mod index;
mod log;
mod open;
mod options;
mod payloads;
mod publish;
mod read;
mod records;
mod state;
mod store;
mod ticket;
mod upkeep;

pub use decoded::{DecodedEntries, DecodedPart};
pub use entries::Entries;
pub use entry::Entry;
pub use error::{Error, Result};
pub use group::{GroupInfo, RaftGroup};
pub use log::{RaftLog, RaftStats};
pub use options::RaftOptions;
pub use records::record::Purged;
pub use ticket::AppendTicket;
