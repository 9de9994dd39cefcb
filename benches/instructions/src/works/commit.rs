//! Durable commits, and what it costs to wake those who wait for them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use highwater::{Lsn, Wal, storage::MemoryStorage};
use tokio::task::yield_now;

use super::{block_on, options};
use crate::{Failure, load::Load};

pub fn alone(load: &Load) -> Result<(), Failure> {
    woken(load, 0)
}

pub fn for_one(load: &Load) -> Result<(), Failure> {
    woken(load, 1)
}

pub fn for_many(load: &Load) -> Result<(), Failure> {
    woken(load, 64)
}

/// What those who wait and the one who commits tell each other.
#[derive(Default)]
struct Shared {
    /// What is synced: everybody waits for what comes next.
    synced: AtomicU64,
    /// How often anybody began to wait.
    waits: AtomicU64,
}

fn woken(load: &Load, waiter_count: u64) -> Result<(), Failure> {
    let work = async {
        let wal = options().open_with(MemoryStorage::new()).await?;
        let shared = Arc::new(Shared::default());
        let note = || shared.synced.store(wal.watermarks().synced.as_u64(), Ordering::Relaxed);
        note();
        let rounds = load.turns().end;
        let waiters: Vec<_> = (0..waiter_count)
            .map(|_| tokio::spawn(wait(wal.clone(), Arc::clone(&shared), rounds)))
            .collect();
        for round in load.turns() {
            // All stand in the queue: each has said so, and not let others run since.
            while shared.waits.load(Ordering::Relaxed) < waiter_count * (round + 1) {
                yield_now().await;
            }
            load.operation();
            wal.append_and_sync(&[0x5a; 64]).await?;
            note();
        }
        for waiter in waiters {
            waiter.await??;
        }
        wal.close().await?;
        Ok(())
    };
    block_on(work)?
}

async fn wait(wal: Wal, shared: Arc<Shared>, rounds: u64) -> highwater::Result<()> {
    for _ in 0..rounds {
        shared.waits.fetch_add(1, Ordering::Relaxed);
        wal.wait_synced(Lsn::new(shared.synced.load(Ordering::Relaxed))).await?;
    }
    Ok(())
}
