//! Damage of every kind to small logs: what survives of the log's own commitments must be there,
//! or opening or replaying must refuse. Nothing is lost in silence, nothing panics or hangs.
//!
//! `HIGHWATER_FLIPS=all` flips every bit; by default every bit of headers and one of each other byte.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and what it covered is said"
)]

mod disk;

use std::{collections::BTreeMap, time::Duration};

use disk::{CrashDisk, Image, SECTOR, Survival};
use futures::StreamExt;
use highwater::{Error, Lsn, RecoveryReport, Wal};
use proptest::prelude::*;

const HEADER: usize = 4096;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn open(disk: &CrashDisk) -> highwater::Result<Wal> {
    Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10).open_with(disk.clone()).await
}

fn file_name(sequence: u64) -> String {
    format!("{sequence:020}.wal")
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The seal of a frame, from `docs/FORMAT.md` and not from the crate.
fn seal(log_id: &[u8], epoch: u64, lsn: u64, kind: u8, payload: &[u8], synced: u64) -> Vec<u8> {
    let seed = crc32c::crc32c_append(crc32c::crc32c(log_id), &epoch.to_le_bytes());
    let lag = ((lsn - synced) / 8) as u32;
    let covered = |check: u16| {
        let mut covered = Vec::new();
        covered.extend(seed.to_le_bytes());
        covered.extend(lag.to_le_bytes());
        covered.extend(lsn.to_le_bytes());
        covered.extend((payload.len() as u32).to_le_bytes());
        covered.extend([kind, 0]);
        covered.extend(check.to_le_bytes());
        covered
    };
    let crc = crc32c::crc32c(&covered(0)).to_le_bytes();
    let check = u16::from_le_bytes([crc[0] ^ crc[2], crc[1] ^ crc[3]]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(payload), &covered(check));
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.extend([kind, 0]);
    frame.extend(check.to_le_bytes());
    frame.extend(lag.to_le_bytes());
    frame.extend(crc.to_le_bytes());
    frame.extend(payload);
    frame.resize(frame.len().next_multiple_of(8), 0);
    frame
}

/// Seals the header anew, after a field was changed.
fn reseal_header(file: &mut [u8]) {
    let encoded = u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize;
    let crc = crc32c::crc32c(&file[..encoded - 4]);
    file[encoded - 4..encoded].copy_from_slice(&crc.to_le_bytes());
}

/// A frame of an intact log: where it stands, and what it claims.
#[derive(Clone, Debug)]
struct Frame {
    name: String,
    offset: usize,
    bytes: usize,
    lsn: u64,
    commitment: u64,
}

/// An intact log and all that is known of it.
#[derive(Clone)]
struct Log {
    name: &'static str,
    image: Image,
    records: BTreeMap<Lsn, Vec<u8>>,
    frames: Vec<Frame>,
}

impl Log {
    fn new(name: &'static str, disk: &CrashDisk, records: BTreeMap<Lsn, Vec<u8>>) -> Self {
        let image = disk.image();
        let names: Vec<_> = image.names().into_iter().filter(|n| n.ends_with(".wal")).collect();
        let mut frames = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let bytes = image.bytes(name);
            if word(bytes, 0) == 0 {
                continue;
            }
            let base = word(bytes, 32);
            let next = names.get(i + 1).map(|next| image.bytes(next));
            let end = next.filter(|next| word(next, 0) != 0).map(|next| word(next, 32));
            let mut offset = HEADER;
            while offset + 16 <= bytes.len() && word(bytes, offset) != 0 {
                let lsn = base + (offset - HEADER) as u64;
                if end.is_some_and(|end| lsn >= end) {
                    break;
                }
                let payload = u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap());
                let lag = u32::from_le_bytes(bytes[offset + 8..offset + 12].try_into().unwrap());
                let frame = Frame {
                    name: name.clone(),
                    offset,
                    bytes: 16 + (payload as usize).next_multiple_of(8),
                    lsn,
                    commitment: lsn - u64::from(lag) * 8,
                };
                offset += frame.bytes;
                frames.push(frame);
            }
        }
        assert!(frames.len() >= records.len() && !records.is_empty());
        Log { name, image, records, frames }
    }

    fn segments(&self) -> Vec<String> {
        let names = self.image.names().into_iter();
        names.filter(|name| name.ends_with(".wal")).collect()
    }

    fn is_intact(&self, damaged: &Image, name: &str, offset: usize, bytes: usize) -> bool {
        let part = |image: &Image| {
            let there = image.names().iter().any(|n| n == name);
            there.then(|| image.bytes(name).get(offset..offset + bytes).map(<[u8]>::to_vec))
        };
        part(damaged).flatten().is_some_and(|part_| Some(Some(part_)) == part(&self.image))
    }

    /// The highest position that anything intact in `damaged` claims was synced.
    fn surviving_commitment(&self, damaged: &Image) -> u64 {
        let frames = self
            .frames
            .iter()
            .filter(|frame| self.is_intact(damaged, &frame.name, frame.offset, frame.bytes));
        let headers = self.segments().into_iter().filter(|name| {
            word(self.image.bytes(name), 0) != 0 && self.is_intact(damaged, name, 0, 116)
        });
        let headers = headers.map(|name| word(self.image.bytes(&name), 80));
        frames.map(|frame| frame.commitment).chain(headers).max().unwrap_or(0)
    }
}

