//! The contract, as something that can be checked: workloads, what the log answered to them, and
//! whether what a crash left is what it may leave.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "shared by tests that each use a part; a mistake here must stop the test"
)]

pub(crate) mod copies;
pub(crate) mod oracle;
pub(crate) mod storm;
pub(crate) mod sweep;
pub(crate) mod workload;

use futures::TryStreamExt;
use highwater::{Lsn, Wal, storage::Storage};

pub(crate) type Found = Vec<(Lsn, Vec<u8>)>;

/// For what runs in place.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// A log whose limits are reached by a handful of records: a segment has room for 4096 bytes.
pub(crate) async fn open(disk: impl Storage) -> highwater::Result<Wal> {
    Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10).open_with(disk).await
}

pub(crate) async fn read_all(wal: &Wal) -> Result<Found, String> {
    wal.replay(..)
        .map_ok(|record| (record.lsn, record.payload.to_vec()))
        .try_collect()
        .await
        .map_err(|error| format!("replay: {error}"))
}

pub(crate) fn frame_bytes(payload: &[u8]) -> u64 {
    16 + (payload.len() as u64).next_multiple_of(8)
}
