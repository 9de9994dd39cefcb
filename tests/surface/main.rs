//! The API above appending, syncing and replaying: `append_with`, statistics, events, sink,
//! `sync_every`, typed records.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod appended;
mod events;
mod policy;
mod sink;
mod statistics;
#[path = "../support/mod.rs"]
mod support;
mod typed;

use highwater::{
    Error, Wal,
    simulation::{Faults, Op},
    storage::MemoryStorage,
};
use support::{RING_PAYLOAD_BYTES, reached, small, within};
use tokio::runtime::{Builder, Runtime};

/// Returns a current-thread and a multi-thread runtime.
fn runtimes() -> [Runtime; 2] {
    [
        Builder::new_current_thread().enable_all().build().unwrap(),
        Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
    ]
}

/// Returns a log on the pool. One record fills its ring, and the write of that record is held.
async fn held() -> (Wal, MemoryStorage, highwater::simulation::Gate) {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory.clone()).on_pool()).await.unwrap();
    let writes = faults.on(Op::Write).file(|name| name.ends_with("00001.wal")).gate();
    within("room", wal.enqueue(vec![1; RING_PAYLOAD_BYTES])).await.unwrap();
    reached(&writes, 1).await;
    (wal, memory, writes)
}

/// Returns a log that a failed flush has poisoned.
async fn poisoned() -> Wal {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new())).await.unwrap();
    faults.on(Op::Sync).fail(std::io::ErrorKind::Other);
    let error = wal.append_and_sync(b"lost?").await.unwrap_err();
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    wal
}

async fn closed() -> Wal {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    wal.close().await.unwrap();
    wal
}
