//! What the records of a Raft log look like. Pure: no I/O, and no panic whatever bytes come in.
//!
//! The first byte is the version (high four bits) and the kind (low four). Integers are varints.
//! What is read is checked whole: a record that is longer, shorter or other than its kind says is none.

use bytes::Bytes;

use crate::raft::{
    entry::Entry,
    varint::{Cursor, VARINT_BYTES_MAX, put, put_bytes},
};

const VERSION: u8 = 1;

/// Room in front of a record's entries for its head, whatever it says.
pub(super) const ENTRIES_PREFIX_BYTES: usize = 1 + 3 * VARINT_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The first record of a log: which codec it is written with.
    Init = 1,
    /// Entries behind the last.
    Append = 2,
    /// Entries that drop all from the first of them on.
    Overwrite = 3,
    /// Live entries written again: they only say where these stand now.
    Copy = 4,
    Truncate = 5,
    Purge = 6,
    Vote = 7,
    Committed = 8,
    User = 9,
    Remove = 10,
    CheckpointBegin = 11,
    CheckpointPart = 12,
    CheckpointEnd = 13,
}

impl Kind {
    fn of(byte: u8) -> Result<Kind, &'static str> {
        const ALL: [Kind; 13] = [
            Kind::Init,
            Kind::Append,
            Kind::Overwrite,
            Kind::Copy,
            Kind::Truncate,
            Kind::Purge,
            Kind::Vote,
            Kind::Committed,
            Kind::User,
            Kind::Remove,
            Kind::CheckpointBegin,
            Kind::CheckpointPart,
            Kind::CheckpointEnd,
        ];
        if byte >> 4 != VERSION {
            return Err("another version, or no record of a Raft log");
        }
        ALL.into_iter().find(|kind| kind.byte() == byte).ok_or("an unknown kind")
    }

    fn byte(self) -> u8 {
        VERSION << 4 | self as u8
    }
}

/// What stands before the entries of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntriesHead {
    pub(super) group: u64,
    pub(super) first: u64,
    pub(super) count: u64,
}

impl EntriesHead {
    /// Puts the head right before the entries, which stand behind [`ENTRIES_PREFIX_BYTES`].
    pub(super) fn put_before(self, kind: Kind, mut bytes: Vec<u8>) -> Bytes {
        let mut head = Vec::with_capacity(ENTRIES_PREFIX_BYTES);
        head.push(kind.byte());
        put(&mut head, self.group);
        put(&mut head, self.first);
        put(&mut head, self.count);
        let start = ENTRIES_PREFIX_BYTES.saturating_sub(head.len());
        if let Some(place) = bytes.get_mut(start..ENTRIES_PREFIX_BYTES) {
            place.copy_from_slice(&head);
        }
        Bytes::from(bytes).slice(start..)
    }
}

/// A record of entries, as it was read or is about to be written.
#[derive(Clone, Debug)]
pub(super) struct EntriesRecord {
    pub(super) head: EntriesHead,
    body: Cursor,
}

impl EntriesRecord {
    /// The entries of a record of that kind, without a look at each of them.
    pub(super) fn parse(payload: Bytes) -> Result<(Kind, EntriesRecord), &'static str> {
        let mut cursor = Cursor::new(payload);
        let kind = Kind::of(cursor.byte().ok_or("an empty record")?)?;
        if !matches!(kind, Kind::Append | Kind::Overwrite | Kind::Copy) {
            return Err("a record of entries was expected");
        }
        Ok((kind, EntriesRecord::body(cursor)?))
    }

    fn body(mut cursor: Cursor) -> Result<EntriesRecord, &'static str> {
        let mut next = || cursor.varint().ok_or("entries without a head");
        let head = EntriesHead { group: next()?, first: next()?, count: next()? };
        if head.count == 0 || head.first.checked_add(head.count).is_none() {
            return Err("indexes that no log has");
        }
        Ok(EntriesRecord { head, body: cursor })
    }

    /// The entries, in order; what they hold is shared and not copied.
    pub(super) fn entries(&self) -> EntriesIter {
        EntriesIter {
            body: self.body.clone(),
            index: self.head.first,
            left: self.head.count,
            term: 0,
        }
    }

    /// Where each term begins, if all entries are there and nothing else is.
    pub(super) fn terms(&self) -> Result<Vec<(u64, u64)>, &'static str> {
        let mut terms: Vec<(u64, u64)> = Vec::new();
        let mut entries = self.entries();
        for entry in &mut entries {
            let Entry { index, term, .. } = entry?;
            if terms.last().is_none_or(|(_, last)| *last != term) {
                terms.push((index, term));
            }
        }
        if entries.body.is_at_end() { Ok(terms) } else { Err("something behind the entries") }
    }
}

#[derive(Clone, Debug)]
pub(super) struct EntriesIter {
    body: Cursor,
    index: u64,
    left: u64,
    term: u64,
}

