//! Appends that wait for their write.

use highwater::{Wal, storage::MemoryStorage};

use super::setup::{block_on, options};
use crate::{failure::Failure, gated::GatedStorage, load::Load};

pub const BATCH_RECORDS: u64 = 64;

pub const TASKS: u64 = 1024;

async fn each(wal: Wal, load: &Load) -> highwater::Result<()> {
    for _ in load.turns() {
        load.operation();
        wal.append(&[0x5a; 64]).await?;
    }
    wal.close().await
}

pub fn memory(load: &Load) -> Result<(), Failure> {
    Ok(block_on(async { each(options().open_with(MemoryStorage::new()).await?, load).await })??)
}

/// Uses plain write calls, so support for non-blocking writes in the file system does not matter.
pub fn in_place(load: &Load) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("log");
    Ok(block_on(async { each(options().inline_writes(4096).open(path).await?, load).await })??)
}

pub fn pool(load: &Load) -> Result<(), Failure> {
    Ok(block_on(async { each(options().open_with(GatedStorage::default()).await?, load).await })??)
}

/// In each turn every task appends once. Records that arrive during a write go into the next write.
pub fn many(load: &Load) -> Result<(), Failure> {
    let rounds = load.turns();
    let work = async {
        let wal = options().open_with(GatedStorage::default()).await?;
        let one_of_many = |_| {
            let (wal, rounds) = (wal.clone(), rounds.clone());
            let load = load.clone();
            tokio::spawn(async move {
                for _ in rounds {
                    load.operation();
                    wal.append(&[0x5a; 64]).await?;
                }
                highwater::Result::<()>::Ok(())
            })
        };
        let tasks: Vec<_> = (0..TASKS).map(one_of_many).collect();
        for task in tasks {
            task.await??;
        }
        wal.close().await?;
        Ok(())
    };
    block_on(work)?
}

pub fn batch(load: &Load) -> Result<(), Failure> {
    let work = async {
        let wal = options().open_with(MemoryStorage::new()).await?;
        let records = [[0x5a; 256]; 64];
        for _ in load.turns() {
            records.iter().for_each(|_| load.operation());
            wal.append_batch(&records).await?;
        }
        wal.close().await
    };
    Ok(block_on(work)??)
}
