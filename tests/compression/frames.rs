//! Frames encoded by hand, from `docs/FORMAT.md` instead of the crate.

use highwater::storage::{MemoryStorage, Storage};

use super::{block_on, small};

pub(crate) const HEADER: usize = 4096;
pub(crate) const RECORD: u8 = 1;
pub(crate) const PART: u8 = 2;
pub(crate) const END: u8 = 3;
pub(crate) const CONTROL: u8 = 4;
pub(crate) const LZ4: u8 = 1;
pub(crate) const ZSTD: u8 = 2;

/// Seals a frame for `lsn` in epoch 1, without a commitment.
pub(crate) fn seal(log_id: &[u8], lsn: u64, (kind, flags): (u8, u8), payload: &[u8]) -> Vec<u8> {
    let seed = crc32c::crc32c_append(crc32c::crc32c(log_id), &1u64.to_le_bytes());
    let covered = |check: u16| {
        let mut covered = seed.to_le_bytes().to_vec();
        covered.extend(u32::MAX.to_le_bytes());
        covered.extend(lsn.to_le_bytes());
        covered.extend((payload.len() as u32).to_le_bytes());
        covered.extend([kind, flags]);
        covered.extend(check.to_le_bytes());
        covered
    };
    let crc = crc32c::crc32c(&covered(0));
    let check = (crc >> 16) as u16 ^ crc as u16;
    let crc = crc32c::crc32c_append(crc32c::crc32c(payload), &covered(check));
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.extend([kind, flags]);
    frame.extend(check.to_le_bytes());
    frame.extend(u32::MAX.to_le_bytes());
    frame.extend(crc.to_le_bytes());
    frame.extend(payload);
    frame.resize(frame.len().next_multiple_of(8), 0);
    frame
}

/// Returns a stored payload: the real length, then the codec's output.
pub(crate) fn stored(real_bytes: u32, packed: &[u8]) -> Vec<u8> {
    [&real_bytes.to_le_bytes(), packed].concat()
}

/// Returns 100 bytes `a` in LZ4's block format: a literal, a match of 94 bytes at distance 1, and
/// five literals.
pub(crate) fn lz4_by_hand() -> Vec<u8> {
    stored(100, b"\x1fa\x01\x00\x4b\x50aaaaa")
}

/// Returns the same as a Zstandard frame: one segment of 100 bytes, whose last block repeats one
/// byte.
pub(crate) fn zstd_by_hand() -> Vec<u8> {
    stored(100, b"\x28\xb5\x2f\xfd\x20\x64\x23\x03\x00a")
}

/// Returns a killed log with these frames, and the LSN of each.
pub(crate) fn log_of(frames: &[((u8, u8), Vec<u8>)]) -> (MemoryStorage, Vec<u64>) {
    let storage = MemoryStorage::new();
    drop(block_on(small().open_with(storage.clone())).unwrap());
    let file = storage.open(&format!("{:020}.wal", 1)).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    let log_id = bytes[16..32].to_vec();
    let (mut at, mut lsns) = (HEADER, Vec::new());
    for (kind, payload) in frames {
        let lsn = (at - HEADER) as u64;
        let frame = seal(&log_id, lsn, *kind, payload);
        bytes[at..at + frame.len()].copy_from_slice(&frame);
        at += frame.len();
        lsns.push(lsn);
    }
    assert_eq!(file.write_at(&bytes, 0).unwrap(), bytes.len());
    (storage, lsns)
}

/// Returns all files, byte for byte.
pub(crate) fn contents(storage: &MemoryStorage) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let file = storage.open(&name).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        (name, bytes)
    };
    storage.list().unwrap().into_iter().map(read).collect()
}
