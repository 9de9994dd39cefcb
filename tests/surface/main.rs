//! The everyday surface: what is built on top of appending, syncing and replaying.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on panics"
)]

mod appended;
mod events;
mod policy;
mod sink;
mod statistics;
#[path = "../support/mod.rs"]
mod support;
mod typed;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll},
};

use highwater::{
    Error, Wal,
    simulation::{Faults, Op},
    storage::MemoryStorage,
};
use support::{Bell, RING_PAYLOAD_BYTES, reached, small, within};
use tokio::runtime::{Builder, Runtime};

/// One runtime of each kind.
fn runtimes() -> [Runtime; 2] {
    [
        Builder::new_current_thread().enable_all().build().unwrap(),
        Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
    ]
}

/// Polls `future` up to `polls` times and drops it if it is still pending then; `step` lets things
/// go on in between, and the future must be woken.
fn poll_and_drop<T>(
    future: impl Future<Output = T>,
    polls: usize,
    step: impl Fn(usize),
) -> Option<T> {
    let (bell, waker) = Bell::new();
    let mut future = pin!(tokio::task::unconstrained(future));
    for i in 0..polls {
        if i > 0 {
            step(i);
            bell.wait();
        }
        if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(answer);
        }
    }
    None
}

/// A log on the pool whose ring is full of one record, which is held on its way to the file.
async fn held() -> (Wal, MemoryStorage, highwater::simulation::Gate) {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory.clone()).on_pool()).await.unwrap();
    let writes = faults.on(Op::Write).file(|name| name.ends_with("00001.wal")).gate();
    within("room", wal.enqueue(vec![1; RING_PAYLOAD_BYTES])).await.unwrap();
    reached(&writes, 1).await;
    (wal, memory, writes)
}

/// A log that a failed flush has stopped.
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
