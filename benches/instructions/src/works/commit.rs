//! Durable commits, and the cost of waking the tasks that wait for them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use highwater::{Lsn, Wal, storage::MemoryStorage};
use tokio::task::yield_now;

use super::setup::{block_on, options};
use crate::{failure::Failure, load::Load};

pub fn alone(load: &Load) -> Result<(), Failure> {
    woken(load, 0)
}

pub fn for_one(load: &Load) -> Result<(), Failure> {
    woken(load, 1)
}

pub fn for_many(load: &Load) -> Result<(), Failure> {
    woken(load, 64)
}

/// The state that the waiting tasks share with the committing task.
#[derive(Default)]
struct CommitProgress {
    /// The synced mark. The tasks wait for the next record after it.
    synced: AtomicU64,
    /// The number of waits that the tasks have started.
    waits: AtomicU64,
}

fn woken(load: &Load, waiter_count: u64) -> Result<(), Failure> {
    let work = async {
        let wal = options().open_with(MemoryStorage::new()).await?;
        let progress = Arc::new(CommitProgress::default());
        let publish = || progress.synced.store(wal.watermarks().synced.as_u64(), Ordering::Relaxed);
        publish();
        let rounds = load.turns().end;
        let waiters: Vec<_> = (0..waiter_count)
            .map(|_| tokio::spawn(wait(wal.clone(), Arc::clone(&progress), rounds)))
            .collect();
        for round in load.turns() {
            // All tasks wait now: each has counted its wait, and has not yielded before waiting.
            while progress.waits.load(Ordering::Relaxed) < waiter_count * (round + 1) {
                yield_now().await;
            }
            load.operation();
            wal.append_and_sync(&[0x5a; 64]).await?;
            publish();
        }
        for waiter in waiters {
            waiter.await??;
        }
        wal.close().await?;
        Ok(())
    };
    block_on(work)?
}

async fn wait(wal: Wal, progress: Arc<CommitProgress>, rounds: u64) -> highwater::Result<()> {
    for _ in 0..rounds {
        progress.waits.fetch_add(1, Ordering::Relaxed);
        wal.wait_synced(Lsn::new(progress.synced.load(Ordering::Relaxed))).await?;
    }
    Ok(())
}
