//! Ordering without waiting: the appender's side, and then the writer's, one after the other.

use highwater::{Ticket, Wal};

use super::{block_on, options};
use crate::{Failure, gated::Gated, load::Load};

/// The write job stands in a write of one record while the others are enqueued, so that all of
/// them are in the ring when it goes on.
async fn behind_the_gate(
    load: &Load,
    enqueue: impl AsyncFn(&Wal) -> highwater::Result<Ticket>,
) -> highwater::Result<()> {
    let storage = Gated::default();
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