fn payload(i: u64) -> Vec<u8> {
    (0..20 + i * 13 % 120).map(|j| (i * 31 + j * 7) as u8 | 1).collect()
}

/// Appends `count` records from number `from` on, some in batches, with a sync now and then.
async fn fill(wal: &Wal, from: u64, count: u64, records: &mut BTreeMap<Lsn, Vec<u8>>) {
    let mut i = from;
    while i < from + count {
        if i % 11 == 3 {
            let batch = [payload(i), payload(i + 1), payload(i + 2)];
            let range = wal.append_batch(&batch).await.unwrap();
            let mut at = range.start;
            for part in batch {
                let bytes = 16 + part.len().next_multiple_of(8) as u64;
                records.insert(at, part);
                at = Lsn::new(at.as_u64() + bytes);
            }
            i += 3;
        } else {
            let lsn = wal.append(&payload(i)).await.unwrap();
            records.insert(lsn, payload(i));
            i += 1;
        }
        if i % 5 == 0 {
            wal.sync().await.unwrap();
        }
    }
    wal.sync().await.unwrap();
}

fn closed_log(seed: u64) -> Log {
    block_on(async {
        let disk = CrashDisk::new(seed);
        let mut records = BTreeMap::new();
        let wal = open(&disk).await.unwrap();
        fill(&wal, 0, 100, &mut records).await;
        wal.close().await.unwrap();
        Log::new("closed", &disk, records)
    })
}

fn unclosed_log() -> Log {
    block_on(async {
        let disk = CrashDisk::new(2);
        let mut records = BTreeMap::new();
        let wal = open(&disk).await.unwrap();
        fill(&wal, 0, 100, &mut records).await;
        drop(wal);
        Log::new("unclosed", &disk, records)
    })
}

/// A log that was recovered `times` times and acknowledged more after that.
fn recovered_log(name: &'static str, times: u64, closes: bool) -> Log {
    block_on(async {
        let mut disk = CrashDisk::new(3);
        let mut records = BTreeMap::new();
        let wal = open(&disk).await.unwrap();
        fill(&wal, 0, 60, &mut records).await;
        drop(wal);
        for _ in 0..times {
            disk = disk.crash(Survival::Nothing, 4);
            drop(open(&disk).await.unwrap());
        }
        disk = disk.crash(Survival::Nothing, 5);
        let wal = open(&disk).await.unwrap();
        assert_eq!(wal.recovery().cut, None);
        fill(&wal, 60, 20, &mut records).await;
        if closes {
            wal.close().await.unwrap();
        }
        drop(wal);
        Log::new(name, &disk, records)
    })
}

fn logs() -> Vec<Log> {
    vec![
        closed_log(1),
        unclosed_log(),
        recovered_log("recovered, unclosed", 0, false),
        recovered_log("recovered, closed", 0, true),
        recovered_log("recovered again and again", 2, false),
    ]
}

enum Outcome {
    Refused(Error),
    Opened {
        found: BTreeMap<Lsn, Vec<u8>>,
        error: Option<Error>,
        report: Box<RecoveryReport>,
        after: Image,
    },
}