impl EntriesIter {
    fn read(&mut self) -> Option<Entry> {
        let head = self.body.varint()?;
        if head & 1 == 1 {
            self.term = self.body.varint()?;
        }
        let payload = self.body.take(head >> 1)?;
        Some(Entry { index: self.index, term: self.term, payload })
    }
}

impl Iterator for EntriesIter {
    type Item = Result<Entry, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let entry = self.read();
        if entry.is_none() {
            self.left = 0;
        }
        self.index = self.index.saturating_add(1);
        Some(entry.ok_or("entries that end too soon"))
    }
}

/// How far a group is purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// The last index that is.
    pub index: u64,
    /// Its term; 0 if the user has no use for it.
    pub term: u64,
    /// What the user has put there: the entry's whole id, say.
    pub id: Bytes,
}

impl Purged {
    pub(super) fn put(&self, to: &mut Vec<u8>) {
        put(to, self.index);
        put(to, self.term);
        put_bytes(to, &self.id);
    }

    pub(super) fn read(cursor: &mut Cursor) -> Option<Self> {
        let (index, term) = (cursor.varint()?, cursor.varint()?);
        Some(Purged { index, term, id: cursor.bytes()? })
    }
}

/// What happens to one group.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Entries, and where each of their terms begins.
    Entries(Kind, EntriesHead, Vec<(u64, u64)>),
    /// Nothing from this index on is left.
    Truncate {
        next: u64,
    },
    Purge(Purged),
    Vote(Bytes),
    Committed(Bytes),
    User(Bytes),
    Remove,
}

impl Change {
    /// The record of anything but entries.
    pub(super) fn encode(&self, group: u64) -> Bytes {
        let kind = match self {
            Change::Entries(kind, ..) => *kind,
            Change::Truncate { .. } => Kind::Truncate,
            Change::Purge(_) => Kind::Purge,
            Change::Vote(_) => Kind::Vote,
            Change::Committed(_) => Kind::Committed,
            Change::User(_) => Kind::User,
            Change::Remove => Kind::Remove,
        };
        let mut to = vec![kind.byte()];
        put(&mut to, group);
        match self {
            Change::Truncate { next } => put(&mut to, *next),
            Change::Purge(purged) => purged.put(&mut to),
            Change::Vote(bytes) | Change::Committed(bytes) | Change::User(bytes) => {
                to.extend_from_slice(bytes);
            }
            Change::Entries(..) | Change::Remove => {}
        }
        to.into()
    }
}

/// A record of the log.
#[derive(Clone, Debug)]
pub(super) enum Record {
    Init {
        codec: u64,
    },
    Group(u64, Change),
    CheckpointBegin {
        codec: u64,
    },
    /// Of the checkpoint that begins at that LSN, the so manieth, with fragments of groups.
    CheckpointPart {
        begin: u64,
        number: u64,
        fragments: Bytes,
    },
    /// That checkpoint is whole: it has so many parts.
    CheckpointEnd {
        begin: u64,
        count: u64,
    },
}

impl Record {
    pub(super) fn encode(&self) -> Bytes {
        let mut to = Vec::new();
        match self {
            Record::Init { codec } => {
                to.push(Kind::Init.byte());
                put(&mut to, *codec);
            }
            Record::Group(group, change) => return change.encode(*group),
            Record::CheckpointBegin { codec } => {
                to.push(Kind::CheckpointBegin.byte());
                put(&mut to, *codec);
            }
            Record::CheckpointPart { begin, number, fragments } => {
                to.push(Kind::CheckpointPart.byte());
                put(&mut to, *begin);
                put(&mut to, *number);
                to.extend_from_slice(fragments);
            }
            Record::CheckpointEnd { begin, count } => {
                to.push(Kind::CheckpointEnd.byte());
                put(&mut to, *begin);
                put(&mut to, *count);
            }
        }
        to.into()
    }

    pub(super) fn decode(payload: Bytes) -> Result<Record, &'static str> {
        const SHORT: &str = "a record that ends too soon";
        let length = payload.len() as u64;
        let mut cursor = Cursor::new(payload);
        let kind = Kind::of(cursor.byte().ok_or("an empty record")?)?;
        if matches!(kind, Kind::Append | Kind::Overwrite | Kind::Copy) {
            let entries = EntriesRecord::body(cursor)?;
            // Each takes a byte at least.
            if entries.head.count > length {
                return Err(SHORT);
            }
            let terms = entries.terms()?;
            return Ok(Record::Group(
                entries.head.group,
                Change::Entries(kind, entries.head, terms),
            ));
        }
        let first = cursor.varint().ok_or(SHORT)?;
        let change = match kind {
            Kind::Init | Kind::CheckpointBegin => None,
            Kind::CheckpointPart | Kind::CheckpointEnd => None,
            Kind::Truncate => Some(Change::Truncate { next: cursor.varint().ok_or(SHORT)? }),
            Kind::Purge => {
                let purged = Purged::read(&mut cursor).ok_or(SHORT)?;
                if purged.index == u64::MAX {
                    return Err("indexes that no log has");
                }
                Some(Change::Purge(purged))
            }
            Kind::Vote => Some(Change::Vote(cursor.rest())),
            Kind::Committed => Some(Change::Committed(cursor.rest())),
            Kind::User => Some(Change::User(cursor.rest())),
            Kind::Remove => Some(Change::Remove),
            Kind::Append | Kind::Overwrite | Kind::Copy => None,
        };
        let record = match (kind, change) {
            (_, Some(change)) => Record::Group(first, change),
            (Kind::Init, None) => Record::Init { codec: first },
            (Kind::CheckpointBegin, None) => Record::CheckpointBegin { codec: first },
            (Kind::CheckpointPart, None) => Record::CheckpointPart {
                begin: first,
                number: cursor.varint().ok_or(SHORT)?,
                fragments: cursor.rest(),
            },
            _ => {
                let count = cursor.varint().ok_or(SHORT)?;
                Record::CheckpointEnd { begin: first, count }
            }
        };
        if cursor.is_at_end() { Ok(record) } else { Err("something behind the record") }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::raft::entry::Entries;

