//! Salvage of damaged logs: it yields exactly the intact units, and reports the rest as gaps. The
//! model is this file's own walk over the undamaged segments.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it"
)]

mod support;

use std::{io, ops::Range};

use futures::StreamExt;
use highwater::{
    Error, OnDamage, Reader, Wal,
    reader::{Gap, SalvageError},
    simulation::{Disk, Image, Survival},
    storage::{Locking, Storage, StorageFile},
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestCaseError},
};
use support::edited;

const HEADER: usize = 4096;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[derive(Clone, Debug)]
struct Frame {
    lsn: u64,
    end: u64,
    kind: u8,
    segment: String,
    offset: usize,
    payload: Vec<u8>,
    /// The number of the unit that holds this frame.
    unit: usize,
}

/// Returns the frames of an intact log of one epoch.
fn frames(image: &Image) -> Vec<Frame> {
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let mut frames: Vec<Frame> = Vec::new();
    let mut unit = 0;
    for segment in image.names().into_iter().filter(|name| name.ends_with(".wal")) {
        let bytes = image.bytes(&segment).unwrap();
        let base = word(bytes, 32);
        let mut offset = HEADER;
        while offset + 16 <= bytes.len() && bytes[offset + 4] != 0 {
            let length = u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap()) as usize;
            let lsn = base + (offset - HEADER) as u64;
            let end = lsn + 16 + length.next_multiple_of(8) as u64;
            let kind = bytes[offset + 4];
            let payload = bytes[offset + 16..offset + 16 + length].to_vec();
            let segment = segment.clone();
            frames.push(Frame { lsn, end, kind, segment, offset, payload, unit });
            unit += usize::from(kind != 2);
            offset += (end - lsn) as usize;
        }
    }
    frames
}

/// Returns some segments with records, batches and control records.
fn log(closes: bool) -> Image {
    let disk = Disk::new(3);
    block_on(async {
        let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
        let wal = options.open_with(disk.clone()).await.unwrap();
        for i in 0..50usize {
            let payload = |by: usize| vec![(i * 4 + by) as u8 | 1; (i * 31 + by * 17) % 200];
            match i % 4 {
                0 => drop(wal.append_batch([payload(0), payload(1), payload(2)]).await.unwrap()),
                1 => drop(wal.append_batch([payload(0), payload(1)]).await.unwrap()),
                2 => drop(wal.append_and_sync(payload(3)).await.unwrap()),
                _ => drop(wal.append(payload(0)).await.unwrap()),
            }
        }
        if closes {
            wal.close().await.unwrap();
        } else {
            wal.sync().await.unwrap();
        }
    });
    disk.image().crash(Survival::Everything)
}

type Salvaged = (Vec<(u64, Vec<u8>)>, Vec<Gap>);

/// Salvages an image. Checks the order and that nothing is written.
fn salvage(image: &Image) -> Salvaged {
    let disk = Disk::with_image(image.clone(), 1);
    let salvaged = salvage_of(disk.clone());
    assert_eq!(disk.operation_count(), 0, "salvage must not write");
    salvaged
}