fn outcome(damaged: &Image) -> Outcome {
    block_on(async {
        let disk = CrashDisk::with(damaged.clone(), 99);
        let wal = match open(&disk).await {
            Ok(wal) => wal,
            Err(error) => return Outcome::Refused(error),
        };
        let (mut found, mut error) = (BTreeMap::new(), None);
        let mut replay = wal.replay(..);
        while let Some(item) = replay.next().await {
            match item {
                Ok(record) => drop(found.insert(record.lsn, record.payload.to_vec())),
                Err(stop) => error = Some(stop),
            }
        }
        Outcome::Opened {
            found,
            error,
            report: Box::new(wal.recovery().clone()),
            after: disk.image(),
        }
    })
}

fn is_honest(error: &Error) -> bool {
    matches!(
        error,
        Error::Corrupt { .. } | Error::UnsupportedFrame { .. } | Error::UnsupportedVersion { .. }
    )
}

/// The law: all that the surviving commitments cover is there, or there is an error; what was cut
/// above them is reported, and its bytes are still somewhere.
fn check(log: &Log, damaged: &Image) -> Result<(), String> {
    let synced = log.surviving_commitment(damaged);
    let (found, error, report, after) = match outcome(damaged) {
        Outcome::Refused(error) if is_honest(&error) => return Ok(()),
        Outcome::Refused(error) => return Err(format!("refused with {error}")),
        Outcome::Opened { found, error, report, after } => (found, error, report, after),
    };
    for (lsn, payload) in &found {
        if log.records.get(lsn) != Some(payload) {
            return Err(format!("{lsn} was never appended like this; {report}"));
        }
    }
    if let Some(error) = error {
        return if is_honest(&error) { Ok(()) } else { Err(format!("replay: {error}")) };
    }
    let missing: Vec<_> = log.records.keys().filter(|lsn| !found.contains_key(lsn)).collect();
    if let Some(lost) = missing.iter().find(|lsn| lsn.as_u64() < synced) {
        return Err(format!("{lost} is lost in silence, committed up to {synced}; {report}"));
    }
    for frame in log.frames.iter().filter(|frame| frame.lsn >= report.end.as_u64()) {
        if !log.is_intact(damaged, &frame.name, frame.offset, frame.bytes) {
            continue;
        }
        if report.cut.is_none() {
            return Err(format!("the intact frame at {} was cut unsaid; {report}", frame.lsn));
        }
        let bytes = &log.image.bytes(&frame.name)[frame.offset..frame.offset + frame.bytes];
        let kept = after.names().iter().any(|name| {
            after.bytes(name).windows(bytes.len()).step_by(8).any(|window| window == bytes)
        });
        if !kept {
            return Err(format!("the bytes of the frame at {} are gone; {report}", frame.lsn));
        }
    }
    Ok(())
}

/// Runs `check` on many damages and reports a few of those that break the law.
#[derive(Default)]
struct Damages {
    count: u64,
    broken: Vec<String>,
}

impl Damages {
    fn check(&mut self, log: &Log, what: impl Fn() -> String, damaged: &Image) {
        self.count += 1;
        if let Err(why) = check(log, damaged) {
            self.broken.push(format!("{}: {}: {why}", log.name, what()));
        }
    }

    fn assert_none_broken(self) {
        println!("{} damages", self.count);
        let some: Vec<_> = self.broken.iter().take(12).cloned().collect();
        let broken = self.broken.len();
        assert!(broken == 0, "{broken} of {} damages:\n{}", self.count, some.join("\n"));
        assert!(self.count > 0);
    }
}

