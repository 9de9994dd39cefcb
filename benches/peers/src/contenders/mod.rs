//! The adapters, one for each log under test.

pub mod by_hand;
pub mod delayed;
pub mod fjall;
pub mod floor;
pub mod highwater;
pub mod kaya;
pub mod okaywal;
pub mod raft_engine;
pub mod raft_log;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;
pub mod sqlite;
pub mod wal_db;