fn salvage_of(storage: impl Storage) -> Salvaged {
    let (mut records, mut gaps) = (Vec::new(), Vec::new());
    let mut at = 0;
    block_on(async {
        let mut items = Reader::options().salvage_with(storage).await.unwrap();
        while let Some(item) = items.next().await {
            match item {
                Ok(record) => {
                    assert!(record.lsn.as_u64() >= at, "{} after {at}", record.lsn);
                    at = record.lsn.as_u64() + 16;
                    records.push((record.lsn.as_u64(), record.payload.to_vec()));
                }
                Err(SalvageError::Gap(gap)) => {
                    assert!(gap.from.as_u64() >= at && gap.to >= gap.from, "{gap} after {at}");
                    at = gap.to.as_u64();
                    gaps.push(gap);
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    (records, gaps)
}

/// Checks that the salvaged records and gaps match the intact ones of `frames` in `damaged`.
fn check(intact: &Image, damaged: &Image) -> Result<(), String> {
    let frames = frames(intact);
    let (records, gaps) = salvage(damaged);
    let changed = |frame: &Frame, range: Range<usize>| {
        let range = frame.offset + range.start..frame.offset + range.end;
        let before = &intact.bytes(&frame.segment).unwrap()[range.clone()];
        damaged.bytes(&frame.segment).and_then(|bytes| bytes.get(range)) != Some(before)
    };
    let is_damaged = |frame: &Frame| changed(frame, 0..16 + frame.payload.len());
    let damaged_units: Vec<usize> =
        frames.iter().filter(|frame| is_damaged(frame)).map(|frame| frame.unit).collect();
    // After a frame with a damaged length, a batch may be part of a longer one. Salvage cannot
    // know, unless another frame commits to the batch's start.
    let mut unsure = Vec::new();
    for pair in frames.windows(2) {
        let (before, frame) = (&pair[0], &pair[1]);
        let is_first = before.unit != frame.unit && before.segment == frame.segment;
        if is_first && matches!(frame.kind, 2 | 3) && changed(before, 0..12) {
            unsure.push(frame.unit);
        }
    }
    for frame in &frames {
        let given = records.iter().find(|(lsn, _)| *lsn == frame.lsn);
        let in_gap =
            gaps.iter().any(|gap| gap.from.as_u64() < frame.end && frame.lsn < gap.to.as_u64());
        let is_record = frame.kind != 4;
        if damaged_units.contains(&frame.unit) {
            // Zeros up to the end look like the end of the log.
            let is_end = frames.iter().filter(|after| after.lsn >= frame.lsn).all(|after| {
                damaged.bytes(&after.segment).is_none_or(|bytes| {
                    let end = (after.offset + (after.end - after.lsn) as usize).min(bytes.len());
                    bytes[after.offset.min(end)..end].iter().all(|&byte| byte == 0)
                })
            });
            if given.is_some() || !(in_gap || is_end) {
                return Err(format!("damaged: {frame:?}, salvaged {given:?}, in a gap: {in_gap}"));
            }
        } else if unsure.contains(&frame.unit) {
            if given.is_some() == in_gap {
                return Err(format!("neither salvaged nor in a gap, or both: {frame:?}"));
            }
        } else if in_gap || given.is_some() != is_record {
            return Err(format!(
                "intact: {frame:?}, salvaged {given:?}, in a gap: {in_gap}: {gaps:?}"
            ));
        }
        if given.is_some_and(|(_, payload)| *payload != frame.payload) {
            return Err(format!("other bytes: {frame:?}"));
        }
    }
    let is_known = |lsn: u64| frames.iter().any(|frame| frame.lsn == lsn && frame.kind != 4);
    match records.iter().find(|(lsn, _)| !is_known(*lsn)) {
        Some((lsn, _)) => Err(format!("{lsn} was never appended")),
        None => Ok(()),
    }
}

/// A burst of damage: its start in the used part of the log, its length, and the xor mask; without
/// a mask it writes zeros.
#[derive(Clone, Debug)]
struct Burst {
    at: prop::sample::Index,
    bytes: usize,
    xor: Option<u8>,
}

fn bursts() -> impl Strategy<Value = Vec<Burst>> {
    let burst = (any::<prop::sample::Index>(), 1..60usize, proptest::option::of(1..=255u8));
    vec(burst.prop_map(|(at, bytes, xor)| Burst { at, bytes, xor }), 1..10)
}

fn damage(intact: &Image, bursts: &[Burst]) -> Image {
    let mut image = intact.clone();
    let frames = frames(intact);
    let places: Vec<(String, usize)> = frames
        .iter()
        .flat_map(|frame| {
            (0..(frame.end - frame.lsn) as usize)
                .map(|by| (frame.segment.clone(), frame.offset + by))
        })
        .collect();
    for burst in bursts {
        let (name, at) = burst.at.get(&places);
        let mut bytes = image.bytes(name).unwrap().to_vec();
        let end = (at + burst.bytes).min(bytes.len());
        for byte in &mut bytes[*at..end] {
            *byte = burst.xor.map_or(0, |xor| *byte ^ xor);
        }
        image.put(name, bytes);
    }
    image
}

#[test]
fn salvage_yields_exactly_the_intact_units() {
    let cases = std::env::var("HIGHWATER_SALVAGE_CASES").ok().and_then(|n| n.parse().ok());
    let config =
        Config { cases: cases.unwrap_or(300), failure_persistence: None, ..Config::default() };
    let logs = [log(true), log(false)];
    proptest!(config, |(closed in 0..2usize, bursts in bursts())| {
        let damaged = damage(&logs[closed], &bursts);
        check(&logs[closed], &damaged).map_err(TestCaseError::fail)?;
    });
}

#[test]
fn salvage_of_intact_log_has_no_gaps() {
    for image in [log(true), log(false)] {
        check(&image, &image).unwrap();
        assert_eq!(salvage(&image).1, []);
    }
    assert_eq!(salvage(&Image::new()), (vec![], vec![]));
}

fn names(image: &Image) -> Vec<String> {
    image.names().into_iter().filter(|name| name.ends_with(".wal")).collect()
}

#[test]
fn salvage_survives_each_changed_byte() {
    let image = log(true);
    let name = &names(&image)[0];
    let used = frames(&image).iter().rfind(|frame| frame.segment == *name).unwrap().clone();
    for at in (HEADER..used.offset).step_by(if cfg!(debug_assertions) { 5 } else { 1 }) {
        let damaged = edited(&image, name, |bytes| bytes[at] ^= 0x41);
        check(&image, &damaged).unwrap_or_else(|what| panic!("byte {at}: {what}"));
    }
}

#[test]
fn salvage_reports_missing_segments_as_gaps() {
    let image = log(true);
    let names = names(&image);
    assert!(names.len() >= 3, "{names:?}");
    for name in &names {
        let mut damaged = image.clone();
        damaged.delete(name);
        let (records, gaps) = salvage(&damaged);
        let lost: Vec<_> =
            frames(&image).into_iter().filter(|frame| frame.segment == *name).collect();
        let is_kept = |frame: &&Frame| frame.segment != *name && frame.kind != 4;
        let all = frames(&image);
        let kept: Vec<_> = all.iter().filter(is_kept).map(|frame| frame.lsn).collect();
        assert_eq!(records.iter().map(|(lsn, _)| *lsn).collect::<Vec<_>>(), kept, "{name}");
        if Some(name) == names.last() {
            continue; // Without it the log ends at the segment before.
        }
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!(gaps[0].from.as_u64(), lost[0].lsn);
        assert_eq!(gaps[0].to.as_u64(), lost.last().unwrap().end);
        assert!(gaps[0].segment.is_none() && gaps[0].is_committed, "{gaps:?}");
    }
    // Without all segments but the first and the last.
    let mut damaged = image.clone();
    names[1..names.len() - 1].iter().for_each(|name| damaged.delete(name));
    assert_eq!(salvage(&damaged).1.len(), 1);
}

#[test]
fn salvage_places_headless_segments_by_neighbors() {
    let image = log(true);
    for name in &names(&image) {
        let damaged = edited(&image, name, |bytes| bytes[..HEADER].fill(0x55));
        let (records, gaps) = salvage(&damaged);
        let all = frames(&image).into_iter().filter(|frame| frame.kind != 4);
        assert_eq!(records, all.map(|frame| (frame.lsn, frame.payload)).collect::<Vec<_>>());
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!((gaps[0].from, gaps[0].segment.as_ref()), (gaps[0].to, Some(name)));
    }
    // With a damaged first frame, the next segment's link still names the base.
    let name = &names(&image)[1];
    let damaged = edited(&image, name, |bytes| {
        bytes[..HEADER].fill(0x55);
        bytes[HEADER + 20] ^= 1;
    });
    let (_, gaps) = salvage(&damaged);
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    // A file without any known content.
    let mut strange = image.clone();
    strange.put(&format!("{:020}.wal", 99), vec![7; 8192]);
    let (records, gaps) = salvage(&strange);
    assert_eq!((records.len(), gaps.len()), (salvage(&image).0.len(), 1), "{gaps:?}");
}

/// After recovery has cut a tail, replaced records stay away, and kept ones come once.
#[test]
fn salvage_ignores_replaced_epochs() {
    let disk = Disk::new(5);
    let mut expected = Vec::new();
    block_on(async {
        for round in 0..5u8 {
            let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
            let wal = options.open_with(disk.clone()).await.unwrap();
            for i in 0..20u8 {
                let payload = vec![round * 32 + i + 1; 150];
                expected.push((wal.append(&payload).await.unwrap().as_u64(), payload));
                if i == 9 {
                    wal.sync().await.unwrap();
                }
            }
        }
    });
    let image = disk.image().crash(Survival::Everything);
    let (records, gaps) = salvage(&image);
    assert_eq!(records, expected);
    assert_eq!(gaps, []);
    // The replaced segments are put back as files; their records must not return.
    let before = disk.image().crash(Survival::Everything);
    let recovered = Disk::with_image(before.clone(), 6);
    block_on(async { drop(Wal::options().open_with(recovered.clone()).await.unwrap()) });
    let mut both = recovered.image();
    for name in names(&before) {
        if both.bytes(&name).is_some() {
            continue;
        }
        both.put(&name, before.bytes(&name).unwrap().to_vec());
    }
    assert_eq!(salvage(&both).0, expected);
}

#[test]
fn salvage_ignores_truncated_records() {
    let disk = Disk::new(5);
    let first = block_on(async {
        let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
        let wal = options.open_with(disk.clone()).await.unwrap();
        let mut lsns = Vec::new();
        for i in 0..60u8 {
            lsns.push(wal.append_and_sync(vec![i; 150]).await.unwrap());
        }
        wal.truncate_before(lsns[50]).await.unwrap();
        wal.sync().await.unwrap();
        lsns[50].as_u64()
    });
    let (records, gaps) = salvage(&disk.image().crash(Survival::Everything));
    assert_eq!((records[0].0, records.len(), gaps), (first, 10, vec![]));
}

/// A disk with one unreadable sector.
#[derive(Debug)]
struct Bad {
    disk: Disk,
    segment: String,
    sector: Range<u64>,
}

#[derive(Debug)]
struct BadFile {
    file: Box<dyn StorageFile>,
    sector: Range<u64>,
}

impl StorageFile for BadFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset < self.sector.end && self.sector.start < offset + buffer.len() as u64 {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        unreachable!()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        unreachable!()
    }
    fn sync_data(&self) -> io::Result<()> {
        unreachable!()
    }
    fn sync_all(&self) -> io::Result<()> {
        unreachable!()
    }
}

impl Storage for Bad {
    fn location(&self) -> String {
        self.disk.location()
    }
    fn is_nonblocking(&self) -> bool {
        true
    }
    fn lock(&self) -> io::Result<Locking> {
        unreachable!()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, _: &str) -> io::Result<Box<dyn StorageFile>> {
        unreachable!()
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let sector = if name == self.segment { self.sector.clone() } else { 0..0 };
        Ok(Box::new(BadFile { file: self.disk.open(name)?, sector }))
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        unreachable!()
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        unreachable!()
    }
    fn sync_dir(&self) -> io::Result<()> {
        unreachable!()
    }
}

#[test]
fn unreadable_sector_hides_only_its_own_units() {
    let image = log(true);
    let segment = names(&image)[0].clone();
    let sector = 4096 + 1024..4096 + 1536u64;
    let mut zeroed = image.clone();
    let mut bytes = image.bytes(&segment).unwrap().to_vec();
    bytes[sector.start as usize..sector.end as usize].fill(0);
    zeroed.put(&segment, bytes);
    check(&image, &zeroed).unwrap();
    let bad = Bad { disk: Disk::with_image(image, 1), segment, sector };
    assert_eq!(salvage_of(bad), salvage(&zeroed));
}

#[test]
fn salvage_refuses_foreign_and_newer_logs() {
    let mut foreign = Image::new();
    foreign.put("notes.txt", b"hello".to_vec());
    let refused =
        block_on(Reader::options().salvage_with(Disk::with_image(foreign, 1))).unwrap_err();
    assert!(matches!(refused, Error::NotALog { .. }), "{refused}");
    let image = log(true);
    let newer = edited(&image, &names(&image)[1], |bytes| {
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..120]);
        bytes[120..124].copy_from_slice(&crc.to_le_bytes());
    });
    let refused = block_on(Reader::options().salvage_with(Disk::with_image(newer, 1))).unwrap_err();
    assert!(matches!(refused, Error::UnsupportedVersion { version: 2, .. }), "{refused}");
}

/// When its runtime has ended, salvage must report an error, not the end of the log.
#[test]
fn salvage_without_runtime_reports_error() {
    let directory = tempfile::tempdir().unwrap();
    let records = 40;
    block_on(async {
        let wal = Wal::open(directory.path()).await.unwrap();
        for i in 0..records {
            wal.append(vec![i | 1; 64 << 10]).await.unwrap();
        }
        wal.close().await.unwrap();
    });
    let pool = tokio::runtime::Runtime::new().unwrap();
    block_on(async {
        let options = Reader::options().io_handle(pool.handle().clone());
        let mut items = options.salvage(directory.path()).await.unwrap();
        assert!(items.next().await.unwrap().is_ok());
        pool.shutdown_background();
        let mut count = 1;
        let end = loop {
            match items.next().await.expect("an error before the end") {
                Ok(_) => count += 1,
                Err(error) => break error,
            }
        };
        assert!(count < records, "{count}");
        assert!(matches!(&end, SalvageError::Stopped(error) if error.is_closed()), "{end}");
        assert!(end.to_string().contains("not read"), "{end}");
        assert!(items.next().await.is_none());
    });
}

/// Returns the records that opening and replaying yields, up to the first error.
fn opened(image: &Image, on_damage: OnDamage) -> Vec<(u64, Vec<u8>)> {
    block_on(async {
        let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
        let options = options.on_damage(on_damage);
        let Ok(wal) = options.open_with(Disk::with_image(image.clone(), 1)).await else {
            return Vec::new();
        };
        let mut records = Vec::new();
        let mut replay = wal.replay(..);
        while let Some(Ok(record)) = replay.next().await {
            records.push((record.lsn.as_u64(), record.payload.to_vec()));
        }
        records
    })
}

/// A segment with a forged header must not hide records that opening finds.
#[test]
fn salvage_with_forged_header_yields_what_open_does() {
    let put = |bytes: &mut [u8], at: usize, value: u64| {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    };
    let (mut whole_count, mut count) = (0, 0);
    for intact in [log(true), log(false)] {
        let all = frames(&intact).iter().filter(|frame| frame.kind != 4).count();
        let newest = names(&intact).pop().unwrap();
        let model = intact.bytes(&newest).unwrap().to_vec();
        let base = u64::from_le_bytes(model[32..40].try_into().unwrap());
        for (sequence, epoch) in [(99, 1), (99, 50), (0, 50), (99, u64::MAX)] {
            for at in [8, 64, base, base + 64, 1 << 40] {
                for first in [0, at / 16 * 8, at] {
                    let mut bytes = model.clone();
                    // The linked predecessor does not exist.
                    for (place, value) in
                        [(32, at), (40, epoch), (48, 7), (56, 8.min(at)), (64, 6), (72, first)]
                    {
                        put(&mut bytes, place, value);
                    }
                    put(&mut bytes, 80, first);
                    put(&mut bytes, 112, sequence);
                    let crc = crc32c::crc32c(&bytes[..120]);
                    bytes[120..124].copy_from_slice(&crc.to_le_bytes());
                    let mut forged = intact.clone();
                    forged.put(&format!("{sequence:020}.wal"), bytes);
                    let (given, _) = salvage(&forged);
                    for on_damage in [OnDamage::Strict, OnDamage::TruncateAtDamage] {
                        let opened = opened(&forged, on_damage);
                        let lost = opened.iter().find(|record| !given.contains(record));
                        let what = format!("{sequence}, epoch {epoch}, base {at}, first {first}");
                        assert!(lost.is_none(), "{what}: not salvaged: {lost:?}");
                        whole_count += usize::from(opened.len() == all);
                        count += 1;
                    }
                }
            }
        }
    }
    assert!(whole_count > count / 4, "opening found all records in {whole_count} of {count} cases");
}
