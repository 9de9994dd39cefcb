//! Disasters by name: each row of the decision table, and cases that once failed.

use std::collections::BTreeMap;

use highwater::{
    Error, Lsn,
    simulation::{Disk, Image, SECTOR_BYTES},
};

use super::{
    bytes::{file_name, reseal_header, seal, word},
    invariant::{Damages, Outcome, outcome},
    log::{HEADER, Log, block_on, closed_log, open, payload},
    support::edited,
};

/// The expected result of opening.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// Opens with this many records; `true` if it reports a cut.
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
        Outcome::Opened { error: Some(error), .. } => panic!("opens, but replay fails: {error}"),
        Outcome::Opened { found, report, .. } => Verdict::Opens(found.len(), report.cut.is_some()),
    }
}

/// Builds a log of one segment from `(kind, payload, synced)` frames; kind 0 leaves a gap.
fn crafted(frames: &[(u8, &[u8], u64)]) -> Image {
    let disk = Disk::new(5);
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
fn each_decision_table_row_has_its_verdict() {
    use Verdict::{Corrupt, Opens, Unsupported};
    let (a, b, c) = (&b"eight by"[..], &b"8 bytes!"[..], &b"another."[..]);
    let torn = |frames: &[(u8, &[u8], u64)], at: usize, bytes: &[u8]| {
        edited(&crafted(frames), &file_name(1), |file| {
            file[HEADER + at..HEADER + at + bytes.len()].copy_from_slice(bytes);
        })
    };
    let header = |edit: fn(&mut [u8])| {
        edited(&crafted(&[(RECORD, a, 0)]), &file_name(1), |file| {
            // Edits each copy of the header.
            for copy in file[..HEADER].chunks_mut(SECTOR_BYTES).filter(|copy| copy[0] != 0) {
                edit(copy);
                reseal_header(copy);
            }
        })
    };
    // Each frame has 24 bytes.
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
            "bytes after a close",
            torn(&[(RECORD, a, 0), (CONTROL, CLOSE, 24)], 100, &[7; 8]),
            Opens(1, true),
        ),
        ("a newer version", header(|file| file[8] = 2), Unsupported),
        ("an unknown flag of the header", header(|file| file[10] = 2), Unsupported),
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

/// During a rotation the newest header may be unreadable: above S the segment never began, below S
/// it is corruption.
#[test]
fn unreadable_header_is_judged_by_commitments() {
    let log = closed_log(1);
    let newest = log.segments().pop().unwrap();
    let all = edited(&log.image, &newest, |bytes| bytes[..HEADER].fill(0));
    assert_eq!(
        verdict(&all),
        Verdict::Corrupt,
        "the header is blank, but its frames are committed"
    );
    let base = word(log.image.bytes(&newest).unwrap(), 32);
    let before = log.records.range(..Lsn::new(base)).count();
    // Only the first frame is left; its commitment does not exceed the base.
    let first = log.frames.iter().find(|frame| frame.name == newest).unwrap();
    assert!(first.commitment <= base);
    let mut never = edited(&all, &newest, |bytes| bytes[first.offset + first.bytes..].fill(0));
    assert_eq!(verdict(&never), Verdict::Corrupt, "the note of the close names this segment");
    never.delete("LAST-CLOSE");
    assert_eq!(verdict(&never), Verdict::Opens(before, true));
}

#[test]
fn cut_over_several_segments_keeps_all_bytes() {
    let log = block_on(async {
        let disk = Disk::new(9);
        let mut records = BTreeMap::new();
        let wal = open(&disk).await.unwrap();
        let lsn = wal.append_and_sync(&payload(1)).await.unwrap();
        records.insert(lsn, payload(1));
        // The simulated log syncs at every rotation; no such commitment may count here.
        for i in 2..100 {
            let lsn = wal.append(&payload(i)).await.unwrap();
            records.insert(lsn, payload(i));
        }
        drop(wal);
        Log::new("unsynced", &disk, records)
    });
    let names = log.segments();
    let mut damages = Damages::default();
    // In each segment the last frame is damaged: all after it is cut, or the log is corrupt.
    for name in &names {
        let Some(last) = log.frames.iter().rfind(|frame| frame.name == *name) else {
            continue;
        };
        let at = last.offset + 17;
        let damaged = edited(&log.image, name, |bytes| bytes[at] ^= 1);
        damages.check(&log, || format!("{name}, byte {at}"), &damaged);
    }
    // Two unsynced segments, the first with a hole, as real threads may leave them.
    let two = two_unsynced_segments();
    let hole = two.frames[2].offset + 17;
    let damaged = edited(&two.image, &file_name(1), |bytes| bytes[hole] ^= 1);
    assert_eq!(verdict(&damaged), Verdict::Opens(2, true), "a torn tail");
    damages.check(&two, || "a hole in the first of two".to_owned(), &damaged);
    damages.assert_none_broken(4);
}

/// Returns two segments whose frames commit only to their beginning.
fn two_unsynced_segments() -> Log {
    let disk = Disk::new(5);
    let wal = block_on(open(&disk)).unwrap();
    let mut records = BTreeMap::new();
    block_on(async {
        for i in 0..6 {
            let big = vec![i as u8 | 1; 1000];
            records.insert(wal.append(&big).await.unwrap(), big);
        }
    });
    drop(wal);
    let disk = Disk::with_image(disk.image(), 5);
    let mut log = Log::new("two unsynced segments", &disk, records);
    for name in log.segments() {
        let frames: Vec<_> = log.frames.iter().filter(|f| f.name == name).cloned().collect();
        if frames.is_empty() {
            log.image.delete(&name);
            continue;
        }
        log.image = edited(&log.image, &name, |bytes| {
            let log_id = bytes[16..32].to_vec();
            for copy in bytes[..HEADER].chunks_mut(SECTOR_BYTES).filter(|copy| copy[0] != 0) {
                copy[80..88].fill(0);
                reseal_header(copy);
            }
            for frame in frames {
                let place = frame.offset..frame.offset + frame.bytes;
                let length = bytes[frame.offset] as usize | (bytes[frame.offset + 1] as usize) << 8;
                let payload = bytes[frame.offset + 16..][..length].to_vec();
                // Marks become records, whose commitments are as low as those of the others.
                let sealed = seal(&log_id, 1, frame.lsn, RECORD, &payload, 0);
                bytes[place].copy_from_slice(&sealed);
                log.records.insert(Lsn::new(frame.lsn), payload);
            }
        });
    }
    let disk = Disk::with_image(log.image.clone(), 5);
    Log::new("two unsynced segments", &disk, log.records)
}
