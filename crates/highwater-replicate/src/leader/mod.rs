//! The side that ships: connections, marks and waiters.

mod common;
mod peers;
mod replicas;
mod serve;

pub use replicas::{PeerInfo, Replicas};
