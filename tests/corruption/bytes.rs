//! Encodes the format by hand, from `docs/FORMAT.md` instead of the crate.

pub(crate) fn file_name(sequence: u64) -> String {
    format!("{sequence:020}.wal")
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Seals a frame as `docs/FORMAT.md` describes.
pub(crate) fn seal(
    log_id: &[u8],
    epoch: u64,
    lsn: u64,
    kind: u8,
    payload: &[u8],
    synced: u64,
) -> Vec<u8> {
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

/// Seals the header again after a change of a field.
pub(crate) fn reseal_header(file: &mut [u8]) {
    let encoded = u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize;
    let crc = crc32c::crc32c(&file[..encoded - 4]);
    file[encoded - 4..encoded].copy_from_slice(&crc.to_le_bytes());
}
