//! `OnDamage::TruncateAtDamage`: what opening cuts and keeps, for each kind of damage, with power
//! cuts at every step.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and the coverage is printed"
)]

mod support;

use std::collections::BTreeMap;

use futures::TryStreamExt;
use highwater::{
    Error, Lsn, OnDamage, Options, RecoveryReport, Wal,
    inspect::Snapshot,
    sabotage::{self, Sabotage},
    simulation::{Disk, Faults, Image, Op, Survival},
    storage::Storage,
};
use support::{edited, tiny};

type Records = BTreeMap<Lsn, Vec<u8>>;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn cutting() -> Options {
    tiny().on_damage(OnDamage::TruncateAtDamage)
}

async fn records(wal: &Wal) -> Result<Records, Error> {
    let all = wal.replay(..).map_ok(|record| (record.lsn, record.payload.to_vec()));
    all.try_collect().await
}

fn opened(options: Options, storage: impl Storage) -> Result<(Records, RecoveryReport), Error> {
    block_on(async {
        let wal = options.open_with(storage).await?;
        Ok((records(&wal).await?, wal.recovery().clone()))
    })
}

fn name(sequence: u64) -> String {
    format!("{sequence:020}.wal")
}

/// Returns a log of four segments, closed or not, and its records.
fn log(is_closed: bool) -> (Image, Records) {
    let disk = Disk::new(3);
    let appended = block_on(async {
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let mut appended = Records::new();
        for i in 0..28u8 {
            let payload = vec![i | 0x80; 500];
            appended.insert(wal.append_and_sync(&payload).await.unwrap(), payload);
        }
        if is_closed {
            wal.close().await.unwrap();
        }
        appended
    });
    (disk.image().crash(Survival::Everything), appended)
}

/// Returns the first LSN of a segment.
fn base(image: &Image, name: &str) -> Lsn {
    let bytes = image.bytes(name).unwrap();
    Lsn::new(u64::from_le_bytes(bytes[32..40].try_into().unwrap()))
}

fn below(records: &Records, lsn: Lsn) -> Records {
    records.range(..lsn).map(|(lsn, payload)| (*lsn, payload.clone())).collect()
}

/// Returns each kind of damage: the damaged image, and the records below the damage.
fn damages() -> Vec<(&'static str, Image, Records)> {
    let mut damages = Vec::new();
    for is_closed in [true, false] {
        let (image, all) = log(is_closed);
        let (second, third) = (base(&image, &name(2)), base(&image, &name(3)));
        let within = all.range(second..).nth(2).map(|(lsn, _)| *lsn).unwrap();
        let offset = usize::try_from(4096 + within.as_u64() - second.as_u64()).unwrap();
        let rotten = edited(&image, &name(2), |bytes| bytes[offset + 40] ^= 1);
        damages.push(("a rotten payload", rotten, below(&all, within)));
        let headless = edited(&image, &name(2), |bytes| bytes[..4096].fill(9));
        damages.push(("no header", headless, below(&all, second)));
        let mut missing = image.clone();
        missing.delete(&name(3));
        damages.push(("one in the middle is missing", missing, below(&all, third)));
        let mut oldest = image.clone();
        oldest.delete(&name(1));
        damages.push(("the oldest is missing", oldest, Records::new()));
        let short = edited(&image, &name(2), |bytes| bytes.truncate(offset + 100));
        damages.push(("cut short", short, below(&all, within)));
        let other = edited(&image, &name(2), |bytes| {
            for at in [0, 2048] {
                bytes[at + 16..at + 32].fill(7);
                let crc = crc32c::crc32c(&bytes[at..at + 120]);
                bytes[at + 120..at + 124].copy_from_slice(&crc.to_le_bytes());
            }
        });
        damages.push(("of another log", other, below(&all, second)));
        let mut twice = image.clone();
        twice.put(&name(77), image.bytes(&name(2)).unwrap().to_vec());
        let twice = edited(&twice, &name(77), |bytes| {
            for at in [0, 2048] {
                bytes[at + 112..at + 120].copy_from_slice(&77u64.to_le_bytes());
                let crc = crc32c::crc32c(&bytes[at..at + 120]);
                bytes[at + 120..at + 124].copy_from_slice(&crc.to_le_bytes());
            }
        });
        damages.push(("twice", twice, all.clone()));
    }
    let all_headless = (1..=4).fold(log(true).0, |image, sequence| {
        edited(&image, &name(sequence), |bytes| bytes[..4096].fill(9))
    });
    damages.push(("no header anywhere", all_headless, Records::new()));
    damages
}

