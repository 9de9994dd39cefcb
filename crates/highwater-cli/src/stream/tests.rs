//! A changed stream is refused, and an unchanged one is read back. No stream makes the reader
//! panic.

use proptest::{collection::vec, prelude::*};

use super::*;

/// The payloads of batches. A batch of one payload is a record.
type Batches = Vec<Vec<Vec<u8>>>;

const HEAD: Head = Head { has_positions: true, log_id: [7; 16], from: 8, to: 4096 };

fn written(batches: &Batches, head: &Head) -> (Vec<u8>, Totals) {
    let mut writer = StreamWriter::new(Vec::new(), head).unwrap();
    let mut position = head.from;
    for batch in batches {
        for (at, payload) in batch.iter().enumerate() {
            let kind = match (batch.len(), at + 1 == batch.len()) {
                (1, _) => EntryKind::Record,
                (_, false) => EntryKind::BatchPart,
                (_, true) => EntryKind::BatchEnd,
            };
            writer.record(kind, position, payload).unwrap();
            position += 8;
        }
    }
    writer.finish().unwrap()
}

fn read(stream: &[u8]) -> Result<(Batches, Totals), StreamError> {
    let mut reader = StreamReader::new(stream)?;
    let mut batches = Vec::new();
    while let Some(unit) = reader.next_unit()? {
        batches.push(unit.records.into_iter().map(|record| record.payload.to_vec()).collect());
    }
    assert!(reader.next_unit()?.is_none(), "the end stays the end");
    Ok((batches, *reader.totals()))
}

fn small() -> Batches {
    vec![vec![b"one".to_vec()], vec![vec![], b"two".to_vec(), vec![0; 9]], vec![vec![]]]
}

fn any_batches() -> impl Strategy<Value = Batches> {
    vec(vec(vec(any::<u8>(), 0..40), 1..4), 0..6)
}

proptest! {
    #[test]
    fn written_stream_is_read_back(batches in any_batches(), has_positions: bool) {
        let head = if has_positions { HEAD } else { Head::WITHOUT_POSITIONS };
        let (stream, totals) = written(&batches, &head);
        let (found, counted) = read(&stream).unwrap();
        prop_assert_eq!(found, batches);
        prop_assert_eq!(counted, totals);
    }

    #[test]
    fn random_bytes_are_refused(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&bytes).is_err());
        let behind_a_header = [&written(&vec![], &HEAD).0[..HEADER_BYTES], &bytes].concat();
        prop_assert!(read(&behind_a_header).is_err());
    }

    /// The checksums are right, so that the checks after them run too.
    #[test]
    fn random_entries_are_refused(
        entries in vec((0u8..5, 0u32..20, any::<u64>()), 0..8),
        payload in vec(any::<u8>(), 20),
    ) {
        let mut stream = written(&vec![], &HEAD).0[..HEADER_BYTES].to_vec();
        let mut chain = u32::from_le_bytes(*stream.last_chunk().unwrap());
        for (code, length, position) in entries {
            let payload = &payload[..length as usize];
            let code = if code == 4 { 255 } else { code };
            let mut entry = vec![code, 0, 0, 0];
            entry.extend(length.to_le_bytes());
            entry.extend(position.to_le_bytes());
            entry.extend(crc32c::crc32c(payload).to_le_bytes());
            chain = crc32c::crc32c_append(chain, &entry);
            entry.extend(chain.to_le_bytes());
            stream.extend(entry);
            stream.extend(payload);
        }
        prop_assert!(read(&stream).is_err(), "no trailer can fit by chance");
    }

    #[test]
    fn removed_or_repeated_piece_is_refused(
        batches in any_batches(), cut in any::<prop::sample::Index>(), bytes in 1usize..80,
        twice: bool,
    ) {
        let (stream, _) = written(&batches, &HEAD);
        let from = cut.index(stream.len());
        let to = (from + bytes).min(stream.len());
        let piece = &stream[from..if twice { to } else { from }];
        let again = if twice { from } else { to };
        let changed = [&stream[..from], piece, &stream[again..]].concat();
        prop_assert!(changed == stream || read(&changed).is_err());
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    let (stream, _) = written(&small(), &HEAD);
    assert_eq!(read(&stream).unwrap().0, small());
    for bit in 0..stream.len() * 8 {
        let mut flipped = stream.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&flipped).is_err(), "bit {bit}");
    }
    for length in 0..stream.len() {
        match read(&stream[..length]) {
            Err(StreamError::Truncated { offset }) => assert_eq!(offset, length as u64),
            Err(StreamError::NotAStream) => assert_eq!(length, 0),
            other => panic!("cut to {length}: {other:?}"),
        }
    }
    let longer = [&stream[..], &[0]].concat();
    let end = stream.len() as u64;
    assert!(matches!(read(&longer), Err(StreamError::Damaged { offset, .. }) if offset == end));
}

#[test]
fn swapped_entries_are_refused_at_their_offset() {
    let equal = vec![vec![b"aaaa".to_vec()], vec![b"bbbb".to_vec()]];
    let (stream, _) = written(&equal, &Head::WITHOUT_POSITIONS);
    let (first, second) = (HEADER_BYTES, HEADER_BYTES + ENTRY_BYTES + 4);
    let end = second + ENTRY_BYTES + 4;
    let swapped =
        [&stream[..first], &stream[second..end], &stream[first..second], &stream[end..]].concat();
    assert!(matches!(read(&swapped), Err(StreamError::Damaged { offset: 64, .. })));
}

#[test]
fn equal_contents_give_equal_streams() {
    let (one, here) = written(&small(), &Head::WITHOUT_POSITIONS);
    let (other, there) = written(&small(), &HEAD);
    assert_ne!(one, other);
    assert_eq!(here, there);
    let regrouped = small().concat().into_iter().map(|payload| vec![payload]).collect();
    assert_ne!(written(&regrouped, &HEAD).1.contents_checksum, here.contents_checksum);
}

#[test]
fn newer_version_is_no_damage() {
    let (mut stream, _) = written(&small(), &HEAD);
    stream[8] = 2;
    assert!(matches!(read(&stream), Err(StreamError::Damaged { offset: 0, .. })));
    let crc = crc32c::crc32c(&stream[..60]);
    stream[60..64].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(read(&stream), Err(StreamError::Newer { version: 2, flags: 0 })));
}

#[test]
fn layout_matches_the_document() {
    let (stream, totals) = written(&vec![vec![b"abc".to_vec()]], &HEAD);
    let mut expected = b"HWEXPORT".to_vec();
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([7; 16]);
    expected.extend(8u64.to_le_bytes());
    expected.extend(4096u64.to_le_bytes());
    expected.extend([0; 12]);
    let header = crc32c::crc32c(&expected);
    expected.extend(header.to_le_bytes());
    let mut entry = vec![1, 0, 0, 0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];
    entry.extend(crc32c::crc32c(b"abc").to_le_bytes());
    let chain = crc32c::crc32c_append(header, &entry);
    entry.extend(chain.to_le_bytes());
    expected.extend(entry);
    expected.extend(b"abc");
    let mut trailer = vec![255, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let mut told = vec![1, 3, 0, 0, 0];
    told.extend(crc32c::crc32c(b"abc").to_le_bytes());
    assert_eq!(totals.contents_checksum, crc32c::crc32c(&told));
    trailer.extend(totals.contents_checksum.to_le_bytes());
    let end = crc32c::crc32c_append(chain, &trailer);
    trailer.extend(end.to_le_bytes());
    expected.extend(trailer);
    assert_eq!(stream, expected);
}
