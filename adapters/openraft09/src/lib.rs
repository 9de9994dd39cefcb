//! The log store of [openraft](https://docs.rs/openraft/0.9) 0.9 on [Highwater](highwater).
//!
//! openraft 0.9 waits for the flush of an append before it does anything else, so each write of a
//! client costs its leader one flush: no store can share flushes between the writes of one group
//! there. `highwater-openraft` is for openraft 0.10, which can. Groups do share them here too.
//!
//! ```
//! # use std::io::Cursor;
//! # openraft::declare_raft_types!(pub Types: D = String, R = String);
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
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
//! `README.md` has the table of what is durable when, call by call.

mod codec;
mod store;
mod traits;

pub use codec::{Codec, CodecError, Postcard};
pub use store::LogStore;
