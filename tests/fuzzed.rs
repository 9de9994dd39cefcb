//! Findings of the fuzz targets in `fuzz/`, each minimized.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it"
)]

use std::path::Path;

use futures::TryStreamExt;
use highwater::{
    Error, Record, Wal,
    storage::{MemoryStorage, Storage},
};

const HEADER: usize = 4096;
const COPY: usize = 2048;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn open(storage: &MemoryStorage) -> highwater::Result<Wal> {
    Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10).open_with(storage.clone()).await
}

fn file_name(sequence: u64) -> String {
    format!("{sequence:020}.wal")
}

fn edit(storage: &MemoryStorage, sequence: u64, edit: impl FnOnce(&mut [u8])) {
    let file = storage.open(&file_name(sequence)).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    edit(&mut bytes);
    file.write_at(&bytes, 0).unwrap();
}

fn contents(storage: &MemoryStorage) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let file = storage.open(&name).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        (name, bytes)
    };
    storage.list().unwrap().into_iter().map(read).collect()
}

/// A close record has eight bytes of payload. A lower limit must not apply to control records.
#[test]
fn record_limit_does_not_apply_to_control_records() {
    block_on(async {
        let storage = MemoryStorage::new();
        let open = || Wal::options().record_bytes_max(1).open_with(storage.clone());
        for closes in [true, false, true] {
            let wal = open().await.unwrap();
            wal.append_and_sync(b"x").await.unwrap();
            assert!(matches!(wal.append(b"xy").await, Err(Error::RecordTooLarge { .. })));
            if closes {
                wal.close().await.unwrap();
            }
        }
        let wal = open().await.unwrap();
        assert!(wal.recovery().was_closed);
        let records: Vec<_> = wal.replay(..).try_collect().await.unwrap();
        assert_eq!(records.len(), 3);
    });
}

/// The base of a headless segment is derived from its first frame's seal. The search once had a
/// wrong end, so it missed large first frames, and durable bytes were cut as a torn tail.
#[test]
fn headless_segment_with_large_first_frame_is_found() {
    for bytes in [1200, 2000, 3000, 4000] {
        let refused = block_on(async {
            let storage = MemoryStorage::new();
            let wal = open(&storage).await.unwrap();
            wal.append(&vec![1; 3000]).await.unwrap();
            // The record does not fit after the first one, so it goes to the next segment.
            wal.append_and_sync(&vec![2; bytes]).await.unwrap();
            drop(wal);
            edit(&storage, 1, |file| file[HEADER] ^= 1);
            edit(&storage, 2, |file| file[..HEADER].fill(0));
            let before = contents(&storage);
            let refused = open(&storage).await.err();
            assert!(contents(&storage) == before, "{bytes}");
            refused
        });
        assert!(matches!(refused, Some(Error::Corrupt { .. })), "{bytes}: {refused:?}");
    }
}

