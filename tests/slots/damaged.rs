//! Damage to slots records: no slot is lost without an error or a warning.

use highwater::{
    Error, Lsn, Wal, Warning,
    inspect::{FrameKind, Role, Snapshot},
    simulation::{Disk, Image, Survival},
};

use super::{
    named, positions,
    support::{edited, filled, tiny},
};

/// A segment with slots records has lost its end, exactly behind a record. Opening refuses the log,
/// because later slots records are missing. A recovery has begun the next segment at the synced
/// end, so the walk for the end of the log begins there. Only the search for slots reads the short
/// segment.
#[tokio::test]
async fn short_segment_of_slots_records_is_refused() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let slot = wal.slot("s").await.unwrap();
    filled(&wal, 10).await;
    slot.advance_and_sync(wal.watermarks().synced).await.unwrap();
    let end = usize::try_from(wal.append_and_sync("last").await.unwrap().as_u64()).unwrap() + 4096;
    let expected = positions(&wal);
    drop((slot, wal));
    let first = "00000000000000000001.wal";
    let image = disk.crash(Survival::Everything).image();
    // A torn record behind the end.
    let torn = edited(&image, first, |bytes| bytes[end + 100] = 7);
    let disk = Disk::with_image(torn, 1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    assert_eq!(positions(&wal), expected);
    assert!(wal.recovery().cut.is_some(), "{}", wal.recovery());
    drop(wal);
    let image = disk.crash(Survival::Everything).image();
    let snapshot = Snapshot::of_storage(Disk::with_image(image.clone(), 1)).unwrap();
    let segment = snapshot.outline().segments.iter().find(|it| it.name == first).unwrap();
    let frames = snapshot.frames(segment).unwrap().map(|frame| frame.unwrap().offset);
    let ends: Vec<_> =
        frames.map(|at| usize::try_from(at).unwrap()).filter(|at| *at <= end).collect();
    assert!(ends.len() > 10);
    for end in &ends[1..] {
        let short = edited(&image, first, |bytes| bytes.truncate(*end));
        let opened = tiny().open_with(Disk::with_image(short, 1)).await;
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "{end}: {opened:?}");
    }
}

/// Returns a log with several segments and slots: moved, removed, made again, never moved.
async fn log_with_slots(closes: bool) -> (Image, Vec<(String, Lsn)>) {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let lsns = filled(&wal, 30).await;
    let moved = wal.slot_at("moved", lsns[3]).await.unwrap();
    wal.slot("removed").await.unwrap().remove().await.unwrap();
    for _ in 0..4 {
        filled(&wal, 12).await;
        moved.advance_and_sync(wal.watermarks().synced).await.unwrap();
    }
    drop(wal.slot("new").await.unwrap());
    filled(&wal, 2).await;
    let expected = positions(&wal);
    assert_eq!(expected.len(), 2);
    drop(moved);
    if closes {
        wal.close().await.unwrap();
    }
    drop(wal);
    (disk.crash(Survival::Everything).image(), expected)
}

/// Returns the slots records of each segment of the log: the place, and the bytes of each.
fn slots_records(image: &Image) -> Vec<(String, Vec<std::ops::Range<usize>>)> {
    let snapshot = Snapshot::of_storage(Disk::with_image(image.clone(), 1));
    let snapshot = snapshot.unwrap();
    let segments = snapshot.outline().segments.clone();
    let of_log = segments.iter().filter(|it| it.role == Role::Log);
    let records_of = |segment| {
        let frames = snapshot.frames(segment).unwrap().map(Result::unwrap);
        let records = frames.filter(|frame| frame.kind == FrameKind::Slots);
        let places = records.map(|frame| {
            let start = usize::try_from(frame.offset).unwrap();
            start..start + 16 + usize::try_from(frame.stored_bytes).unwrap()
        });
        places.collect()
    };
    of_log.map(|segment| (segment.name.clone(), records_of(segment))).collect()
}