/// Returns whether any file of the image has these bytes.
fn holds(image: &Image, bytes: &[u8]) -> bool {
    image.names().iter().any(|name| image.bytes(name).unwrap() == bytes)
}

#[test]
fn each_damage_is_cut_kept_and_reported() {
    for (what, image, left) in damages() {
        let strict = opened(tiny(), Disk::with_image(image.clone(), 5));
        // A closed log is opened without reading the records before its close.
        assert!(
            matches!(&strict, Err(Error::Corrupt { .. }))
                || what == "a rotten payload"
                || what == "cut short",
            "{what}"
        );
        let disk = Disk::with_image(image.clone(), 5);
        let planned = Snapshot::of_storage(disk.clone()).unwrap().plan_repair().unwrap();
        let (found, report) = opened(cutting(), disk.clone()).unwrap();
        assert_eq!(found, left, "{what}: {report}");
        let cut = report.cut.as_ref().unwrap();
        let durable = cut.durable.as_ref().unwrap();
        assert_eq!(
            planned.cut.unwrap().durable.as_ref(),
            Some(durable),
            "{what}: the plan differs"
        );
        let after = disk.image();
        for segment in image.names() {
            let bytes = image.bytes(&segment).unwrap();
            let is_used = bytes.iter().any(|&byte| byte != 0);
            assert!(!is_used || holds(&after, bytes), "{what}: {segment} is lost; {report}");
        }
        for copy in &durable.copies {
            assert_eq!(after.bytes(&copy.kept_as), image.bytes(&copy.segment), "{what}");
            assert!(cut.kept_in.contains(&copy.kept_as), "{what}: {cut:?}");
        }
        assert!(after.bytes(&durable.manifest).unwrap().ends_with(b"\nend\n"));
        let (again, report) = opened(tiny(), disk.clone()).unwrap();
        assert_eq!((again, report.cut), (left.clone(), None), "{what}: opening the repaired log");
        let (again, report) = opened(cutting(), disk).unwrap();
        assert_eq!((again, report.cut), (left, None), "{what}: a second repair must cut nothing");
    }
}

/// An intact log, or one with a torn tail above the durable part, opens as without the policy.
#[test]
fn policy_without_damage_changes_nothing() {
    for is_closed in [true, false] {
        let (image, all) = log(is_closed);
        let (strict, cut) = (Disk::with_image(image.clone(), 5), Disk::with_image(image, 5));
        let strict = opened(tiny(), strict).unwrap();
        let found = opened(cutting(), cut).unwrap();
        assert_eq!(found, strict);
        assert_eq!(found.0, all);
    }
}

#[test]
fn read_error_and_newer_format_are_never_cut() {
    let (image, _) = log(true);
    let disk = Disk::with_image(image.clone(), 5);
    let faults = Faults::new();
    faults.on(Op::Read).file(|file| file == name(2)).fail(std::io::ErrorKind::Other);
    let refused = opened(cutting(), faults.over(disk.clone()));
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    assert_eq!(disk.operation_count(), 0);
    let newer = edited(&image, &name(2), |bytes| {
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..120]);
        bytes[120..124].copy_from_slice(&crc.to_le_bytes());
    });
    let refused = opened(cutting(), Disk::with_image(newer, 5));
    assert!(matches!(refused, Err(Error::UnsupportedVersion { .. })), "{refused:?}");
}

