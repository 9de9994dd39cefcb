//! Any bytes can be decoded as frames and headers. Sealed ones are valid, and damaged ones are not.
#![no_main]

use arbitrary::Arbitrary;
use highwater::fuzzing::{Spot, decode_frame, parse_header};
use highwater_fuzz::seal::{self, Fields, RECORD, Seed};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    log_id: [u8; 16],
    epoch: u64,
    lsn: u64,
    kind: u8,
    lag: u32,
    flips: Vec<u16>,
    header: Vec<(u8, u8)>,
    payload: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let spot = Spot {
        log_id: input.log_id,
        epoch: input.epoch,
        lsn: (input.lsn >> 2) & !7,
        record_bytes_max: 1 << 20,
    };
    let _ = decode_frame(&input.payload, &spot);
    header(&input);

    let length = input.payload.len() as u32;
    let kind = input.kind % 3 + RECORD;
    let fields = Fields { length, kind, flags: 0, lag: input.lag };
    let seed = Seed::new(input.log_id, input.epoch);
    let mut frame = seal::frame(seed, spot.lsn, fields, &input.payload);
    let decoded = decode_frame(&frame, &spot).expect("a sealed frame is valid");
    let commitment =
        (input.lag != u32::MAX).then(|| spot.lsn.checked_sub(u64::from(input.lag) * 8));
    assert_eq!((decoded.lsn, decoded.kind), (spot.lsn, kind));
    assert_eq!((decoded.commitment, &decoded.payload), (commitment.flatten(), &input.payload));

    // At most three bits, because CRC-32C detects those at every length used here.
    let covered_bits = (16 + input.payload.len()) * 8;
    let mut flips: Vec<_> = input.flips.iter().map(|&at| usize::from(at) % covered_bits).collect();
    flips.sort_unstable();
    flips.dedup();
    flips.truncate(3);
    for at in &flips {
        frame[at / 8] ^= 1 << (at % 8);
    }
    if !flips.is_empty() {
        assert_eq!(
            decode_frame(&frame, &spot),
            None,
            "the frame is valid with flipped bits {flips:?}"
        );
    }
});

/// Parses a header with changed bytes and a valid checksum.
fn header(input: &Input) {
    let _ = parse_header(&input.payload);
    let mut block = vec![0; seal::HEADER_BYTES];
    block[..8].copy_from_slice(&[0x8b, b'H', b'W', b'A', b'L', 0x0d, 0x0a, 0x1a]);
    block[8] = 1;
    block[12] = 124;
    block[16..32].copy_from_slice(&input.log_id);
    block[40..48].copy_from_slice(&input.epoch.to_le_bytes());
    block[48] = 1;
    for &(at, byte) in &input.header {
        block[usize::from(at) % seal::HEADER_BYTES] = byte;
    }
    seal::reseal_header(&mut block);
    let is_valid = parse_header(&block);
    let mut copied = input.payload.clone();
    copied.resize(seal::HEADER_COPY_OFFSET, 7);
    copied.extend(&block);
    // Unless the payload in front may itself be a header.
    assert!(input.payload.first() == Some(&0x8b) || parse_header(&copied) == is_valid);
}
