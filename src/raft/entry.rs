//! Entries, and what they are gathered in before they are appended.

use bytes::Bytes;

use crate::raft::{
    cache::{Cached, Slot},
    kept::Value,
    record::{ENTRIES_PREFIX_BYTES, EntriesHead, Kind},
    varint,
};

/// A record takes about so many bytes of entries: a read of one entry from disk reads no more.
const RECORD_BYTES: usize = 128 << 10;

/// An entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the group's log.
    pub index: u64,
    /// The term in which it was made; 0 if the user has no use for it.
    pub term: u64,
    /// What it holds. It shares its bytes with its neighbours: copy it to keep it for long.
    pub payload: Bytes,
}

/// Entries to be appended together: contiguous, in the order of their indexes.
///
/// ```
/// use highwater::raft::Entries;
/// let mut entries = Entries::new();
/// entries.push(7, 2, b"set x");
/// entries.push_with(8, 2, |to| to.extend_from_slice(b"set y"));
/// assert_eq!(entries.len(), 2);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "entries do nothing until they are appended"]
pub struct Entries {
    /// Whole records, each with room for its head in front.
    full: Vec<Pending>,
    open: Option<Pending>,
    count: u64,
    first: u64,
    /// The first index that did not follow the one before it.
    broken_at: Option<(u64, u64)>,
    terms: Vec<(u64, u64)>,
    /// What `encode` writes to; kept for the next entry.
    scratch: Vec<u8>,
    /// What is cached in place of their bytes, and what an entry takes on top then.
    pub(super) kept: Option<(Value, u64)>,
}

/// A record that is being filled.
#[derive(Clone, Debug)]
struct Pending {
    bytes: Vec<u8>,
    first: u64,
    count: u64,
    term: u64,
}

/// A record of entries that is ready but for its group.
#[derive(Clone, Debug)]
pub(super) struct Filled {
    pub(super) payload: Bytes,
    pub(super) first: u64,
    count: u64,
    kept: Option<(Value, u64)>,
}

impl Filled {
    /// As the cache is to have it.
    pub(super) fn slot(&self) -> Slot {
        let (cached, entry_bytes) = match &self.kept {
            Some((value, entry_bytes)) => (Cached::Kept(value.clone()), *entry_bytes),
            None => (Cached::Bytes(self.payload.clone()), 0),
        };
        let more_bytes = entry_bytes.saturating_mul(self.count);
        Slot { cached, payload_bytes: self.payload.len() as u64, more_bytes }
    }
}

impl Entries {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry.
    pub fn push(&mut self, index: u64, term: u64, payload: &[u8]) {
        self.note(index, term);
        let is_full = |open: &mut Pending| {
            open.bytes.len() + payload.len() > RECORD_BYTES || open.count >= u64::from(u16::MAX)
        };
        self.full.extend(self.open.take_if(is_full));
        let open = self.open.get_or_insert_with(|| {
            let mut bytes = Vec::with_capacity(ENTRIES_PREFIX_BYTES + payload.len() + 16);
            bytes.resize(ENTRIES_PREFIX_BYTES, 0);
            Pending { bytes, first: index, count: 0, term: 0 }
        });
        let is_new_term = open.count == 0 || open.term != term;
        let length = (payload.len() as u64) << 1;
        varint::put(&mut open.bytes, length | u64::from(is_new_term));
        if is_new_term {
            varint::put(&mut open.bytes, term);
        }
        open.bytes.extend_from_slice(payload);
        open.term = term;
        open.count += 1;
    }

    /// Adds an entry whose payload is what `encode` puts into the empty buffer it is given.
    pub fn push_with(&mut self, index: u64, term: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut payload = std::mem::take(&mut self.scratch);
        payload.clear();
        encode(&mut payload);
        self.push(index, term, &payload);
        self.scratch = payload;
    }

    /// As [`push_with`](Entries::push_with), for codecs that may fail.
    ///
    /// # Errors
    ///
    /// What `encode` answers; the entry is not added then.
    pub fn try_push_with<E>(
        &mut self,
        index: u64,
        term: u64,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut payload = std::mem::take(&mut self.scratch);
        payload.clear();
        encode(&mut payload)?;
        self.push(index, term, &payload);
        self.scratch = payload;
        Ok(())
    }

    fn note(&mut self, index: u64, term: u64) {
        if self.count == 0 {
            self.first = index;
        } else if index != self.next() && self.broken_at.is_none() {
            self.broken_at = Some((index, self.next()));
        }
        self.count += 1;
        if self.terms.last().is_none_or(|(_, last)| *last != term) {
            self.terms.push((index, term));
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The index of the first; 0 if there are none.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// One past the index of the last.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// An index that doesn't follow the one before it, and the one that would have.
    pub(super) fn broken_at(&self) -> Option<(u64, u64)> {
        self.broken_at
    }

    /// Where each term begins.
    pub(super) fn terms(&self) -> &[(u64, u64)] {
        &self.terms
    }

    /// The records, headed for a group.
    pub(super) fn finish(&mut self, group: u64, kind: Kind) -> Vec<Filled> {
        let pending = std::mem::take(&mut self.full).into_iter().chain(self.open.take());
        pending
            .map(|pending| {
                let head = EntriesHead { group, first: pending.first, count: pending.count };
                let (first, count) = (pending.first, pending.count);
                let payload = head.put_before(kind, pending.bytes);
                Filled { payload, first, count, kept: self.kept.clone() }
            })
            .collect()
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut gathered = Entries::new();
        for entry in entries {
            gathered.push(entry.index, entry.term, &entry.payload);
        }
        gathered
    }
}

impl From<Vec<Entry>> for Entries {
    fn from(entries: Vec<Entry>) -> Self {
        entries.into_iter().collect()
    }
}

impl From<Entry> for Entries {
    fn from(entry: Entry) -> Self {
        std::iter::once(entry).collect()
    }
}

impl<const N: usize> From<[Entry; N]> for Entries {
    fn from(entries: [Entry; N]) -> Self {
        entries.into_iter().collect()
    }
}
