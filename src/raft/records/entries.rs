//! Encodes and decodes records of entries.

use bytes::Bytes;

use crate::raft::{
    entry::Entry,
    records::{
        kind::RecordKind,
        varint::{Cursor, VARINT_BYTES_MAX, put},
    },
};

/// Bytes reserved before the entries of a record, enough for every head.
pub(crate) const ENTRIES_PREFIX_BYTES: usize = 1 + 3 * VARINT_BYTES_MAX;

/// The header of a record of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntriesHead {
    pub(crate) group: u64,
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl EntriesHead {
    /// Writes the head directly before the entries, which begin at [`ENTRIES_PREFIX_BYTES`].
    pub(crate) fn put_before(self, kind: RecordKind, mut bytes: Vec<u8>) -> Bytes {
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

/// A record of entries.
#[derive(Clone, Debug)]
pub(crate) struct EntriesRecord {
    pub(crate) head: EntriesHead,
    body: Cursor,
}

impl EntriesRecord {
    /// Decodes the kind and the head. The entries are decoded by [`EntriesRecord::entries`].
    pub(crate) fn parse(payload: Bytes) -> Result<(RecordKind, EntriesRecord), &'static str> {
        let mut cursor = Cursor::new(payload);
        let kind = RecordKind::of(cursor.byte().ok_or("the record is empty")?)?;
        if !matches!(kind, RecordKind::Append | RecordKind::Overwrite | RecordKind::Copy) {
            return Err("expected a record of entries");
        }
        Ok((kind, EntriesRecord::after_kind(cursor)?))
    }

    /// Decodes the head, which follows the kind.
    pub(crate) fn after_kind(mut cursor: Cursor) -> Result<EntriesRecord, &'static str> {
        let mut next = || cursor.varint().ok_or("the head of the entries is incomplete");
        let head = EntriesHead { group: next()?, first: next()?, count: next()? };
        if head.count == 0 || head.first.checked_add(head.count).is_none() {
            return Err("impossible indexes");
        }
        Ok(EntriesRecord { head, body: cursor })
    }

    /// Returns the entries, in order. Their payloads share the record's buffer.
    pub(crate) fn entries(&self) -> EntriesIter {
        EntriesIter {
            body: self.body.clone(),
            index: self.head.first,
            left: self.head.count,
            term: 0,
        }
    }

    /// Returns the first index of each term. Fails unless the record holds exactly its entries.
    pub(crate) fn terms(&self) -> Result<Vec<(u64, u64)>, &'static str> {
        let mut terms: Vec<(u64, u64)> = Vec::new();
        let mut entries = self.entries();
        for entry in &mut entries {
            let Entry { index, term, .. } = entry?;
            if terms.last().is_none_or(|(_, last)| *last != term) {
                terms.push((index, term));
            }
        }
        if entries.body.is_at_end() { Ok(terms) } else { Err("bytes follow the last entry") }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct EntriesIter {
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
        Some(entry.ok_or("the entries are incomplete"))
    }
}
