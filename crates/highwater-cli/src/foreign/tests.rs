//! No input makes a parser panic or return a record that was not written.

use std::io::Write;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::exit::CORRUPT;

/// Builds a log of wal-db by hand.
fn wal_db(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut log = Vec::new();
    for payload in payloads {
        let covered = [&u32::try_from(payload.len()).unwrap().to_le_bytes()[..], payload].concat();
        log.extend(crc32c::crc32c(&covered).to_le_bytes());
        log.extend(covered);
    }
    log
}

/// Builds a segment of kaya-wal with puts of one key.
fn kaya_wal(values: &[Vec<u8>]) -> Vec<u8> {
    let mut segment = Vec::new();
    for (lsn, value) in (1u64..).zip(values) {
        let length = u32::try_from(value.len()).unwrap();
        let payload =
            [&1u32.to_le_bytes()[..], &length.to_le_bytes(), b"k", value.as_slice()].concat();
        let mut header = kaya_wal::MAGIC.to_vec();
        header.extend([1u16, 40, 0, 1].map(u16::to_le_bytes).concat());
        header.extend([lsn, lsn].map(u64::to_le_bytes).concat());
        header.extend((length + 9).to_le_bytes());
        header.extend([0; 4]);
        header.extend(crc32c::crc32c(&payload).to_le_bytes());
        let crc = crc32c::crc32c(&header);
        header[32..36].copy_from_slice(&crc.to_le_bytes());
        segment.extend(header);
        segment.extend(payload);
    }
    segment
}

struct Scene {
    file: tempfile::NamedTempFile,
}

impl Scene {
    fn new(bytes: &[u8]) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Scene { file }
    }

    fn open(&self, format: Format) -> Box<dyn Source> {
        match format {
            Format::WalDb => Box::new(WalDb::open(self.file.path(), None).unwrap()),
            _ => Box::new(KayaWal::open(self.file.path()).unwrap()),
        }
    }
}

fn read(bytes: &[u8], format: Format) -> Result<(Vec<Vec<u8>>, Option<Torn>), Failure> {
    let scene = Scene::new(bytes);
    let mut source = scene.open(format);
    let mut payloads = Vec::new();
    while let Some(unit) = source.next_unit()? {
        payloads.push(unit.records[0].payload.to_vec());
    }
    Ok((payloads, source.torn().cloned()))
}

fn payloads() -> Vec<Vec<u8>> {
    vec![b"first".to_vec(), vec![], vec![9; 30], b"last".to_vec()]
}

/// Returns the records of a log of each format.
fn expected(format: Format) -> Vec<Vec<u8>> {
    let read = |payload: Vec<u8>| match format {
        Format::KayaWal => [&[1, 1, 0, 0, 0, b'k'][..], &payload].concat(),
        _ => payload,
    };
    payloads().into_iter().map(read).collect()
}

fn logs() -> [(Format, Vec<u8>, usize); 2] {
    let mut logs =
        [(Format::WalDb, wal_db(&payloads()), 0), (Format::KayaWal, kaya_wal(&payloads()), 0)];
    logs[0].2 = logs[0].1.len() - (8 + 4);
    logs[1].2 = logs[1].1.len() - (40 + 9 + 4);
    logs
}

#[test]
fn flipped_bit_is_refused_or_in_the_last_record() {
    for (format, log, last) in logs() {
        let (all, torn) = read(&log, format).unwrap();
        assert_eq!((all, torn), (expected(format), None));
        for bit in 0..log.len() * 8 {
            let mut flipped = log.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match read(&flipped, format) {
                Ok((found, torn)) => {
                    assert!(bit / 8 >= last, "{format:?}, bit {bit}: taken for a torn end");
                    assert_eq!(found, expected(format)[..3]);
                    let torn = torn.unwrap();
                    assert_eq!((torn.offset, torn.bytes), (last as u64, (log.len() - last) as u64));
                }
                Err(failure) => {
                    assert!(failure.to_string().contains("offset"), "{failure}");
                    assert_eq!(failure.status(), CORRUPT);
                }
            }
        }
    }
}

#[test]
fn truncated_log_ends_before_the_cut_record() {
    for (format, log, _) in logs() {
        for length in 0..log.len() {
            let (found, torn) = read(&log[..length], format).unwrap();
            assert_eq!(found, expected(format)[..found.len()]);
            let torn = torn.map_or(length as u64, |torn| torn.offset);
            let whole = read(&log[..usize::try_from(torn).unwrap()], format).unwrap();
            assert_eq!((whole.0.len(), whole.1), (found.len(), None), "{format:?}: {length}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in vec(prop_oneof![Just(0u8), any::<u8>()], 0..200), cut in 0usize..100,
    ) {
        for (format, log, _) in logs() {
            let _ = read(&bytes, format);
            let mixed = [&log[..cut.min(log.len())], &bytes].concat();
            if let Ok((found, _)) = read(&mixed, format) {
                let intact = expected(format);
                let same = found.iter().zip(&intact).take_while(|(one, other)| one == other).count();
                prop_assert!(same == found.len().min(intact.len()) || same * 8 <= cut);
            }
            let _ = detect(Scene::new(&mixed).file.path());
        }
    }
}

#[test]
fn record_out_of_order_is_refused() {
    let segment = kaya_wal(&payloads());
    let doubled = [&segment[..], &segment].concat();
    let failure = read(&doubled, Format::KayaWal).unwrap_err();
    assert!(failure.to_string().contains("record 1 is in the place of record 5"), "{failure}");
}
