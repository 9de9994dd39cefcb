//! The log store of openraft 0.9 on [Highwater](highwater).
//!
//! openraft 0.9 waits for the flush of each append before it does anything else. So each client
//! write costs the leader one flush, and no store can share flushes between the writes of one
//! group. Different groups share flushes. `highwater-openraft` is for openraft 0.10, which has no
//! such limit.
//!
//! ```
//! # use std::io::Cursor;
//! # openraft::declare_raft_types!(pub Types: D = String, R = String);
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::raft::Result<()> {
//! use highwater_openraft09::LogStore;
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("raft");
//! let store = LogStore::<Types>::open(&path).await?;
//! // Raft::new(id, config, network, store.clone(), state_machine).await?
//! store.close().await?;
//! # Ok(()) }
//! ```
//!
//! `README.md` has a table of the calls, and when each change is durable.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod codec;
mod store;
mod traits;

pub use codec::{Codec, CodecError, Postcard};
pub use store::LogStore;
