//! The log store of openraft 0.10 on [Highwater](highwater): durable by
//! contract, with a flush that everybody who waits shares, in one log for one or many groups.
//!
//! ```
//! # openraft::declare_raft_types!(pub Types: D = String, R = String);
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use highwater_openraft::LogStore;
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("raft");
//! // The only node of this process: a log of its own.
//! let store = LogStore::<Types>::open(&path).await?;
//! // Raft::new(id, config, network, store.clone(), state_machine).await?
//! store.close().await?;
//!
//! // A thousand of them: one log, and flushes that all of them share.
//! let log = LogStore::<Types>::options().open(&path).await?;
//! let stores = (1..=1000).map(|id| LogStore::<Types>::of_group(log.group(id)));
//! let stores: Vec<_> = stores.collect::<Result<_, _>>()?;
//! # drop(stores);
//! log.close().await?;
//! # Ok(()) }
//! ```
//!
//! Every call is one record of one stream, so what a crash leaves is a prefix of the calls that were
//! made, with every one that was answered as durable. `README.md` has the table, call by call.
//!
//! # Layout
//!
//! - [`codec`]: what entries, votes and ids are as bytes.
//! - `error`: what failed, as the `io::Error` that openraft wants.
//! - `completion`: the callback that is called exactly once.
//! - `memory`: the newest entries, as openraft gave them.
//! - `store`: the store, and how it is opened.
//! - `reading`, `writing`: openraft's two traits.

pub mod codec;
mod completion;
mod error;
mod memory;
mod reading;
mod store;
mod writing;

pub use codec::{Codec, Postcard};
pub use error::StoreError;
pub use store::LogStore;
