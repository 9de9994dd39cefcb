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
pub(crate) mod in_place;
pub(crate) mod oracle;
pub(crate) mod storm;
pub(crate) mod sweep;
pub(crate) mod workload;

use std::cell::Cell;

use futures::TryStreamExt;
use highwater::{Compression, Lsn, Preallocation, Wal, storage::Storage};

pub(crate) type Found = Vec<(Lsn, Vec<u8>)>;

/// For what runs in place.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

thread_local! {
    /// How many files of dropped segments the logs keep that this thread opens.
    static RECYCLED: Cell<usize> = const { Cell::new(0) };
    static RESERVED: Cell<bool> = const { Cell::new(false) };
    /// How often a log was opened while its records are compressed; `None`: they aren't.
    static COMPRESSED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Does `work` with logs that compress their records, of which every third opening doesn't.
pub(crate) fn with_compression<T>(work: impl FnOnce() -> T) -> T {
    COMPRESSED.set(Some(0));
    let done = work();
    COMPRESSED.set(None);
    done
}

pub(crate) fn is_compressed() -> bool {
    COMPRESSED.get().is_some()
}

/// Has the logs that this thread opens from now on keep so many files of segments.
pub(crate) fn recycle(count: usize) {
    RECYCLED.set(count);
}

/// Every third seed recycles, every fourth only reserves its segments, as a log does whose flushes are
/// large.
pub(crate) fn recycle_by(seed: u64) {
    recycle(if seed % 3 == 1 { 2 } else { 0 });
    RESERVED.set(seed % 4 == 2);
}

fn compression() -> Compression {
    let Some(count) = COMPRESSED.get() else { return Compression::None };
    COMPRESSED.set(Some(count + 1));
    match count % 3 {
        0 => Compression::Lz4,
        1 => Compression::None,
        #[cfg(feature = "zstd")]
        _ => Compression::Zstd { level: 1 },
        #[cfg(not(feature = "zstd"))]
        _ => Compression::Lz4,
    }
}

/// A log whose limits are reached by a handful of records: a segment has room for 4096 bytes.
pub(crate) async fn open(disk: impl Storage) -> highwater::Result<Wal> {
    let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
    let options = options.recycle_segments(RECYCLED.get());
    let options = options.inline_writes(in_place::inline_bytes_max());
    let options = options.inline_syncs(in_place::inline_syncs());
    let reserved = if RESERVED.get() { Preallocation::Reserve } else { Preallocation::Adaptive };
    let options = options.preallocation(reserved);
    options.compression(compression()).compression_bytes_min(0).open_with(disk).await
}

pub(crate) async fn read_all(wal: &Wal) -> Result<Found, String> {
    wal.replay(..)
        .map_ok(|record| (record.lsn, record.payload.to_vec()))
        .try_collect()
        .await
        .map_err(|error| format!("replay: {error}"))
}

/// The least that a record takes.
pub(crate) fn frame_bytes_min(payload: &[u8]) -> u64 {
    if is_compressed() { frame_bytes(payload).min(24) } else { frame_bytes(payload) }
}

pub(crate) fn frame_bytes(payload: &[u8]) -> u64 {
    16 + (payload.len() as u64).next_multiple_of(8)
}
