//! Reading on past damage: what is given is exactly what is whole, and the gaps are exactly the rest.
//! What stands where is found out by a walk of this test's own, in the files as they were before.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it"
)]

use std::{io, ops::Range};

use futures::StreamExt;
use highwater::{
    Error, Reader, Wal,
    reader::Gap,
    simulation::{Disk, Image, Survival},
    storage::{Locking, Storage, StorageFile},
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestCaseError},
};

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
    /// The number of its unit.
    unit: usize,
}

/// The frames of an intact log of one epoch.
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

/// Some segments of records, batches and controls.
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

/// All that is given, once the order has been checked.
fn salvage(image: &Image) -> Salvaged {
    let disk = Disk::with_image(image.clone(), 1);
    let salvaged = salvage_of(disk.clone());
    assert_eq!(disk.operation_count(), 0, "it changes nothing");
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
                Err(gap) => {
                    assert!(gap.from.as_u64() >= at && gap.to >= gap.from, "{gap} after {at}");
                    at = gap.to.as_u64();
                    gaps.push(gap);
                }
            }
        }
    });
    (records, gaps)
}

/// Whether what was given, and the gaps, are what is left of `frames` in `damaged`.
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
    // A batch behind a frame whose length can't be trusted can't be told from the end of a longer
    // one, unless something claims that it begins there.
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
            // What is zeros to the end of the log can't be told from its end.
            let is_end = frames.iter().filter(|after| after.lsn >= frame.lsn).all(|after| {
                damaged.bytes(&after.segment).is_none_or(|bytes| {
                    let end = (after.offset + (after.end - after.lsn) as usize).min(bytes.len());
                    bytes[after.offset.min(end)..end].iter().all(|&byte| byte == 0)
                })
            });
            if given.is_some() || !(in_gap || is_end) {
                return Err(format!("damaged: {frame:?}, given {given:?}, in a gap: {in_gap}"));
            }
        } else if unsure.contains(&frame.unit) {
            if given.is_some() == in_gap {
                return Err(format!("neither given nor a gap, or both: {frame:?}"));
            }
        } else if in_gap || given.is_some() != is_record {
            return Err(format!("whole: {frame:?}, given {given:?}, in a gap: {in_gap}: {gaps:?}"));
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

/// A burst of damage in a segment: where it begins in the part that is used, how long it is, and what
/// it does.
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
fn what_is_given_is_exactly_what_is_whole() {
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
fn an_intact_log_has_no_gaps() {
    for image in [log(true), log(false)] {
        check(&image, &image).unwrap();
        assert_eq!(salvage(&image).1, []);
    }
    assert_eq!(salvage(&Image::new()), (vec![], vec![]));
}

fn names(image: &Image) -> Vec<String> {
    image.names().into_iter().filter(|name| name.ends_with(".wal")).collect()
}

fn edited(image: &Image, name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Image {
    let mut bytes = image.bytes(name).unwrap().to_vec();
    edit(&mut bytes);
    let mut image = image.clone();
    image.put(name, bytes);
    image
}

#[test]
fn each_byte_of_a_segment_changed_by_itself() {
    let image = log(true);
    let name = &names(&image)[0];
    let used = frames(&image).iter().rfind(|frame| frame.segment == *name).unwrap().clone();
    for at in (HEADER..used.offset).step_by(if cfg!(debug_assertions) { 5 } else { 1 }) {
        let damaged = edited(&image, name, |bytes| bytes[at] ^= 0x41);
        check(&image, &damaged).unwrap_or_else(|what| panic!("byte {at}: {what}"));
    }
}

#[test]
fn missing_segments_are_gaps() {
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
            continue; // The log ends where the one before ends, for all that can be known.
        }
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!(gaps[0].from.as_u64(), lost[0].lsn);
        assert_eq!(gaps[0].to.as_u64(), lost.last().unwrap().end);
        assert!(gaps[0].segment.is_none() && gaps[0].is_committed, "{gaps:?}");
    }
    // All but the ends.
    let mut damaged = image.clone();
    names[1..names.len() - 1].iter().for_each(|name| damaged.delete(name));
    assert_eq!(salvage(&damaged).1.len(), 1);
}

#[test]
fn segments_without_a_header_are_placed_by_their_neighbours() {
    let image = log(true);
    for name in &names(&image) {
        let damaged = edited(&image, name, |bytes| bytes[..HEADER].fill(0x55));
        let (records, gaps) = salvage(&damaged);
        let all = frames(&image).into_iter().filter(|frame| frame.kind != 4);
        assert_eq!(records, all.map(|frame| (frame.lsn, frame.payload)).collect::<Vec<_>>());
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!((gaps[0].from, gaps[0].segment.as_ref()), (gaps[0].to, Some(name)));
    }
    // With its first frame damaged too, the next one still names its base.
    let name = &names(&image)[1];
    let damaged = edited(&image, name, |bytes| {
        bytes[..HEADER].fill(0x55);
        bytes[HEADER + 20] ^= 1;
    });
    let (_, gaps) = salvage(&damaged);
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    // A file of junk, and one of another log.
    let mut strange = image.clone();
    strange.put(&format!("{:020}.wal", 99), vec![7; 8192]);
    let (records, gaps) = salvage(&strange);
    assert_eq!((records.len(), gaps.len()), (salvage(&image).0.len(), 1), "{gaps:?}");
}

/// A cut by recovery: what it replaced isn't given again, and what it kept is given once.
#[test]
fn dead_epochs_stay_dead() {
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
    // What the cuts replaced comes back as files, and stays dead.
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
fn what_was_truncated_is_not_given_again() {
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

/// A disk with a sector that can't be read.
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
fn a_sector_that_can_not_be_read_hides_what_is_in_it_alone() {
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
fn what_is_no_log_or_of_a_later_release_is_refused() {
    let mut foreign = Image::new();
    foreign.put("notes.txt", b"hello".to_vec());
    let refused =
        block_on(Reader::options().salvage_with(Disk::with_image(foreign, 1))).unwrap_err();
    assert!(matches!(refused, Error::NotALog { .. }), "{refused}");
    let image = log(true);
    let newer = edited(&image, &names(&image)[1], |bytes| {
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..112]);
        bytes[112..116].copy_from_slice(&crc.to_le_bytes());
    });
    let refused = block_on(Reader::options().salvage_with(Disk::with_image(newer, 1))).unwrap_err();
    assert!(matches!(refused, Error::UnsupportedVersion { version: 2, .. }), "{refused}");
}