fn edited(image: &Image, name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Image {
    let mut bytes = image.bytes(name).to_vec();
    edit(&mut bytes);
    let mut image = image.clone();
    image.put(name, bytes);
    image
}

#[test]
fn a_flipped_bit_anywhere_loses_nothing_in_silence() {
    let all = std::env::var("HIGHWATER_FLIPS").is_ok_and(|value| value == "all");
    let mut damages = Damages::default();
    for log in logs() {
        let every = if log.name == "closed" { 1 } else { 3 };
        for name in log.segments() {
            let heads: Vec<_> =
                log.frames.iter().filter(|f| f.name == name).map(|f| f.offset).collect();
            let bytes = log.image.bytes(&name).to_vec();
            for offset in 0..bytes.len() {
                let is_head =
                    offset < 116 || heads.iter().any(|&at| (at..at + 16).contains(&offset));
                let is_used = bytes[offset] != 0;
                for bit in 0..8 {
                    let sampled = bit == offset * 5 % 8
                        && (is_used && offset % every == 0 || offset % 64 == 0);
                    let head_sampled = is_head && (offset < 116 || log.name == "closed");
                    if !(all || head_sampled || sampled) {
                        continue;
                    }
                    let damaged = edited(&log.image, &name, |bytes| bytes[offset] ^= 1 << bit);
                    damages.check(&log, || format!("{name}, byte {offset}, bit {bit}"), &damaged);
                }
            }
        }
    }
    damages.assert_none_broken();
}

#[test]
fn a_zeroed_sector_or_page_anywhere_loses_nothing_in_silence() {
    let mut damages = Damages::default();
    for log in logs() {
        for name in log.segments() {
            let length = log.image.bytes(&name).len();
            for size in [SECTOR, HEADER] {
                for start in (0..length).step_by(size) {
                    let damaged = edited(&log.image, &name, |bytes| {
                        let end = length.min(start + size);
                        bytes[start..end].fill(0);
                    });
                    damages.check(&log, || format!("{name}, {size} bytes at {start}"), &damaged);
                }
            }
        }
    }
    damages.assert_none_broken();
}

#[test]
fn a_segment_cut_short_anywhere_loses_nothing_in_silence() {
    let mut damages = Damages::default();
    for log in logs() {
        for name in log.segments() {
            for length in (0..log.image.bytes(&name).len()).step_by(64) {
                let damaged = edited(&log.image, &name, |bytes| bytes.truncate(length));
                damages.check(&log, || format!("{name}, cut to {length} bytes"), &damaged);
            }
        }
    }
    damages.assert_none_broken();
}

#[test]
fn a_deleted_swapped_duplicated_or_foreign_segment_loses_nothing_in_silence() {
    let mut damages = Damages::default();
    let foreign = closed_log(77);
    for log in logs() {
        let names = log.segments();
        for name in &names {
            let mut deleted = log.image.clone();
            deleted.delete(name);
            damages.check(&log, || format!("{name} deleted"), &deleted);
            let bytes = log.image.bytes(name).to_vec();
            for sequence in [90, 91] {
                let mut twice = log.image.clone();
                twice.put(&file_name(sequence), bytes.clone());
                damages.check(&log, || format!("{name} also as {sequence}"), &twice);
            }
            for other in foreign.segments() {
                let theirs = foreign.image.bytes(&other).to_vec();
                let replaced = edited(&log.image, name, |bytes| *bytes = theirs.clone());
                damages.check(&log, || format!("{name} is {other} of another log"), &replaced);
                let mut added = log.image.clone();
                added.put(&file_name(90), theirs);
                damages.check(&log, || format!("{other} of another log added"), &added);
            }
            for other in names.iter().filter(|other| *other > name) {
                let theirs = log.image.bytes(other).to_vec();
                let swapped = edited(&log.image, name, |bytes| *bytes = theirs.clone());
                let swapped = edited(&swapped, other, |theirs| *theirs = bytes.clone());
                damages.check(&log, || format!("{name} and {other} swapped"), &swapped);
                let copied = edited(&log.image, name, |bytes| *bytes = theirs.clone());
                damages.check(&log, || format!("{name} overwritten with {other}"), &copied);
            }
        }
    }
    damages.assert_none_broken();
}

/// What opening must make of a disaster.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// Opens with this many records; `true` if a cut is reported.
    Opens(usize, bool),
    Corrupt,
    Unsupported,
}

fn verdict(image: &Image) -> Verdict {
    match outcome(image) {
        Outcome::Refused(Error::Corrupt { .. }) => Verdict::Corrupt,
        Outcome::Refused(Error::UnsupportedFrame { .. } | Error::UnsupportedVersion { .. }) => {
            Verdict::Unsupported
        }
        Outcome::Refused(error) => panic!("refused with {error}"),
        Outcome::Opened { error: Some(error), .. } => panic!("opens, and replay says {error}"),
        Outcome::Opened { found, report, .. } => Verdict::Opens(found.len(), report.cut.is_some()),
    }
}

