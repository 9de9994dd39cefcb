//! Logs with slots, and the slots that an opening after damage may find.

use std::collections::BTreeMap;

use highwater::{Lsn, RecoveryReport, Wal, Warning, sabotage::Sabotage, simulation::Disk};

use super::{
    assert_caught, flip_bits,
    log::{Log, block_on, fill, open},
};

/// The slots by name.
pub(crate) type Slots = Vec<(String, Lsn)>;

pub(crate) fn slots_of(wal: &Wal) -> Slots {
    wal.slots().into_iter().map(|slot| (slot.name, slot.position)).collect()
}

/// A change of slots. Its record is between two positions.
#[derive(Clone, Debug)]
pub(crate) struct SlotsChange {
    after: Lsn,
    until: Lsn,
    /// The slots from then on.
    slots: Slots,
}

/// Returns whether opening has reported that slots may be missing.
pub(crate) fn is_incomplete(report: &RecoveryReport) -> bool {
    report.warnings.iter().any(|it| matches!(it, Warning::SlotsIncomplete { .. }))
}

/// Checks the slots of a log that was opened after damage: they are those at its end, or a warning
/// shows that they may not be.
pub(crate) fn check_slots(log: &Log, found: &Slots, report: &RecoveryReport) -> Result<(), String> {
    if is_incomplete(report) {
        return Ok(());
    }
    let end = report.end;
    let before = log.changes.iter().rfind(|change| change.until <= end);
    // A cut may leave a part of a change: its record, or not.
    let within = log.changes.iter().filter(|change| change.after < end && end < change.until);
    let none = Slots::new();
    let before = before.map_or(&none, |change| &change.slots);
    let mut may_be = std::iter::once(before).chain(within.map(|change| &change.slots));
    let at_end = |slots: &Slots| -> Slots {
        slots.iter().map(|(name, at)| (name.clone(), (*at).min(end))).collect()
    };
    if may_be.any(|slots| at_end(slots) == *found) {
        return Ok(());
    }
    Err(format!("the slots are {found:?}, they were {before:?}; {report}"))
}

/// Returns a log of several segments with slots: new ones, moves with a flush of their own and
/// without, a removal.
pub(crate) fn slots_log(name: &'static str, closes: bool, truncates: bool) -> Log {
    block_on(async {
        let disk = Disk::new(4).recording();
        let (mut records, mut changes) = (BTreeMap::new(), Vec::new());
        let wal = open(&disk).await.unwrap();
        let mut after = Lsn::ZERO;
        let mut changed = |wal: &Wal| {
            let until = wal.watermarks().synced;
            changes.push(SlotsChange { after, until, slots: slots_of(wal) });
            after = until;
        };
        fill(&wal, 0, 25, &mut records).await;
        let a = wal.slot("a").await.unwrap();
        changed(&wal);
        fill(&wal, 25, 20, &mut records).await;
        let b = wal.slot_at("another slot", wal.watermarks().synced).await.unwrap();
        changed(&wal);
        let c = wal.slot("c").await.unwrap();
        changed(&wal);
        a.advance(wal.watermarks().synced).unwrap();
        fill(&wal, 45, 30, &mut records).await;
        changed(&wal);
        b.advance_and_sync(wal.watermarks().synced).await.unwrap();
        changed(&wal);
        c.remove().await.unwrap();
        changed(&wal);
        fill(&wal, 75, 5, &mut records).await;
        let newest = *records.keys().next_back().unwrap();
        a.advance_and_sync(newest).await.unwrap();
        changed(&wal);
        b.advance_and_sync(newest).await.unwrap();
        changed(&wal);
        if truncates {
            assert_eq!(wal.truncate_before(newest).await.unwrap(), newest);
            records = records.split_off(&newest);
            // The next header names the beginning, and slots records below it.
            fill(&wal, 80, 45, &mut records).await;
        }
        drop((a, b));
        if closes {
            wal.close().await.unwrap();
        }
        drop(wal);
        Log { changes, ..Log::new(name, &disk, records) }
    })
}

#[test]
fn forgetting_damaged_slots_is_caught() {
    let log = || slots_log("slots, closed", true, false);
    assert_caught(Sabotage::ForgetDamagedSlots, log, flip_bits);
}