    fn filled(entries: &[(u64, Vec<u8>)], first: u64, group: u64) -> Vec<Bytes> {
        let mut gathered = Entries::new();
        for (index, (term, payload)) in (first..).zip(entries) {
            gathered.push(index, *term, payload);
        }
        let records = gathered.finish(group, Kind::Append);
        records.into_iter().map(|filled| filled.payload).collect()
    }

    fn samples() -> Vec<Record> {
        let bytes = Bytes::from_static(b"some bytes");
        let purged = Purged { index: 1 << 40, term: 7, id: bytes.clone() };
        vec![
            Record::Init { codec: 300 },
            Record::Group(5, Change::Truncate { next: u64::MAX }),
            Record::Group(u64::MAX, Change::Purge(purged)),
            Record::Group(0, Change::Vote(bytes.clone())),
            Record::Group(1, Change::Committed(Bytes::new())),
            Record::Group(1, Change::User(bytes.clone())),
            Record::Group(128, Change::Remove),
            Record::CheckpointBegin { codec: 0 },
            Record::CheckpointPart { begin: 4096, number: 3, fragments: bytes },
            Record::CheckpointEnd { begin: 4096, count: 4 },
        ]
    }

    #[test]
    fn records_survive_the_round_trip_and_no_truncation_of_them_is_taken_for_another() {
        for record in samples() {
            let encoded = record.encode();
            let decoded = Record::decode(encoded.clone()).unwrap();
            assert_eq!(format!("{decoded:?}"), format!("{record:?}"));
            let is_open = matches!(
                record,
                Record::Group(_, Change::Vote(_) | Change::Committed(_) | Change::User(_))
                    | Record::CheckpointPart { .. }
            );
            for end in 0..encoded.len() {
                // What ends with bytes of its user's may be shorter; the log's checksums tell.
                assert!(
                    is_open || Record::decode(encoded.slice(..end)).is_err(),
                    "{record:?} {end}"
                );
            }
        }
        // Another version, an unknown kind.
        assert!(Record::decode(Bytes::from_static(&[0x21, 0])).is_err());
        assert!(Record::decode(Bytes::from_static(&[0x1f, 0])).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn entries_survive_the_round_trip(
            entries in prop::collection::vec((0u64..4, prop::collection::vec(any::<u8>(), 0..300)), 1..40),
            first in 0u64..u64::MAX / 2,
            group in any::<u64>(),
        ) {
            let mut index = first;
            for payload in filled(&entries, first, group) {
                prop_assert!(Record::decode(payload.clone()).is_ok());
                let (_, record) = EntriesRecord::parse(payload.clone()).unwrap();
                prop_assert_eq!(record.head.group, group);
                for entry in record.entries() {
                    let entry = entry.unwrap();
                    let (term, bytes) = &entries[usize::try_from(index - first).unwrap()];
                    prop_assert_eq!((entry.index, entry.term, &entry.payload[..]), (index, *term, &bytes[..]));
                    index += 1;
                }
                for end in (0..payload.len()).step_by(7) {
                    prop_assert!(Record::decode(payload.slice(..end)).is_err());
                }
            }
            prop_assert_eq!(index, first + entries.len() as u64);
        }

        #[test]
        fn hostile_bytes_are_refused_without_a_panic(
            kind in 0u8..16,
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut record = vec![VERSION << 4 | kind];
            record.extend_from_slice(&bytes);
            let _ = Record::decode(record.into());
            let mut unpacker = crate::raft::checkpoint::Unpacker::default();
            let _ = unpacker.add(bytes.into());
            let _ = unpacker.finish();
        }
    }

    /// Lengths and counts that aren't there make nobody allocate.
    #[test]
    fn hostile_lengths_are_refused() {
        for kind in [Kind::Append, Kind::Copy, Kind::Purge] {
            let mut bytes = vec![kind.byte(), 1, 1];
            put(&mut bytes, u64::MAX / 4);
            put(&mut bytes, u64::MAX / 2);
            assert!(Record::decode(bytes.into()).is_err(), "{kind:?}");
        }
    }
}
