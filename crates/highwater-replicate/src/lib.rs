//! Identical copies of a [Highwater](highwater) log on other machines.
//!
//! A leader ships the durable bytes of its log to replicas over any stream. A replica verifies each
//! frame, writes the same bytes to its own directory, flushes them, and reports. Callers of the
//! leader wait until `k` replicas have a record on stable storage. A promotion makes a copy a log,
//! and fences the old leader.
//!
//! `docs/REPLICATION.md` has the guarantees, the protocol and the crash states. [`Replica`] has an
//! example.
//!
//! # Layout
//!
//! - `error`, `options`, `marks`, `positions`, `mistake`: the vocabulary.
//! - `wire`: messages and their encoding.
//! - `auth`, `shared_secret`: the hook by which the sides check each other.
//! - `standby`: the directory of a copy. Blocking, without a network.
//! - `replica`, `follow`: the handle of a copy, and its connection.
//! - `leader`: the handle of a leader, its connections, the marks of the quorum.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a mistake in a test must stop it"
    )
)]

mod auth;
mod error;
mod follow;
mod leader;
mod marks;
#[cfg(feature = "__sabotage")]
#[doc(hidden)]
pub mod mistake;
#[cfg(not(feature = "__sabotage"))]
mod mistake;
mod options;
mod positions;
mod replica;
mod shared;
#[cfg(feature = "shared-secret")]
mod shared_secret;
mod standby;
mod wire;

pub use auth::{Authenticate, Authenticated, Exchange, Unauthenticated};
pub use error::{Error, Result};
pub use leader::{PeerInfo, Replicas};
pub use marks::Marks;
pub use options::{OnDivergence, Options};
pub use replica::Replica;
#[cfg(feature = "shared-secret")]
#[cfg_attr(docsrs, doc(cfg(feature = "shared-secret")))]
pub use shared_secret::SharedSecret;