/// An intact header with values that no release writes: the log begins above its synced part, or
/// not in its only segment. Such a log once opened, but could not be read or reopened.
#[test]
fn log_with_impossible_beginning_is_refused() {
    let word = |file: &mut [u8], at: usize, value: u64| {
        for copy in [0, COPY] {
            let copy = &mut file[copy..copy + 124];
            copy[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let crc = crc32c::crc32c(&copy[..120]);
            copy[120..].copy_from_slice(&crc.to_le_bytes());
        }
    };
    const BASE: usize = 32;
    const FIRST: usize = 72;
    for (field, value) in [(BASE, 2048), (FIRST, 8), (FIRST, 1 << 61)] {
        let storage = MemoryStorage::new();
        block_on(async {
            open(&storage).await.unwrap().append(b"so that it is kept").await.unwrap();
            edit(&storage, 1, |file| word(file, field, value));
            let refused = open(&storage).await.err();
            assert!(matches!(refused, Some(Error::Corrupt { .. })), "{field}: {refused:?}");
        });
    }
}

/// A duplicated segment breaks the chain. Segments above the break were once ignored, and their
/// synced records were cut without being judged.
#[test]
fn segment_between_duplicates_is_judged() {
    let storage = MemoryStorage::new();
    let refused = block_on(async {
        let wal = open(&storage).await.unwrap();
        // Too large for the first segment, so a second one begins at the same position.
        wal.append(&vec![1; 5000]).await.unwrap();
        drop(wal);
        let wal = open(&storage).await.unwrap();
        drop(wal);
        let wal = open(&storage).await.unwrap();
        wal.append_and_sync(b"durable").await.unwrap();
        wal.close().await.unwrap();
        drop(wal);
        let segments = contents(&storage);
        let (_, large) = segments.iter().find(|(_, bytes)| bytes.len() > 8192).unwrap();
        for sequence in [1, 90] {
            let mut large = large.clone();
            for at in [0, COPY] {
                let header = &mut large[at..at + 124];
                header[112..120].copy_from_slice(&u64::to_le_bytes(sequence));
                let crc = crc32c::crc32c(&header[..120]);
                header[120..].copy_from_slice(&crc.to_le_bytes());
            }
            if sequence == 1 {
                storage.remove(&file_name(1)).unwrap();
            }
            storage.create(&file_name(sequence)).unwrap().write_at(&large, 0).unwrap();
        }
        let before = contents(&storage);
        let refused = open(&storage).await.err();
        assert!(contents(&storage) == before);
        refused
    });
    assert!(matches!(refused, Some(Error::Corrupt { .. })), "{refused:?}");
}

/// Seals a frame for `lsn`, as `docs/FORMAT.md` describes. `lag` counts 8 bytes.
fn seal(log_id: &[u8], lsn: u64, kind: u8, lag: u32, payload: &[u8]) -> Vec<u8> {
    let seed = crc32c::crc32c_append(crc32c::crc32c(log_id), &1u64.to_le_bytes());
    let covered = |check: u16| {
        let mut covered = seed.to_le_bytes().to_vec();
        covered.extend(lag.to_le_bytes());
        covered.extend(lsn.to_le_bytes());
        covered.extend((payload.len() as u32).to_le_bytes());
        covered.extend([kind, 0]);
        covered.extend(check.to_le_bytes());
        covered
    };
    let crc = crc32c::crc32c(&covered(0));
    let check = (crc >> 16) as u16 ^ crc as u16;
    let crc = crc32c::crc32c_append(crc32c::crc32c(payload), &covered(check));
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.extend([kind, 0]);
    frame.extend(check.to_le_bytes());
    frame.extend(lag.to_le_bytes());
    frame.extend(crc.to_le_bytes());
    frame.extend(payload);
    frame
}

/// A commitment that ends within a record or a batch was once found too late, after a segment had
/// been prepared. A refusal must change nothing.
#[test]
fn commitment_within_unit_is_refused_unchanged() {
    const RECORD: u8 = 1;
    const PART: u8 = 2;
    const END: u8 = 3;
    // The frames have 24 bytes. The last one commits to a position 16 or 24 bytes below it.
    let in_a_record = [(RECORD, 0), (RECORD, 3), (RECORD, 2)];
    let in_a_batch = [(PART, 0), (END, 3), (RECORD, 3)];
    for frames in [in_a_record, in_a_batch] {
        let storage = MemoryStorage::new();
        drop(block_on(open(&storage)).unwrap());
        edit(&storage, 1, |file| {
            let log_id = file[16..32].to_vec();
            for (i, (kind, lag)) in frames.into_iter().enumerate() {
                let frame = seal(&log_id, i as u64 * 24, kind, lag, b"8 bytes!");
                file[HEADER + i * 24..][..24].copy_from_slice(&frame);
            }
        });
        let before = contents(&storage);
        let refused = block_on(open(&storage)).err();
        assert!(matches!(refused, Some(Error::Corrupt { .. })), "{frames:?}: {refused:?}");
        assert!(contents(&storage) == before, "{frames:?}");
    }
}

/// Decodes a directory written by `fuzz/examples/show.rs`.
fn decoded(mut encoded: &[u8]) -> MemoryStorage {
    fn take<'a>(from: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = from.split_at(count);
        *from = rest;
        taken
    }
    fn number(from: &mut &[u8]) -> usize {
        u32::from_le_bytes(take(from, 4).try_into().unwrap()) as usize
    }
    let storage = MemoryStorage::new();
    while !encoded.is_empty() {
        let name_bytes = number(&mut encoded);
        let name = std::str::from_utf8(take(&mut encoded, name_bytes)).unwrap();
        let length = number(&mut encoded);
        let mut file = Vec::with_capacity(length);
        while file.len() < length {
            let (zeros, used) = (number(&mut encoded), number(&mut encoded));
            file.resize(file.len() + zeros, 0);
            file.extend(take(&mut encoded, used));
        }
        storage.create(name).unwrap().write_at(&file, 0).unwrap();
    }
    storage
}

async fn replayed(wal: &Wal) -> Vec<Record> {
    wal.replay(..).try_collect().await.unwrap()
}

/// Returns the outcome of opening a directory, as in the file names of `tests/fuzzed/`.
async fn outcome(storage: &MemoryStorage) -> String {
    let before = contents(storage);
    let refused = match open(storage).await {
        Ok(wal) => {
            let report = wal.recovery();
            let how = match report {
                _ if report.cut.is_some() => "cut",
                _ if report.was_closed => "closed",
                _ => "open",
            };
            let outcome = format!("{how}-{}", replayed(&wal).await.len());
            assert_works_after_reopening(storage, wal).await;
            return outcome;
        }
        Err(Error::Corrupt { .. }) => "corrupt",
        Err(Error::UnsupportedFrame { .. } | Error::UnsupportedVersion { .. }) => "unsupported",
        Err(error) => panic!("{error}"),
    };
    assert!(contents(storage) == before, "the log was refused but changed");
    refused.to_owned()
}

async fn assert_works_after_reopening(storage: &MemoryStorage, wal: Wal) {
    wal.append_and_sync(b"later").await.unwrap();
    let records = replayed(&wal).await;
    drop(wal);
    let wal = open(storage).await.unwrap();
    assert_eq!(wal.recovery().cut, None);
    assert!(replayed(&wal).await == records);
}

/// Directories from the fuzz targets. The model is the naive reader in `fuzz/`, whose verdict is in
/// each file's name.
#[test]
fn each_fuzzed_directory_has_its_outcome() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzzed");
    let mut count = 0;
    for entry in std::fs::read_dir(kept).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let (expected, _) = name.rsplit_once('-').unwrap();
        let storage = decoded(&std::fs::read(&path).unwrap());
        assert_eq!(block_on(outcome(&storage)), expected, "{name}");
        count += 1;
    }
    assert!(count > 20, "{count}");
}
