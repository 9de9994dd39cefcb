//! Each flushed group claims the group before it, so at most one damaged group looks like a torn
//! tail.

use highwater::{
    Error, Wal,
    sabotage::{self, Sabotage},
    simulation::{Disk, Image, Op, Simulation, Survival, spawn},
};

use crate::{
    block_on,
    support::{records, small},
};

/// Writes the second group during the flush of the first one; both are acknowledged. Returns the
/// image after a power cut, and the offset of the first group's payload.
async fn two_groups() -> (Image, usize) {
    let disk = Disk::new(1);
    let wal = small().open_with(disk.clone()).await.unwrap();
    wal.append_and_sync(b"before").await.unwrap();
    let gate = disk.faults().on(Op::Sync).gate();
    let first = spawn({
        let wal = wal.clone();
        async move { wal.append_and_sync(b"the first group").await }
    });
    gate.reached(1).await;
    // Written now, its claim does not exceed the flush before the held one.
    let second = wal.enqueue(b"the second group").await.unwrap();
    second.written().await.unwrap();
    let synced = spawn(async move { second.synced().await });
    gate.allow(1);
    let first = first.await.unwrap().unwrap();
    gate.reached(2).await;
    gate.allow(1);
    synced.await.unwrap().unwrap();
    let image = disk.image().crash(Survival::Nothing);
    gate.open();
    wal.close().await.unwrap();
    (image, 4096 + first.as_u64() as usize + 16)
}

/// Opens the image with one flipped bit in the first group.
fn open_with_flipped_bit(seed: u64) -> highwater::Result<Wal> {
    let (mut image, offset) = Simulation::new(seed).run(two_groups());
    let name = image.names()[0].clone();
    let mut bytes = image.bytes(&name).unwrap().to_vec();
    assert_eq!(&bytes[offset..][..15], b"the first group");
    bytes[offset] ^= 1;
    image.put(&name, bytes);
    block_on(small().open_with(Disk::with_image(image, 2)))
}

#[test]
fn damage_below_the_last_group_is_corrupt() {
    for seed in 0..20 {
        let opened = open_with_flipped_bit(seed);
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "seed {seed}: {opened:?}");
    }
}

/// Negative control: without the claim both groups are cut as a torn tail.
#[test]
fn group_without_claim_is_lost_without_error() {
    let wal = sabotage::with(Sabotage::ForgetClaim, || open_with_flipped_bit(1)).unwrap();
    let left = block_on(records(&wal));
    assert_eq!(left.len(), 1, "both acknowledged groups must be lost");
    assert!(wal.recovery().cut.is_some());
}
