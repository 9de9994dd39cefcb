//! A log for Raft: entries, votes, truncations and purges of one or many groups in one log, with one
//! shared flush. It knows no Raft library; adapters are small.
//!
//! Every change of a group is a record of the one stream that a [`Wal`](crate::Wal) is. So program
//! order is the order of the log, and the order in which things become durable: what a crash leaves
//! is a prefix of the changes that were made, which holds every one whose
//! [ticket](AppendTicket) said that it is durable. Nothing is ever durable without the vote before
//! it, and `committed` never without its entries.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
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
//! // Readable at once, durable when the ticket says so.
//! assert_eq!(group.read(1..3, u64::MAX).await?.len(), 2);
//! ticket.synced().await?;
//! group.set_committed("2").await?;
//!
//! // A conflict drops a suffix; a snapshot lets the beginning go.
//! group.truncate_after(Some(1)).await?;
//! group.purge(1, 2, "2-1").await?;
//! assert_eq!((group.state().first, group.state().next), (2, 2));
//! log.close().await?;
//! # Ok(()) }
//! ```
//!
//! `docs/RAFT.md` tells how to embed it, `docs/DURABILITY.md` what a crash may leave.

mod cache;
mod checkpoint;
mod entry;
mod group;
mod index;
mod keeper;
mod kept;
mod log;
mod open;
mod options;
mod read;
mod read_all;
mod record;
mod state;
mod task;
mod ticket;
mod varint;

pub use entry::{Entries, Entry};
pub use group::{GroupInfo, RaftGroup};
pub use kept::{KeptEntries, KeptPart};
pub use log::{RaftLog, RaftStats};
pub use options::RaftOptions;
pub use record::Purged;
pub use ticket::AppendTicket;
