//! A slot that moves beside appends, syncs, truncations and a rotation.

use std::{
    panic::catch_unwind,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use highwater::{
    Lsn, Slot, Wal,
    sabotage::{Sabotage, with},
};
use shuttle::{
    future::{block_on, spawn, yield_now},
    rand::{Rng, thread_rng},
};

use super::{
    check_one_in,
    disk::Disk,
    disk_after,
    load::{open_when_free, small},
};

/// A schedule opens several logs, so fewer of them take as long as those of another test.
const ONE_IN: usize = 8;

/// The position up to which moves were acknowledged. A std atomic, so that shuttle does not switch
/// here.
#[derive(Clone, Default)]
struct Acknowledged(Arc<AtomicU64>);

impl Acknowledged {
    fn store(&self, position: Lsn) {
        self.0.store(position.as_u64(), Ordering::SeqCst);
    }

    fn load(&self) -> Lsn {
        Lsn::new(self.0.load(Ordering::SeqCst))
    }
}

async fn advance(wal: Wal, slot: Slot, acknowledged: Acknowledged) -> Slot {
    for _ in 0..3 {
        let to = wal.watermarks().synced;
        if thread_rng().gen_range(0..2) == 0 {
            slot.advance(to).unwrap();
            yield_now().await;
        } else {
            slot.advance_and_sync(to).await.unwrap();
            acknowledged.store(to);
        }
    }
    slot
}

async fn append(wal: Wal, syncs: bool) {
    for _ in 0..3 {
        let payload = vec![7; thread_rng().gen_range(600..900)];
        if syncs {
            wal.append_and_sync(&payload).await.unwrap();
        } else {
            wal.append(&payload).await.unwrap();
        }
    }
    wal.sync().await.unwrap();
}

async fn truncate(wal: Wal, disk: Disk, acknowledged: Acknowledged) {
    for _ in 0..3 {
        wal.truncate_before(wal.watermarks().synced).await.unwrap();
        check_slot(&wal, &disk, &acknowledged).await;
    }
}

/// Checks that the log does not begin past its slot, and that a power cut now loses neither the
/// slot, nor an acknowledged move, nor a record that the slot keeps.
async fn check_slot(wal: &Wal, disk: &Disk, acknowledged: &Acknowledged) {
    // Both grow.
    let first = wal.watermarks().first;
    let durable = wal.slots()[0].durable;
    assert!(Some(first) <= durable, "the log begins at {first}, its slot is at {durable:?}");
    let at_least = acknowledged.load();
    let after = disk_after(disk).await;
    let recovered = after.slots();
    assert_eq!(recovered.len(), 1, "{}", after.recovery());
    let position = recovered[0].position;
    assert!(position >= at_least, "the slot is at {position}, it was durable at {at_least}");
    assert!(!recovered[0].is_lost, "{}", after.recovery());
}

fn moving_slot() {
    block_on(async {
        let disk = Disk::new();
        let wal = small().open_with(disk.clone()).await.unwrap();
        let slot = wal.slot("s").await.unwrap();
        let acknowledged = Acknowledged::default();
        let advancing = spawn(advance(wal.clone(), slot, acknowledged.clone()));
        let others = [
            spawn(append(wal.clone(), true)),
            spawn(append(wal.clone(), false)),
            spawn(truncate(wal.clone(), disk.clone(), acknowledged.clone())),
        ];
        let slot = advancing.await.unwrap();
        check_slot(&wal, &disk, &acknowledged).await;
        for other in others {
            other.await.unwrap();
        }
        assert!(wal.stats().rotation_count > 0);
        check_slot(&wal, &disk, &acknowledged).await;
        let position = slot.position();
        drop(slot);
        wal.close().await.unwrap();
        for again in [open_when_free(&disk).await, disk_after(&disk).await] {
            let found = again.slots();
            assert_eq!((found.len(), found[0].position), (1, position));
        }
    });
}

#[test]
fn no_truncation_passes_a_moving_slot() {
    check_one_in(ONE_IN, moving_slot);
}

fn assert_caught(mistake: Sabotage) {
    let checked = catch_unwind(|| with(mistake, || check_one_in(ONE_IN, moving_slot)));
    assert!(checked.is_err(), "{mistake:?} was not caught");
}

#[test]
fn truncation_past_a_slot_is_caught() {
    assert_caught(Sabotage::TruncatePastSlot);
}

#[test]
fn slot_that_advances_before_the_flush_is_caught() {
    assert_caught(Sabotage::AdvanceBeforeFlush);
}