/// Repairs five times, with segments deleted in between. No kept file is replaced, and no epoch is
/// used twice.
#[test]
fn kept_files_stay_and_epochs_rise() {
    let (image, _) = log(true);
    let mut disk = Disk::with_image(image, 5);
    let mut kept: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut epochs = Vec::new();
    for round in 0..5u8 {
        let mut image = disk.image().crash(Survival::Everything);
        let segments: Vec<_> = image.names().into_iter().filter(|n| n.ends_with(".wal")).collect();
        // Deletes the newest segment, so that its number and its epoch could be reused.
        if round % 2 == 1 {
            image.delete(segments.last().unwrap());
        } else {
            // A file with the name of a kept cut already exists.
            let taken = format!("{}.cut", segments[0]);
            if image.bytes(&taken).is_none() {
                image.put(&taken, vec![round | 1; 64]);
                kept.insert(taken, vec![round | 1; 64]);
            }
            image = edited(&image, &segments[0], |bytes| bytes[4096 + 40] ^= 1);
        }
        disk = Disk::with_image(image, u64::from(round));
        block_on(async {
            let wal = cutting().open_with(disk.clone()).await.unwrap();
            for _ in 0..12 {
                wal.append_and_sync(vec![round | 1; 700]).await.unwrap();
            }
            wal.close().await.unwrap();
        });
        let image = disk.image();
        for (name, bytes) in &kept {
            assert_eq!(image.bytes(name), Some(bytes.as_slice()), "{name}, round {round}");
        }
        for name in image.names().iter().filter(|name| name.contains(".cut")) {
            kept.insert(name.clone(), image.bytes(name).unwrap().to_vec());
        }
        let newest = image.names().into_iter().rfind(|name| name.ends_with(".wal")).unwrap();
        let bytes = image.bytes(&newest).unwrap();
        let epoch = u64::from_le_bytes(bytes[40..48].try_into().unwrap());
        assert!(epochs.last().is_none_or(|last| *last <= epoch), "{epochs:?}, then {epoch}");
        let kept_epochs = kept.values().filter(|bytes| bytes[0] == 0x8b);
        let kept_epochs = kept_epochs.map(|b| u64::from_le_bytes(b[40..48].try_into().unwrap()));
        assert!(kept_epochs.max().is_none_or(|kept| kept < epoch), "round {round}: {epoch}");
        let has_cut = block_on(async {
            let wal = tiny().open_with(disk.clone()).await.unwrap();
            wal.close().await.unwrap();
            kept.len()
        });
        assert!(has_cut > 0);
        epochs.push(epoch);
    }
    assert!(kept.keys().any(|name| name.ends_with(".cut.2")), "{:?}", kept.keys());
}

fn has_header(image: &Image, name: &str) -> bool {
    let bytes = image.bytes(name).unwrap();
    let crc = bytes.get(120..124).map(|crc| u32::from_le_bytes(crc.try_into().unwrap()));
    crc.is_some_and(|crc| bytes[0] == 0x8b && crc == crc32c::crc32c(&bytes[..120]))
}

/// Checks the state after a crash during repair: the old log or the new one, with every byte.
/// Returns whether it is the new log.
fn check_crash(what: &str, before: &Image, left: &Records, crashed: &Disk) -> Result<bool, String> {
    let image = crashed.image();
    for segment in before.names() {
        let bytes = before.bytes(&segment).unwrap();
        if bytes.iter().any(|&byte| byte != 0) && !holds(&image, bytes) {
            return Err(format!("{what}: {segment} is lost"));
        }
        // A segment that has left its place must be named in a manifest.
        let has_manifest = image.names().iter().any(|name| {
            name.ends_with(".cut.manifest") && image.bytes(name).unwrap().ends_with(b"\nend\n")
        });
        let is_aside = image.bytes(&segment).is_none() && bytes.iter().any(|&byte| byte != 0);
        if is_aside && !has_manifest {
            return Err(format!("{what}: {segment} was moved without a manifest"));
        }
    }
    let strict = opened(tiny(), crashed.crash(Survival::Everything));
    let is_new = strict.is_ok();
    // From the commit point on, the log opens without the repair policy.
    let mut added = image.names().into_iter().filter(|name| before.bytes(name).is_none());
    if !is_new && added.any(|name| name.ends_with(".wal") && has_header(&image, &name)) {
        return Err(format!("{what}: committed, but refused: {strict:?}"));
    }
    match strict {
        // The old log, still damaged.
        Err(Error::Corrupt { .. }) => {}
        Err(error) => return Err(format!("{what}: {error}")),
        Ok((found, _)) if found == *left => check_copy_of_the_cut(what, before, &image)?,
        Ok((found, report)) => {
            return Err(format!("{what}: {} of {} records, {report}", found.len(), left.len()));
        }
    }
    let (found, report) = opened(cutting(), crashed.crash(Survival::Everything))
        .map_err(|error| format!("{what}, again: {error}"))?;
    if found != *left {
        return Err(format!("{what}, again: {} of {}; {report}", found.len(), left.len()));
    }
    Ok(is_new)
}

/// After the commit, the segment that stays up to the cut must have a copy.
fn check_copy_of_the_cut(what: &str, before: &Image, image: &Image) -> Result<(), String> {
    let manifest = image.names().into_iter().rfind(|name| name.ends_with(".cut.manifest"));
    let Some(manifest) = manifest else { return Err(format!("{what}: no manifest")) };
    let text = String::from_utf8(image.bytes(&manifest).unwrap().to_vec()).unwrap();
    for line in text.lines().filter_map(|line| line.strip_suffix(", and stays up to the cut")) {
        let (segment, copy) = line.strip_prefix("kept: ").unwrap().split_once(" as ").unwrap();
        if image.bytes(copy) != before.bytes(segment) {
            return Err(format!("{what}: {copy} doesn't keep {segment}"));
        }
    }
    Ok(())
}

