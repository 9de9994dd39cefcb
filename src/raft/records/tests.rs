//! Round trips, and hostile input.

use bytes::Bytes;
use proptest::prelude::*;

use crate::raft::{
    checkpoint::Unpacker,
    entries::Entries,
    records::{
        entries::EntriesRecord,
        kind::{RecordKind, VERSION},
        record::{GroupChange, Purged, RaftRecord},
        varint::put,
    },
};

fn filled(entries: &[(u64, Vec<u8>)], first: u64, group: u64) -> Vec<Bytes> {
    let mut gathered = Entries::new();
    for (index, (term, payload)) in (first..).zip(entries) {
        gathered.push(index, *term, payload);
    }
    let records = gathered.finish(group, RecordKind::Append);
    records.into_iter().map(|filled| filled.payload).collect()
}

fn samples() -> Vec<RaftRecord> {
    let bytes = Bytes::from_static(b"some bytes");
    let purged = Purged { index: 1 << 40, term: 7, id: bytes.clone() };
    vec![
        RaftRecord::Init { codec: 300 },
        RaftRecord::Group(5, GroupChange::Truncate { next: u64::MAX }),
        RaftRecord::Group(u64::MAX, GroupChange::Purge(purged)),
        RaftRecord::Group(0, GroupChange::Vote(bytes.clone())),
        RaftRecord::Group(1, GroupChange::Committed(Bytes::new())),
        RaftRecord::Group(1, GroupChange::User(bytes.clone())),
        RaftRecord::Group(128, GroupChange::Remove),
        RaftRecord::CheckpointBegin { codec: 0 },
        RaftRecord::CheckpointPart { begin: 4096, number: 3, fragments: bytes },
        RaftRecord::CheckpointEnd { begin: 4096, count: 4 },
    ]
}

#[test]
fn record_round_trips_and_its_prefixes_are_rejected() {
    for record in samples() {
        let encoded = record.encode();
        let decoded = RaftRecord::decode(encoded.clone()).unwrap();
        assert_eq!(format!("{decoded:?}"), format!("{record:?}"));
        let is_open = matches!(
            record,
            RaftRecord::Group(
                _,
                GroupChange::Vote(_) | GroupChange::Committed(_) | GroupChange::User(_)
            ) | RaftRecord::CheckpointPart { .. }
        );
        for end in 0..encoded.len() {
            // A record that ends with bytes of the caller may be shorter; the checksum detects it.
            assert!(
                is_open || RaftRecord::decode(encoded.slice(..end)).is_err(),
                "{record:?} {end}"
            );
        }
    }
    // Another version, an unknown kind.
    assert!(RaftRecord::decode(Bytes::from_static(&[0x21, 0])).is_err());
    assert!(RaftRecord::decode(Bytes::from_static(&[0x1f, 0])).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn entries_round_trip(
        entries in prop::collection::vec((0u64..4, prop::collection::vec(any::<u8>(), 0..300)), 1..40),
        first in 0u64..u64::MAX / 2,
        group in any::<u64>(),
    ) {
        let mut index = first;
        for payload in filled(&entries, first, group) {
            prop_assert!(RaftRecord::decode(payload.clone()).is_ok());
            let (_, record) = EntriesRecord::parse(payload.clone()).unwrap();
            prop_assert_eq!(record.head.group, group);
            for entry in record.entries() {
                let entry = entry.unwrap();
                let (term, bytes) = &entries[usize::try_from(index - first).unwrap()];
                prop_assert_eq!((entry.index, entry.term, &entry.payload[..]), (index, *term, &bytes[..]));
                index += 1;
            }
            for end in (0..payload.len()).step_by(7) {
                prop_assert!(RaftRecord::decode(payload.slice(..end)).is_err());
            }
        }
        prop_assert_eq!(index, first + entries.len() as u64);
    }

    #[test]
    fn hostile_bytes_do_not_panic(
        kind in 0u8..16,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut record = vec![VERSION << 4 | kind];
        record.extend_from_slice(&bytes);
        let _ = RaftRecord::decode(record.into());
        let mut unpacker = Unpacker::default();
        let _ = unpacker.add(bytes.into());
        let _ = unpacker.finish();
    }
}

/// Lengths and counts beyond the end of the record cause no allocation.
#[test]
fn hostile_lengths_are_rejected() {
    for kind in [RecordKind::Append, RecordKind::Copy, RecordKind::Purge] {
        let mut bytes = vec![kind.byte(), 1, 1];
        put(&mut bytes, u64::MAX / 4);
        put(&mut bytes, u64::MAX / 2);
        assert!(RaftRecord::decode(bytes.into()).is_err(), "{kind:?}");
    }
}
