//! Slots: durable named cursors that hold back truncations.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod damaged;
#[path = "../support/mod.rs"]
mod support;

use std::io::ErrorKind;

use futures::{FutureExt, TryStreamExt};
use highwater::{
    Error, Holder, Lsn, Wal,
    simulation::{Disk, Faults, Op, Survival},
    storage::MemoryStorage,
};
use support::{RING_PAYLOAD_BYTES, filled, reached, settled, small, tiny, within};

/// Returns the names and positions of all slots.
fn positions(wal: &Wal) -> Vec<(String, Lsn)> {
    wal.slots().into_iter().map(|slot| (slot.name, slot.position)).collect()
}

fn named(expected: &[(&str, Lsn)]) -> Vec<(String, Lsn)> {
    expected.iter().map(|(name, lsn)| ((*name).to_owned(), *lsn)).collect()
}

#[tokio::test]
async fn slots_survive_close_and_process_end() {
    for closes in [true, false] {
        let disk = Disk::new(1);
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let lsns = filled(&wal, 10).await;
        let a = wal.slot("a").await.unwrap();
        let b = wal.slot_at("b", lsns[3]).await.unwrap();
        assert_eq!((a.position(), b.position()), (Lsn::ZERO, lsns[3]));
        a.advance_and_sync(lsns[5]).await.unwrap();
        b.advance(lsns[7]).unwrap();
        b.keep_at_most(1 << 20).unwrap();
        b.advance(lsns[4]).unwrap();
        let c = wal.slot("c").await.unwrap();
        c.remove().await.unwrap();
        drop((a, b));
        let mut expected = named(&[("a", lsns[5]), ("b", lsns[7])]);
        assert_eq!(positions(&wal), expected);
        if closes {
            wal.close().await.unwrap();
        } else {
            // The removal of `c` carried the move of `b`.
            drop(wal);
        }
        for _ in 0..2 {
            let wal = tiny().open_with(disk.clone()).await.unwrap();
            assert_eq!(wal.recovery().was_closed, closes);
            assert_eq!(positions(&wal), expected, "closed: {closes}");
            assert_eq!(wal.slots()[1].keep_bytes_max, Some(1 << 20));
            if closes {
                let end = wal.watermarks().synced;
                let a = wal.slot("a").await.unwrap();
                a.advance(end).unwrap();
                expected[0].1 = end;
                drop(a);
                // The move alone is a reason to write.
                wal.close().await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn slot_has_one_handle_and_a_short_name() {
    let wal = tiny().open_with(MemoryStorage::new()).await.unwrap();
    let slot = wal.slot("a").await.unwrap();
    assert_eq!(slot.name(), "a");
    assert!(matches!(wal.slot("a").await, Err(Error::SlotInUse { name }) if name == "a"));
    drop(slot);
    drop(wal.slot("a").await.unwrap());
    for name in [String::new(), "n".repeat(65)] {
        assert!(matches!(wal.slot(&name).await, Err(Error::SlotName { .. })));
    }
    drop(wal.slot(&"n".repeat(64)).await.unwrap());
    let mut made = 2;
    let refused = loop {
        match wal.slot(&format!("{made:064}")).await {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused, Error::TooManySlots { slot_count, max_bytes: 512 } if slot_count == made)
    );
    assert!(made >= 4, "{made} slots");
    wal.slot("a").await.unwrap().remove().await.unwrap();
    wal.slot("b").await.unwrap().remove().await.unwrap();
    assert_eq!(wal.slots().len(), made - 1);
}

#[tokio::test]
async fn invalid_positions_are_refused() {
    let wal = tiny().open_with(MemoryStorage::new()).await.unwrap();
    let lsns = filled(&wal, 3).await;
    let within_record = Lsn::new(lsns[1].as_u64() + 8);
    assert!(matches!(wal.slot_at("s", within_record).await, Err(Error::NotABoundary { .. })));
    let above = Lsn::new(1 << 20);
    assert!(matches!(wal.slot_at("s", above).await, Err(Error::AboveEnd { .. })));
    assert_eq!(wal.slots(), []);
    let slot = wal.slot("s").await.unwrap();
    let refused = slot.advance(above).unwrap_err();
    assert!(matches!(&refused, Error::SlotAhead { position, .. } if *position == above));
    assert!(matches!(slot.advance(Lsn::new(4)), Err(Error::NotABoundary { .. })));
    let unsynced = wal.append("unsynced").await.unwrap();
    let end = Lsn::new(unsynced.as_u64() + 24);
    assert!(matches!(slot.advance(end), Err(Error::SlotAhead { .. })));
    wal.sync().await.unwrap();
    slot.advance(end).unwrap();
    wal.close().await.unwrap();
    assert!(matches!(slot.advance(end), Err(Error::Closed { .. })));
}

#[tokio::test]
async fn truncation_stops_at_the_lowest_slot() {
    let wal = tiny().open_with(MemoryStorage::new()).await.unwrap();
    let lsns = filled(&wal, 200).await;
    let low = wal.slot_at("low", lsns[60]).await.unwrap();
    let high = wal.slot_at("high", lsns[120]).await.unwrap();
    assert_eq!(wal.truncate_before(lsns[40]).await.unwrap(), lsns[40]);
    assert_eq!(wal.truncate_before(lsns[150]).await.unwrap(), lsns[60]);
    assert_eq!(wal.watermarks().first, lsns[60]);
    let stats = wal.stats();
    let holder = Holder::Slot { name: "low".into(), lsn: lsns[60] };
    assert_eq!((stats.slot_count, stats.oldest_holder), (2, Some(holder)));
    assert!(stats.held_bytes >= wal.watermarks().synced.since_for_test(lsns[60]));
    low.advance(lsns[130]).unwrap();
    assert_eq!(
        wal.truncate_before(lsns[150]).await.unwrap(),
        lsns[120],
        "the move is made durable"
    );
    high.remove().await.unwrap();
    assert_eq!(wal.truncate_before(lsns[150]).await.unwrap(), lsns[130]);
    low.remove().await.unwrap();
    assert_eq!(wal.truncate_before(lsns[150]).await.unwrap(), lsns[150]);
    assert_eq!(wal.stats().oldest_holder, None);
    let lease = wal.retain(lsns[160]).unwrap();
    assert_eq!(wal.stats().oldest_holder, Some(Holder::Lease { lsn: lsns[160] }));
    drop(lease);
}

/// A consumer advances after each record of a batch. A truncation then keeps the batch.
#[tokio::test]
async fn slot_within_batch_keeps_the_batch() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let slot = wal.slot("s").await.unwrap();
    filled(&wal, 30).await;
    let batch = wal.append_batch(["one", "two", "three"]).await.unwrap();
    filled(&wal, 30).await;
    let mut follow = slot.follow().unwrap();
    while follow.try_next().await.unwrap().unwrap().payload != "one" {}
    slot.advance(follow.position()).unwrap();
    assert!(batch.contains(&slot.position()) && slot.position() > batch.start);
    let end = wal.watermarks().synced;
    assert_eq!(wal.truncate_before(end).await.unwrap(), batch.start);
    assert_eq!(wal.truncate_before(end).await.unwrap(), batch.start);
    drop((follow, slot, wal));
    let wal = tiny().open_with(disk).await.unwrap();
    let slot = wal.slot("s").await.unwrap();
    let mut follow = slot.follow().unwrap();
    assert_eq!(follow.try_next().await.unwrap().unwrap().payload, "two");
    slot.advance(batch.end).unwrap();
    assert_eq!(wal.truncate_before(end).await.unwrap(), batch.end);
}

/// `advance` does not read the log. A wrong position shows when the slot is followed, and keeps no
/// truncation from the records before it.
#[tokio::test]
async fn slot_within_record_is_no_start_of_a_stream() {
    let wal = tiny().open_with(MemoryStorage::new()).await.unwrap();
    let slot = wal.slot("s").await.unwrap();
    let lsns = filled(&wal, 60).await;
    let within_record = Lsn::new(lsns[40].as_u64() + 24);
    slot.advance_and_sync(within_record).await.unwrap();
    let refused = slot.follow().unwrap().try_next().await.unwrap_err();
    assert!(matches!(refused, Error::NotABoundary { lsn } if lsn == within_record), "{refused}");
    assert_eq!(wal.truncate_before(lsns[50]).await.unwrap(), lsns[40]);
    slot.advance(lsns[41]).unwrap();
    assert_eq!(slot.follow().unwrap().try_next().await.unwrap().unwrap().lsn, lsns[41]);
    assert_eq!(wal.truncate_before(lsns[50]).await.unwrap(), lsns[41]);
}

#[tokio::test]
async fn slot_beyond_its_limit_is_lost_and_made_anew() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let lsns = filled(&wal, 100).await;
    let slot = wal.slot("dead").await.unwrap();
    slot.keep_at_most(4096).unwrap();
    assert_eq!(wal.truncate_before(lsns[50]).await.unwrap(), lsns[50], "too far behind");
    assert!(wal.slots()[0].is_lost);
    let lost = [slot.advance(lsns[60]).unwrap_err(), slot.follow().map(drop).unwrap_err()];
    for error in lost {
        let Error::SlotLost { name, position, first } = &error else { panic!("{error:?}") };
        assert_eq!((name.as_str(), *position, *first), ("dead", Lsn::ZERO, lsns[50]));
    }
    drop(slot);
    drop(wal);
    let wal = tiny().open_with(disk).await.unwrap();
    let slot = wal.slot("dead").await.unwrap();
    assert!(matches!(slot.advance(lsns[60]), Err(Error::SlotLost { .. })), "also after a crash");
    slot.remove().await.unwrap();
    let slot = wal.slot("dead").await.unwrap();
    assert_eq!(slot.position(), lsns[50]);
    assert_eq!(wal.slots()[0].keep_bytes_max, None);
}

#[tokio::test]
async fn consumer_continues_where_it_stopped() {
    let disk = Disk::new(1);
    let mut seen = Vec::new();
    for round in 0..20u64 {
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let slot = wal.slot("consumer").await.unwrap();
        for i in 0..7 {
            wal.append(&(round * 7 + i).to_le_bytes().repeat(20)).await.unwrap();
        }
        wal.sync().await.unwrap();
        let mut follow = slot.follow().unwrap();
        while let Some(Some(record)) = follow.try_next().now_or_never().transpose().unwrap() {
            seen.push(u64::from_le_bytes(record.payload[..8].try_into().unwrap()));
            slot.advance(follow.position()).unwrap();
            if seen.len() % 5 == 0 {
                wal.truncate_before(slot.position()).await.unwrap();
            }
        }
        drop((follow, slot));
        match round % 3 {
            0 => wal.close().await.unwrap(),
            1 => drop(wal.sync().await),
            _ => drop(wal.append_and_sync(&[0xff; 8]).await.unwrap()),
        }
    }
    let fresh: Vec<u64> = seen.iter().copied().filter(|&id| id != u64::MAX).collect();
    let mut once = fresh.clone();
    once.dedup();
    assert!(once.windows(2).all(|pair| pair[1] <= pair[0] + 1), "none is missed: {once:?}");
    assert_eq!(once.last(), Some(&139));
}

/// The records of slots are found again in any of many segments, and old segments go.
#[tokio::test]
async fn slots_are_found_after_many_segments() {
    for closes in [true, false] {
        let disk = Disk::new(1);
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let idle = wal.slot("idle").await.unwrap();
        drop(idle);
        filled(&wal, 400).await;
        let busy = wal.slot_at("busy", wal.watermarks().synced).await.unwrap();
        for _ in 0..20 {
            filled(&wal, 20).await;
            busy.advance(wal.watermarks().synced).unwrap();
            wal.append_and_sync("carries the move").await.unwrap();
        }
        let expected = positions(&wal);
        drop(busy);
        if closes {
            wal.close().await.unwrap();
        }
        drop(wal);
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        assert_eq!(positions(&wal), expected, "closed: {closes}");
        assert!(wal.recovery().scanned_bytes < 32 << 10, "{}", wal.recovery());
        wal.slot("idle").await.unwrap().remove().await.unwrap();
        let newest = wal.append_and_sync("newest").await.unwrap();
        let busy = wal.slot("busy").await.unwrap();
        busy.advance(newest).unwrap();
        assert_eq!(wal.truncate_before(newest).await.unwrap(), newest);
        // Some segments are kept for the slots' records until later headers are durable.
        filled(&wal, 100).await;
        busy.advance(wal.watermarks().synced).unwrap();
        wal.truncate_before(wal.watermarks().synced).await.unwrap();
        assert!(wal.stats().segment_count <= 3, "{}", wal.stats().segment_count);
        drop((busy, wal));
        let wal = tiny().open_with(disk.crash(Survival::Nothing)).await.unwrap();
        assert_eq!(wal.slots().len(), 1);
        assert!(!wal.slots()[0].is_lost);
    }
}

#[tokio::test]
async fn truncated_end_moves_slots_back_and_keeps_them() {
    for cut_at in [0, 5, 30] {
        let disk = Disk::new(1);
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let lsns = filled(&wal, 60).await;
        let old = wal.slot_at("old", lsns[2]).await.unwrap();
        let new = wal.slot_at("new", lsns[40]).await.unwrap();
        old.advance_and_sync(lsns[4]).await.unwrap();
        let end = wal.truncate_after(lsns[cut_at]).await.unwrap();
        assert_eq!(end, lsns[cut_at + 1]);
        assert_eq!((old.position(), new.position()), (lsns[4].min(end), end));
        let expected = positions(&wal);
        for disk in [disk.crash(Survival::Nothing), disk.crash(Survival::Everything)] {
            let wal = tiny().open_with(disk).await.unwrap();
            assert_eq!(positions(&wal), expected, "cut at {cut_at}");
        }
        let record = wal.append_and_sync("of the next epoch").await.unwrap();
        assert!(record >= end);
        new.advance_and_sync(record).await.unwrap();
        let mut follow = new.follow().unwrap();
        assert_eq!(follow.try_next().await.unwrap().unwrap().lsn, record);
        let expected = positions(&wal);
        wal.close().await.unwrap();
        let wal = tiny().open_with(disk).await.unwrap();
        assert_eq!(positions(&wal), expected);
    }
}

#[tokio::test]
async fn copy_of_log_has_its_slots() {
    let wal = tiny().open_with(MemoryStorage::new()).await.unwrap();
    let lsns = filled(&wal, 100).await;
    let slot = wal.slot_at("s", lsns[90]).await.unwrap();
    filled(&wal, 20).await;
    assert_eq!(wal.truncate_before(lsns[90]).await.unwrap(), lsns[90]);
    let target = MemoryStorage::new();
    wal.copy_to_storage(target.clone()).await.unwrap();
    let copy = tiny().open_with(target).await.unwrap();
    assert_eq!(positions(&copy), positions(&wal));
    assert_eq!(copy.recovery().warnings, [highwater::Warning::UncleanShutdown]);
    drop(slot);
}

/// All permits are held by a future that is not polled, so the note is written directly.
#[tokio::test]
async fn held_append_does_not_block_slot_moves() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    let lsn = wal.append_and_sync(b"first").await.unwrap();
    let slot = wal.slot("s").await.unwrap();
    // Otherwise the gate holds the write of the mark, and the next record waits for its room.
    settled(&wal).await;
    let gate = faults.on(Op::Write).once().gate();
    let ticket = wal.enqueue(vec![1; RING_PAYLOAD_BYTES]).await.unwrap();
    reached(&gate, 1).await;
    // It waits for the ring, and its offer is never taken.
    let mut held = Box::pin(wal.append(vec![2; RING_PAYLOAD_BYTES]));
    assert!(held.as_mut().now_or_never().is_none());
    slot.advance(lsn.max(Lsn::new(40))).unwrap();
    gate.open();
    within("the sync", ticket.synced()).await.unwrap();
    let carried = async {
        while wal.slots()[0].durable != Some(Lsn::new(40)) {
            tokio::task::yield_now().await;
        }
    };
    within("the flush carries the move", carried).await;
    drop(held);
}

/// A full log can be truncated by the moves of its slots, and a removed slot frees space.
#[tokio::test]
async fn full_log_is_freed_by_its_slots() {
    for removes in [false, true] {
        let disk = Disk::new(1);
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let slot = wal.slot("s").await.unwrap();
        disk.set_capacity_bytes(32 << 10);
        let full = loop {
            match wal.append_and_sync(&[7; 200]).await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(full, Error::NoSpace { .. }), "{full:?}");
        assert!(matches!(wal.slot("another").await, Err(Error::NoSpace { .. })));
        assert_eq!(wal.slots().len(), 1);
        let end = wal.watermarks().synced;
        if removes {
            assert!(matches!(slot.remove().await, Err(Error::NoSpace { .. })));
        } else {
            slot.advance(end).unwrap();
        }
        assert_eq!(wal.truncate_before(end).await.unwrap(), end);
        wal.append_and_sync(&[8; 200]).await.unwrap();
        wal.append_and_sync(&[9; 200]).await.unwrap();
        assert_eq!(wal.slots().len(), usize::from(!removes));
        wal.close().await.unwrap();
        let wal = tiny().open_with(disk).await.unwrap();
        assert_eq!(wal.slots().len(), usize::from(!removes));
    }
}

/// The room for slots on a full disk takes a few of them. The lowest position is among these, so
/// the log is freed up to the next one, and then completely.
#[tokio::test]
async fn full_log_is_freed_by_its_lowest_slot() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let lsns = filled(&wal, 100).await;
    let mut slots = Vec::new();
    for i in 0..9 {
        slots.push(wal.slot_at(&format!("{i:08}"), lsns[95]).await.unwrap());
    }
    slots.push(wal.slot("the lowest").await.unwrap());
    disk.set_capacity_bytes(32 << 10);
    while wal.append_and_sync(&[7; 200]).await.is_ok() {}
    let end = wal.watermarks().synced;
    slots.iter().for_each(|slot| slot.advance(end).unwrap());
    assert_eq!(wal.truncate_before(end).await.unwrap(), lsns[95]);
    wal.append_and_sync(&[8; 200]).await.unwrap();
    assert_eq!(wal.truncate_before(end).await.unwrap(), end);
}

