//! The model of the crash sweeps: workloads, an oracle that records what the log returned, and the
//! check of what a crash left.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "each test uses a part; a mistake here must stop the test"
)]

pub(crate) mod copies;
pub(crate) mod in_place;
pub(crate) mod oracle;
pub(crate) mod random_faults;
pub(crate) mod slots;
pub(crate) mod sweep;
pub(crate) mod workload;

use std::{cell::Cell, time::Duration};

use futures::TryStreamExt;
use highwater::{
    Compression, InlineSyncs, Lsn, OnStall, Preallocation, Retention, Wal, storage::Storage,
};

pub(crate) type Found = Vec<(Lsn, Vec<u8>)>;

/// Runs a future whose log works in the calling task.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

thread_local! {
    /// The number of recycled files of the logs that this thread opens.
    static RECYCLED: Cell<usize> = const { Cell::new(0) };
    static RESERVED: Cell<bool> = const { Cell::new(false) };
    /// The reaction to a stall of the logs that this thread opens.
    static ON_STALL: Cell<OnStall> = const { Cell::new(OnStall::Report) };
    /// The number of calls that got `Indeterminate` or `Stalled`.
    pub(crate) static STALLED_COUNT: Cell<u64> = const { Cell::new(0) };
    /// The retention of the logs that this thread opens.
    static RETENTION: Cell<Option<u64>> = const { Cell::new(None) };
    /// Counts the opens while compression is on; `None` if it is off.
    static COMPRESSED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The time after which waiters fail in the sweeps.
pub(crate) const FAIL_AFTER: Duration = Duration::from_secs(5);

/// Makes the logs that this thread opens fail their waiters during a stall. Returns how many calls
/// failed.
pub(crate) fn with_failing_waiters<T>(work: impl FnOnce() -> T) -> (T, u64) {
    ON_STALL.set(OnStall::FailWaiters { after: FAIL_AFTER });
    STALLED_COUNT.set(0);
    let done = work();
    ON_STALL.set(OnStall::Report);
    (done, STALLED_COUNT.get())
}

/// Runs `work` with a retention of a segment and a half.
pub(crate) fn with_retention<T>(work: impl FnOnce() -> T) -> T {
    RETENTION.set(Some(6 << 10));
    let done = work();
    RETENTION.set(None);
    done
}

/// Returns how many bytes the log keeps at least, if it drops older ones by itself.
pub(crate) fn retained_bytes() -> Option<u64> {
    RETENTION.get()
}

/// Runs `work` with compression. Every third open has it off.
pub(crate) fn with_compression<T>(work: impl FnOnce() -> T) -> T {
    COMPRESSED.set(Some(0));
    let done = work();
    COMPRESSED.set(None);
    done
}

pub(crate) fn is_compressed() -> bool {
    COMPRESSED.get().is_some()
}

/// Sets how many recycled files the logs keep that this thread opens.
pub(crate) fn recycle(count: usize) {
    RECYCLED.set(count);
}

/// Configures recycling by seed: every third seed recycles, every fourth reserves its segments
/// without zeros.
pub(crate) fn configure_recycling(seed: u64) {
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

/// Opens a log whose limits a few records reach: a segment holds 4096 bytes of frames.
pub(crate) async fn open(disk: impl Storage) -> highwater::Result<Wal> {
    let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
    let options = options.recycle_segments(RECYCLED.get());
    let options = options.inline_writes(in_place::inline_bytes_max());
    let options = options.inline_syncs(if in_place::inline_syncs() {
        InlineSyncs::Always
    } else {
        InlineSyncs::default()
    });
    let options = options.sync_method(in_place::sync_method());
    let reserved = if RESERVED.get() { Preallocation::Reserve } else { Preallocation::Adaptive };
    let options = options.preallocation(reserved).on_stall(ON_STALL.get());
    let options = options.retention(match RETENTION.get() {
        Some(bytes) => Retention::default().bytes(bytes),
        None => Retention::default(),
    });
    options.compression(compression()).compression_bytes_min(0).open_with(disk).await
}

pub(crate) async fn read_all(wal: &Wal) -> Result<Found, String> {
    wal.replay(..)
        .map_ok(|record| (record.lsn, record.payload.to_vec()))
        .try_collect()
        .await
        .map_err(|error| format!("replay: {error}"))
}

/// Returns the least size of a record's frame.
pub(crate) fn frame_bytes_min(payload: &[u8]) -> u64 {
    if is_compressed() { frame_bytes(payload).min(24) } else { frame_bytes(payload) }
}

pub(crate) fn frame_bytes(payload: &[u8]) -> u64 {
    16 + (payload.len() as u64).next_multiple_of(8)
}
