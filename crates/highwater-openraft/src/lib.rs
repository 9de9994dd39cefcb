//! The log store of openraft 0.10 on [Highwater](highwater).
//!
//! It fulfils openraft's durability contract, shares each flush among all waiting tasks, and keeps
//! one or many groups in one log.
//!
//! ```
//! # openraft::declare_raft_types!(pub Types: D = String, R = String);
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use highwater_openraft::LogStore;
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("raft");
//! // One node in this process, with its own log.
//! let store = LogStore::<Types>::open(&path).await?;
//! // Raft::new(id, config, network, store.clone(), state_machine).await?
//! store.close().await?;
//!
//! // A thousand nodes that share one log and its flushes.
//! let log = LogStore::<Types>::options().open(&path).await?;
//! let stores = (1..=1000).map(|id| LogStore::<Types>::of_group(log.group(id)));
//! let stores: Vec<_> = stores.collect::<Result<_, _>>()?;
//! # drop(stores);
//! log.close().await?;
//! # Ok(()) }
//! ```
//!
//! Every call is a record of the one log. So a crash leaves a prefix of the calls, with every call
//! that was reported as durable. `README.md` has a table of the calls.
//!
//! # Layout
//!
//! - [`codec`]: the encoding of entries, votes and ids.
//! - `error`: the errors, as the `io::Error` that openraft requires.
//! - `completion`: calls the callback exactly once.
//! - `memory`: reads the newest entries from memory.
//! - `store`: the store, and the ways to open it.
//! - `reading`, `writing`: openraft's two traits.
//! - `stalls`: a leader whose disk hangs gives its leadership away.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

pub mod codec;
mod completion;
mod error;
mod memory;
mod reading;
mod stalls;
mod store;
mod writing;

pub use codec::{Codec, Postcard};
pub use error::StoreError;
pub use store::LogStore;