/// Opens a damaged log. Returns whether it is refused with the place of the damage. Panics if the
/// log opens with other slots and without a warning.
async fn is_refused(damaged: Image, segment: &str, expected: &[(String, Lsn)]) -> bool {
    match tiny().open_with(Disk::with_image(damaged, 1)).await {
        Ok(wal) => {
            let warnings = &wal.recovery().warnings;
            let warns = warnings.iter().any(|it| matches!(it, Warning::SlotsIncomplete { .. }));
            assert!(warns || positions(&wal) == expected, "{segment}: {}", wal.recovery());
            false
        }
        Err(Error::Corrupt { directory, segment: named, offset, .. }) => {
            assert_eq!((directory.is_empty(), named.as_str()), (false, segment));
            assert!(offset >= 4096, "{offset}");
            true
        }
        Err(error) => panic!("{segment}: {error}"),
    }
}

/// Damages every byte of each slots record. No slot is lost without an error or a warning.
#[tokio::test]
async fn damaged_slots_record_loses_no_slot() {
    for closes in [true, false] {
        let (image, expected) = log_with_slots(closes).await;
        let segments = slots_records(&image);
        assert!(segments.len() > 2 && segments.iter().all(|(_, records)| !records.is_empty()));
        let (last, _) = segments.last().unwrap().clone();
        let mut refused_in_last = 0;
        for (name, records) in &segments {
            let newest = records.last().unwrap();
            for place in records {
                for at in place.clone() {
                    let flipped = edited(&image, name, |bytes| bytes[at] ^= 0x21);
                    let is_refused = is_refused(flipped, name, &expected).await;
                    refused_in_last += usize::from(is_refused && *name == last);
                    assert!(is_refused || *name != last || place != newest, "{at} in {name}");
                }
                let zeroed = edited(&image, name, |bytes| bytes[place.clone()].fill(0));
                is_refused(zeroed, name, &expected).await;
            }
        }
        assert!(refused_in_last > 40, "closed: {closes}, {refused_in_last}");
    }
}

/// A page holds the only slots records of a closed log. Nothing shows that the log has a slot, so
/// opening warns.
#[tokio::test]
async fn zeroed_page_of_all_slots_records_warns() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let lsns = filled(&wal, 2).await;
    drop(wal.slot("s").await.unwrap());
    filled(&wal, 1).await;
    wal.close().await.unwrap();
    let end = usize::try_from(wal.watermarks().reserved.as_u64()).unwrap() + 4096;
    let from = usize::try_from(lsns[1].as_u64()).unwrap() + 4096;
    let name = "00000000000000000001.wal";
    let image = disk.crash(Survival::Everything).image();
    let zeroed = edited(&image, name, |bytes| bytes[from..end - 24].fill(0));
    let wal = tiny().open_with(Disk::with_image(zeroed, 1)).await.unwrap();
    assert!(wal.recovery().was_closed && wal.slots().is_empty());
    let warned = Warning::SlotsIncomplete { lsn: lsns[1] };
    assert_eq!(wal.recovery().warnings, [warned]);
}