/// A log of one segment with the frames given, `(kind, payload, synced)` each; `0` leaves a gap.
fn crafted(frames: &[(u8, &[u8], u64)]) -> Image {
    let disk = CrashDisk::new(5);
    drop(block_on(open(&disk)).unwrap());
    let name = file_name(1);
    edited(&disk.image(), &name, |bytes| {
        let log_id = bytes[16..32].to_vec();
        let mut at = HEADER;
        for (kind, payload, synced) in frames {
            let frame = seal(&log_id, 1, (at - HEADER) as u64, *kind, payload, *synced);
            if *kind != 0 {
                bytes[at..at + frame.len()].copy_from_slice(&frame);
            }
            at += frame.len();
        }
    })
}

const RECORD: u8 = 1;
const PART: u8 = 2;
const END: u8 = 3;
const CONTROL: u8 = 4;
const MARK: &[u8] = &[1, 0, 0, 0, 0, 0, 0, 1];
const CLOSE: &[u8] = &[2, 0, 0, 0, 0, 0, 0, 2];

#[test]
fn each_row_of_the_decision_table_has_its_verdict() {
    use Verdict::{Corrupt, Opens, Unsupported};
    let (a, b, c) = (&b"eight by"[..], &b"8 bytes!"[..], &b"another."[..]);
    let torn = |frames: &[(u8, &[u8], u64)], at: usize, bytes: &[u8]| {
        edited(&crafted(frames), &file_name(1), |file| {
            file[HEADER + at..HEADER + at + bytes.len()].copy_from_slice(bytes);
        })
    };
    let header = |edit: fn(&mut [u8])| {
        edited(&crafted(&[(RECORD, a, 0)]), &file_name(1), |file| {
            // Each copy of the header, if there is more than one.
            for copy in file[..HEADER].chunks_mut(SECTOR).filter(|copy| copy[0] != 0) {
                edit(copy);
                reseal_header(copy);
            }
        })
    };
    // Frames of 24 bytes each.
    let three = [(RECORD, a, 0), (RECORD, b, 24), (RECORD, c, 24)];
    let table = [
        ("no frames", crafted(&[]), Opens(0, false)),
        ("zeros from the end on", crafted(&three), Opens(3, false)),
        ("closed", crafted(&[(RECORD, a, 0), (CONTROL, CLOSE, 24)]), Opens(1, false)),
        ("a mark at the end", crafted(&[(RECORD, a, 0), (CONTROL, MARK, 24)]), Opens(1, false)),
        ("a torn payload above S, nothing after", torn(&three, 68, b"torn"), Opens(2, true)),
        ("a torn header above S", torn(&three, 48, &[9; 8]), Opens(2, true)),
        (
            "zeros above S, valid frames after",
            crafted(&[(RECORD, a, 0), (0, b, 0), (RECORD, c, 24)]),
            Opens(1, true),
        ),
        ("zeros below S", crafted(&[(RECORD, a, 0), (0, b, 0), (RECORD, c, 48)]), Corrupt),
        (
            "damage below S, known by a mark alone",
            torn(&[(RECORD, a, 0), (CONTROL, MARK, 24)], 20, b"x"),
            Corrupt,
        ),
        (
            "damage below S, known by a later epochless hole",
            crafted(&[(RECORD, a, 0), (0, b, 0), (0, b, 0), (CONTROL, MARK, 72)]),
            Corrupt,
        ),
        (
            "a batch without its end",
            crafted(&[(RECORD, a, 0), (PART, b, 24), (PART, c, 24)]),
            Opens(1, true),
        ),
        (
            "a batch broken off by a record",
            crafted(&[(PART, b, 0), (RECORD, a, 0)]),
            Opens(0, true),
        ),
        ("a batch whose first part is lost", crafted(&[(0, a, 0), (END, b, 0)]), Opens(0, true)),
        ("a whole batch", crafted(&[(PART, a, 0), (END, b, 0)]), Opens(2, false)),
        (
            "a batch without its end, committed",
            crafted(&[(PART, b, 0), (0, c, 0), (CONTROL, MARK, 48)]),
            Corrupt,
        ),
        ("an unknown kind", crafted(&[(RECORD, a, 0), (9, b, 0)]), Unsupported),
        ("an unknown control record", crafted(&[(CONTROL, b"whatever", 0)]), Unsupported),
        (
            "bytes behind a close",
            torn(&[(RECORD, a, 0), (CONTROL, CLOSE, 24)], 100, &[7; 8]),
            Opens(1, true),
        ),
        ("a newer version", header(|file| file[8] = 2), Unsupported),
        ("an unknown flag of the header", header(|file| file[10] = 1), Unsupported),
        ("version 0", header(|file| file[8] = 0), Corrupt),
        ("synced above the base", header(|file| file[80] = 8), Corrupt),
    ];
    let wrong: Vec<_> = table
        .iter()
        .map(|(name, image, expected)| (name, verdict(image), expected))
        .filter(|(_, verdict, expected)| verdict != *expected)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Rotations: a newest header above S never was, one below S is corruption.
#[test]
fn an_unreadable_header_is_judged_by_what_its_segment_commits() {
    let log = closed_log(1);
    let newest = log.segments().pop().unwrap();
    let all = edited(&log.image, &newest, |bytes| bytes[..HEADER].fill(0));
    assert_eq!(verdict(&all), Verdict::Corrupt, "blank, and its frames are committed");
    let base = word(log.image.bytes(&newest), 32);
    let before = log.records.range(..Lsn::new(base)).count();
    // Only the first frame is left: it commits nothing at or above the base.
    let first = log.frames.iter().find(|frame| frame.name == newest).unwrap();
    assert!(first.commitment <= base);
    let never = edited(&all, &newest, |bytes| bytes[first.offset + first.bytes..].fill(0));
    assert_eq!(verdict(&never), Verdict::Opens(before, true));
}

#[test]
fn a_cut_over_several_segments_keeps_all_that_it_cuts() {
    let log = block_on(async {
        let disk = CrashDisk::new(9);
        let mut records = BTreeMap::new();
        let wal = open(&disk).await.unwrap();
        let lsn = wal.append_and_sync(&payload(1)).await.unwrap();
        records.insert(lsn, payload(1));
        // The simulated log syncs at every rotation; none of that shall count here.
        for i in 2..100 {
            let lsn = wal.append(&payload(i)).await.unwrap();
            records.insert(lsn, payload(i));
        }
        drop(wal);
        Log::new("unsynced", &disk, records)
    });
    let names = log.segments();
    let mut damages = Damages::default();
    // In each segment but the last, the last frame is damaged: all behind it is cut, or it is Corrupt.
    for name in &names {
        let Some(last) = log.frames.iter().rfind(|frame| frame.name == *name) else {
            continue;
        };
        let at = last.offset + 17;
        let damaged = edited(&log.image, name, |bytes| bytes[at] ^= 1);
        damages.check(&log, || format!("{name}, byte {at}"), &damaged);
    }
    // Two unsynced segments, the first of which has a hole: what real threads can leave.
    let two = two_unsynced_segments();
    let hole = two.frames[2].offset + 17;
    let damaged = edited(&two.image, &file_name(1), |bytes| bytes[hole] ^= 1);
    assert_eq!(verdict(&damaged), Verdict::Opens(2, true), "a torn tail");
    damages.check(&two, || "a hole in the first of two".to_owned(), &damaged);
    damages.assert_none_broken();
}

/// Two segments whose frames commit nothing but their beginning.
fn two_unsynced_segments() -> Log {
    let disk = CrashDisk::new(5);
    let wal = block_on(open(&disk)).unwrap();
    let mut records = BTreeMap::new();
    block_on(async {
        for i in 0..6 {
            let big = vec![i as u8 | 1; 1000];
            records.insert(wal.append(&big).await.unwrap(), big);
        }
    });
    drop(wal);
    let disk = CrashDisk::with(disk.image(), 5);
    let mut log = Log::new("two unsynced segments", &disk, records);
    for name in log.segments() {
        let frames: Vec<_> = log.frames.iter().filter(|f| f.name == name).cloned().collect();
        if frames.is_empty() {
            log.image.delete(&name);
            continue;
        }
        log.image = edited(&log.image, &name, |bytes| {
            let log_id = bytes[16..32].to_vec();
            for copy in bytes[..HEADER].chunks_mut(SECTOR).filter(|copy| copy[0] != 0) {
                copy[80..88].fill(0);
                reseal_header(copy);
            }
            for frame in frames {
                let place = frame.offset..frame.offset + frame.bytes;
                let length = bytes[frame.offset] as usize | (bytes[frame.offset + 1] as usize) << 8;
                let payload = bytes[frame.offset + 16..][..length].to_vec();
                // Marks become records, which commit as little as the others.
                let sealed = seal(&log_id, 1, frame.lsn, RECORD, &payload, 0);
                bytes[place].copy_from_slice(&sealed);
                log.records.insert(Lsn::new(frame.lsn), payload);
            }
        });
    }
    let disk = CrashDisk::with(log.image.clone(), 5);
    Log::new("two unsynced segments", &disk, log.records)
}

/// Runs `work` on a thread of its own and panics if it takes too long.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || drop(send.send(work())));
    match receive.recv_timeout(limit) {
        Ok(done) => done,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("still running after {limit:?}"),
        Err(_) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it sends before it ends"),
        },
    }
}