/// A close prepares the next segment, if the active one has no room for the last moves of slots.
#[tokio::test]
async fn close_in_full_segment_keeps_slot_moves() {
    let mut fitting_count = 0;
    for is_counting in [true, false] {
        let (memory, faults) = (MemoryStorage::new(), Faults::new());
        let wal = tiny().open_with(faults.over(memory.clone())).await.unwrap();
        let slot = wal.slot("s").await.unwrap();
        faults.on(Op::Create).fail(ErrorKind::StorageFull);
        if is_counting {
            while wal.append(&[1; 16]).await.is_ok() {
                fitting_count += 1;
            }
            continue;
        }
        for _ in 1..fitting_count {
            wal.append(&[1; 16]).await.unwrap();
        }
        // The largest record that begins in the segment leaves room for little more than a close.
        let last = wal.append_and_sync(vec![2; RING_PAYLOAD_BYTES]).await.unwrap();
        assert_eq!(wal.stats().segment_count, 1);
        slot.advance(last).unwrap();
        faults.heal();
        wal.close().await.unwrap();
        let wal = tiny().open_with(memory).await.unwrap();
        assert_eq!(positions(&wal), named(&[("s", last)]));
    }
}

#[tokio::test]
async fn log_without_slots_has_no_slot_bytes() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    filled(&wal, 100).await;
    wal.close().await.unwrap();
    let found = highwater::inspect::storage(disk).unwrap();
    assert!(found.slots.is_empty());
}