/// The last record of a closed log is larger than the pieces in which opening searches it.
#[tokio::test]
async fn large_last_record_hides_no_slot() {
    for (payload_bytes, damages) in [(100, false), (300_000, false), (300_000, true)] {
        let disk = Disk::new(1);
        let options = || Wal::options().segment_bytes(2 << 20).ring_bytes(64 << 10);
        let wal = options().open_with(disk.clone()).await.unwrap();
        wal.slot("gone").await.unwrap().remove().await.unwrap();
        let lsn = wal.append_and_sync(vec![7; payload_bytes]).await.unwrap();
        wal.close().await.unwrap();
        let mut image = disk.crash(Survival::Everything).image();
        if damages {
            let at = usize::try_from(lsn.as_u64()).unwrap() + 4096 + 1000;
            image = edited(&image, "00000000000000000001.wal", |bytes| bytes[at] ^= 1);
        }
        match options().open_with(Disk::with_image(image, 1)).await {
            Ok(wal) => assert_eq!((wal.slots(), &wal.recovery().warnings[..]), (vec![], &[][..])),
            Err(Error::Corrupt { lsn: at, .. }) => assert!(damages && at == lsn, "{at}"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The slots records of a log are below its beginning and damaged. The policy that cuts does not
/// drop the whole log. It reports the loss, and a close makes the log whole.
#[tokio::test]
async fn damaged_slots_below_first_warn_if_cutting() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let slot = wal.slot("s").await.unwrap();
    filled(&wal, 40).await;
    let newest = wal.append_and_sync("newest").await.unwrap();
    slot.advance(newest).unwrap();
    assert_eq!(wal.truncate_before(newest).await.unwrap(), newest);
    drop((slot, wal));
    let image = disk.crash(Survival::Everything).image();
    let (name, records) = slots_records(&image).swap_remove(0);
    let damaged = edited(&image, &name, |bytes| bytes[records[0].start] ^= 1);
    let strict = tiny().open_with(Disk::with_image(damaged.clone(), 1)).await;
    assert!(matches!(strict, Err(Error::Corrupt { .. })), "{strict:?}");
    let disk = Disk::with_image(damaged, 1);
    let options = tiny().on_damage(highwater::OnDamage::TruncateAtDamage);
    let wal = options.open_with(disk.clone()).await.unwrap();
    let is_incomplete = |warning: &Warning| matches!(warning, Warning::SlotsIncomplete { .. });
    assert!(wal.recovery().warnings.iter().any(is_incomplete), "{}", wal.recovery());
    assert_eq!(wal.read(newest).await.unwrap().payload, "newest");
    assert_eq!(positions(&wal), named(&[("s", newest)]), "a later record is whole");
    wal.close().await.unwrap();
    let wal = tiny().open_with(disk).await.unwrap();
    assert_eq!((positions(&wal), wal.recovery().warnings.len()), (named(&[("s", newest)]), 0));
}

/// Damage cuts the log. The slots are those of the records before the damage.
#[tokio::test]
async fn cut_at_damage_keeps_older_slots() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let early = wal.slot("early").await.unwrap();
    let lsns = filled(&wal, 100).await;
    early.advance_and_sync(lsns[90]).await.unwrap();
    drop(wal.slot_at("late", lsns[95]).await.unwrap());
    let end = wal.watermarks().synced;
    filled(&wal, 1).await;
    drop((early, wal));
    let image = disk.crash(Survival::Everything).image();
    // A record in the fourth segment.
    let damaged = edited(&image, "00000000000000000003.wal", |bytes| bytes[5000] ^= 1);
    let disk = Disk::with_image(damaged, 1);
    let options = || tiny().on_damage(highwater::OnDamage::TruncateAtDamage);
    for _ in 0..2 {
        let wal = options().open_with(disk.clone()).await.unwrap();
        let slots = positions(&wal);
        assert!(wal.watermarks().reserved < end);
        assert_eq!(slots, named(&[("early", Lsn::ZERO)]), "{}", wal.recovery());
    }
}

/// A segment below the beginning that opening needs is missing, as in a log that was put together
/// from an archive.
#[tokio::test]
async fn missing_slots_records_are_reported() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let slot = wal.slot("s").await.unwrap();
    let lsns = filled(&wal, 60).await;
    slot.advance(lsns[59]).unwrap();
    assert_eq!(wal.truncate_before(lsns[59]).await.unwrap(), lsns[59]);
    drop((slot, wal));
    let mut image = disk.crash(Survival::Everything).image();
    let found = highwater::inspect::storage(Disk::with_image(image.clone(), 1)).unwrap();
    let of_log = found.segments.iter().filter(|it| it.role == Role::Log);
    let names: Vec<_> = of_log.map(|segment| segment.name.clone()).collect();
    assert!(names.len() >= 2, "{names:?}");
    names[..names.len() - 1].iter().for_each(|name| image.delete(name));
    let wal = tiny().open_with(Disk::with_image(image, 1)).await.unwrap();
    let is_incomplete = |warning: &Warning| matches!(warning, Warning::SlotsIncomplete { .. });
    assert!(wal.recovery().warnings.iter().any(is_incomplete), "{}", wal.recovery());
}