fn opens_or_refuses(files: Vec<(u64, Vec<u8>)>) {
    within(Duration::from_secs(20), move || {
        let mut image = CrashDisk::new(1).image();
        for (sequence, bytes) in files {
            image.put(&file_name(sequence), bytes);
        }
        drop(outcome(&image));
    });
}

fn hostile_file() -> impl Strategy<Value = Vec<u8>> {
    let tail = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..5000),
        Just(vec![0; 4096]),
    ];
    let near = prop_oneof![0..5000u64, (0..5000u64).prop_map(|n| u64::MAX - n), any::<u64>()];
    let fields = (near.clone(), near.clone(), near.clone(), near.clone(), near.clone(), near);
    let header = (fields, 0..3u8, any::<bool>()).prop_map(|(fields, id, linked)| {
        let (base, epoch, incarnation, first, synced, file_bytes) = fields;
        let mut bytes = vec![0; HEADER];
        bytes[..8].copy_from_slice(&[0x8b, b'H', b'W', b'A', b'L', 0x0d, 0x0a, 0x1a]);
        bytes[8] = 1;
        bytes[12] = 116;
        bytes[16..32].fill(id);
        let link = if linked { (base / 2, 1) } else { (0, 0) };
        let words = [
            base,
            epoch,
            incarnation.max(1),
            link.0,
            link.1,
            first,
            synced.min(base),
            0,
            u64::MAX,
            file_bytes,
        ];
        for (i, word) in words.into_iter().enumerate() {
            bytes[32 + i * 8..40 + i * 8].copy_from_slice(&word.to_le_bytes());
        }
        reseal_header(&mut bytes);
        bytes
    });
    let header = prop_oneof![
        3 => header,
        1 => prop::collection::vec(any::<u8>(), 0..4200),
        1 => Just(vec![0; HEADER]),
    ];
    (header, tail).prop_map(|(mut bytes, tail)| {
        bytes.extend(tail);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_in_any_files_are_opened_or_refused(
        files in prop::collection::vec((1..5u64, hostile_file()), 0..4)
    ) {
        opens_or_refuses(files);
    }
}

/// A header may be intact and absurd: positions at the end of what 64 bits hold.
#[test]
fn positions_next_to_the_largest_number_neither_hang_nor_overflow() {
    let disk = CrashDisk::new(5);
    drop(block_on(open(&disk)).unwrap());
    let intact = disk.image().bytes(&file_name(1)).to_vec();
    for base in [u64::MAX, u64::MAX - 7, u64::MAX - 4096, 1 << 63] {
        let mut bytes = intact.clone();
        bytes[32..40].copy_from_slice(&base.to_le_bytes());
        bytes[72..80].copy_from_slice(&base.to_le_bytes());
        bytes[80..88].copy_from_slice(&base.to_le_bytes());
        reseal_header(&mut bytes);
        opens_or_refuses(vec![(1, bytes.clone())]);
        // Behind it, one that can't be read: where it would begin is searched for.
        opens_or_refuses(vec![(1, bytes), (2, vec![0xaa; 8192])]);
    }
}
