//! Compressed records: round trips, refused payloads, and builds without a codec.
//!
//! The default test build has LZ4 but no Zstandard, so both cases occur.
//! `cargo test --features zstd --test compression` has both codecs.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it; memory is watched by an allocator"
)]

mod allocated;
mod forged;
mod frames;
mod round_trip;

use futures::TryStreamExt;
use highwater::{Compression, Lsn, Options, Record, Wal};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// Returns options with segments for 4096 bytes of frames.
fn small() -> Options {
    Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10)
}

fn compressions() -> Vec<Compression> {
    vec![
        Compression::Lz4,
        #[cfg(feature = "zstd")]
        Compression::Zstd { level: 1 },
        #[cfg(feature = "zstd")]
        Compression::Zstd { level: 7 },
    ]
}

async fn replayed(wal: &Wal, from: Lsn) -> highwater::Result<Vec<Record>> {
    wal.replay(from..).try_collect().await
}

fn payloads(records: &[Record]) -> Vec<Vec<u8>> {
    records.iter().map(|record| record.payload.to_vec()).collect()
}

/// Text that shrinks to about a fifth. `noise` does not shrink.
fn text(bytes: usize) -> Vec<u8> {
    let lines = (0u32..).flat_map(|line| format!("line {line} of a text\n").into_bytes());
    lines.take(bytes).collect()
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = bytes as u64 | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}
