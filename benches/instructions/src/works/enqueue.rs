//! Enqueueing without waiting: first the cost of the appender, then the cost of the writer.

use highwater::{Ticket, Wal};

use super::setup::{block_on, options};
use crate::{failure::Failure, gated::GatedStorage, load::Load};

/// Enqueues all records while the write job is blocked in the write of one record. So all records
/// are in the ring when the job continues.
async fn behind_the_gate(
    load: &Load,
    enqueue: impl AsyncFn(&Wal) -> highwater::Result<Ticket>,
) -> highwater::Result<()> {
    let storage = GatedStorage::default();
    let gate = storage.gate();
    let wal = options().open_with(storage).await?;
    gate.close();
    let mut last = enqueue(&wal).await?;
    gate.wait_for_a_write();
    for _ in load.turns() {
        load.operation();
        last = enqueue(&wal).await?;
    }
    gate.open();
    last.written().await?;
    wal.close().await
}

pub fn small(load: &Load) -> Result<(), Failure> {
    Ok(block_on(behind_the_gate(load, async |wal| wal.enqueue(&[0x5a; 64]).await))??)
}

pub fn medium(load: &Load) -> Result<(), Failure> {
    Ok(block_on(behind_the_gate(load, async |wal| wal.enqueue(&[0x5a; 256]).await))??)
}

pub fn trying(load: &Load) -> Result<(), Failure> {
    Ok(block_on(behind_the_gate(load, async |wal| wal.try_enqueue(&[0x5a; 64])))??)
}
