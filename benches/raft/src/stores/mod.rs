//! The log stores under test.

pub(crate) mod highwater;
pub(crate) mod memory;
pub(crate) mod raft_log;
#[cfg(feature = "rocksdb")]
pub(crate) mod rocks_db;