fn sweep() -> Result<u64, String> {
    let mut count = 0;
    for (damage, before, left) in damages() {
        let disk = Disk::with_image(before.clone(), 5).recording();
        // Opens without appending; other sweeps cover later writes.
        drop(block_on(cutting().open_with(disk.clone())).unwrap());
        let mut committed_at = u64::MAX;
        for cut in disk.power_cuts(1) {
            count += 1;
            let what = format!("{damage}, {cut}");
            let is_new = check_crash(&what, &before, &left, &cut.disk())?;
            // After the commit is durable, the old log must not return.
            if is_new && cut.survival == Survival::Nothing {
                committed_at = committed_at.min(cut.operation);
            }
            if !is_new && cut.operation >= committed_at {
                return Err(format!("{what}: the cut was committed, but opening fails"));
            }
        }
        if committed_at == u64::MAX {
            return Err(format!("{damage}: never committed"));
        }
    }
    Ok(count)
}

#[test]
fn power_cut_during_repair_leaves_old_or_new_log() {
    let count = sweep().unwrap_or_else(|what| panic!("{what}"));
    println!("{count} images");
    assert!(count > 300);
}

#[test]
fn moving_before_durable_manifest_is_caught() {
    let caught = sabotage::with(Sabotage::CutBeforeManifest, sweep);
    println!("{}", caught.expect_err("not caught"));
}

/// The disk has no space for the copies: opening fails and changes nothing.
#[test]
fn full_disk_fails_repair_unchanged() {
    let (_, image, left) = damages().swap_remove(0);
    let disk = Disk::with_image(image.clone(), 5);
    let used: usize = image.names().iter().map(|n| image.bytes(n).unwrap().len()).sum();
    disk.set_capacity_bytes(used as u64 + 9000);
    let faults = Faults::new();
    faults.on(Op::Link).fail(std::io::ErrorKind::Unsupported);
    let refused = opened(cutting(), faults.over(disk.clone()));
    assert!(matches!(refused, Err(Error::NoSpace { .. })), "{refused:?}");
    for name in image.names().iter().filter(|name| image.bytes(name).unwrap()[..8] != [0; 8]) {
        assert_eq!(disk.image().bytes(name), image.bytes(name));
    }
    disk.set_capacity_bytes(u64::MAX);
    assert_eq!(
        opened(cutting(), faults.over(disk)).unwrap().0,
        left,
        "repair by copying, without hard links"
    );
}

/// Segments are deleted by hand, so that only kept files record the highest epoch. It must not be
/// used again, because a kept file may hold the same LSN.
#[test]
fn epoch_of_kept_file_is_not_reused() {
    let epoch = |image: &Image, name: &str| {
        let bytes = image.bytes(name).unwrap();
        u64::from_le_bytes(bytes[40..48].try_into().unwrap())
    };
    let (image, _) = log(false);
    // A torn tail makes opening begin a new epoch.
    let newest = (1..=4).rev().map(name).find(|name| image.bytes(name).unwrap()[0] == 0x8b);
    let torn = edited(&image, &newest.unwrap(), |bytes| {
        let last = bytes.len() - 8;
        bytes[last] = 1;
    });
    let disk = Disk::with_image(torn, 5);
    opened(tiny(), disk.clone()).unwrap();
    let second = edited(&disk.image(), &name(2), |bytes| bytes[4096 + 40] ^= 1);
    let disk = Disk::with_image(second, 5);
    opened(cutting(), disk.clone()).unwrap();
    let mut image = disk.image();
    let newest = image.names().into_iter().rfind(|name| name.ends_with(".wal")).unwrap();
    let has_header = |name: &String| image.bytes(name).unwrap()[0] == 0x8b;
    let kept: Vec<_> = image.names().into_iter().filter(|n| n.ends_with(".wal.cut")).collect();
    let kept = kept.iter().filter(|name| has_header(name)).map(|name| epoch(&image, name)).max();
    assert_eq!((kept, epoch(&image, &newest)), (Some(2), 3));
    let spares: Vec<_> = image.names().into_iter().filter(|name| *name > newest).collect();
    spares.iter().for_each(|name| image.delete(name));
    image.delete(&newest);
    let disk = Disk::with_image(image, 5);
    opened(cutting(), disk.clone()).unwrap();
    let image = disk.image();
    let added = image.names().into_iter().rfind(|name| name.ends_with(".wal")).unwrap();
    assert!(epoch(&image, &added) > 2, "{added}");
}