trait Since {
    fn since_for_test(self, other: Lsn) -> u64;
}

impl Since for Lsn {
    fn since_for_test(self, other: Lsn) -> u64 {
        self.as_u64() - other.as_u64()
    }
}

/// The log's first slots record is behind a record of the next segment when the power fails, and
/// only that segment's header is on the disk. The header names a position that the log never
/// reached. It must not hide the slots that the log writes there after it is opened again.
#[tokio::test]
async fn lost_first_slot_hides_no_later_slot() {
    for payload_bytes in [8, 24, 80, 96, 200] {
        let disk = Disk::new(1);
        let faults = Faults::new();
        let wal = tiny().open_with(faults.over(disk.clone()).on_pool()).await.unwrap();
        for _ in 0..8 {
            wal.append_and_sync(&[1; 400]).await.unwrap();
        }
        settled(&wal).await;
        let gate = faults.on(Op::Write).gate();
        // The last record of the segment is held, so that the next ones wait in the ring.
        let _last = wal.enqueue(vec![2; 400]).await.unwrap();
        reached(&gate, 1).await;
        let _next = wal.enqueue(vec![2; 400]).await.unwrap();
        let mut slot = Box::pin(wal.slot("lost"));
        assert!(slot.as_mut().now_or_never().is_none());
        // The header is written, and the frames behind it are not.
        gate.allow(2);
        reached(&gate, 3).await;
        let image = disk.image().crash(Survival::Everything);
        drop(slot);
        gate.open();
        wal.close().await.unwrap();

        let disk = Disk::with_image(image, 2);
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        assert_eq!(positions(&wal), []);
        let lsn = wal.append_and_sync(&vec![3; payload_bytes]).await.unwrap();
        let slot = wal.slot_at("kept", lsn).await.unwrap();
        wal.append_and_sync(&[4; 400]).await.unwrap();
        drop((slot, wal));
        for closes in [false, true, false] {
            let wal = tiny().open_with(disk.clone()).await.unwrap();
            assert_eq!(positions(&wal), named(&[("kept", lsn)]), "{payload_bytes} bytes");
            wal.append_and_sync(&[5; 100]).await.unwrap();
            if closes {
                wal.close().await.unwrap();
            }
        }
    }
}
