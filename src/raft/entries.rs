//! Gathers the entries of one append and encodes them into records.

use std::{any::Any, convert::Infallible, sync::Arc};

use bytes::Bytes;

use crate::raft::{
    cache::{CachedContent, CachedRecord},
    decoded::DecodedValue,
    entry::Entry,
    records::{
        entries::{ENTRIES_PREFIX_BYTES, EntriesHead},
        kind::RecordKind,
        varint,
    },
};

/// The maximum size of a record of several entries. Limits the bytes that a read of one entry reads
/// from the disk.
const RECORD_BYTES: usize = 128 << 10;

/// Entries to append together. Their indexes must be contiguous and ascending.
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
    /// Complete records. Each begins with [`ENTRIES_PREFIX_BYTES`] for its head.
    full: Vec<RecordBuffer>,
    open: Option<RecordBuffer>,
    count: u64,
    first: u64,
    /// The first index that is not contiguous, and the index expected there.
    broken_at: Option<(u64, u64)>,
    terms: Vec<(u64, u64)>,
    /// The buffer for `encode`, reused for the next entry.
    scratch: Vec<u8>,
    /// The value to cache in place of the bytes, and its extra memory per entry.
    decoded: Option<(DecodedValue, u64)>,
}

/// A record that is being filled.
#[derive(Clone, Debug)]
struct RecordBuffer {
    bytes: Vec<u8>,
    first: u64,
    count: u64,
    term: u64,
}

/// An encoded record of entries, ready to be published.
#[derive(Clone, Debug)]
pub(super) struct EncodedEntries {
    pub(super) payload: Bytes,
    pub(super) first: u64,
    count: u64,
    decoded: Option<(DecodedValue, u64)>,
}

impl EncodedEntries {
    /// Returns the record as the cache stores it.
    pub(super) fn cached(&self) -> CachedRecord {
        let (content, entry_bytes) = match &self.decoded {
            Some((value, entry_bytes)) => (CachedContent::Decoded(value.clone()), *entry_bytes),
            None => (CachedContent::Bytes(self.payload.clone()), 0),
        };
        let extra_bytes = entry_bytes.saturating_mul(self.count);
        CachedRecord { content, payload_bytes: self.payload.len() as u64, extra_bytes }
    }
}

impl Entries {
    /// Returns an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry.
    pub fn push(&mut self, index: u64, term: u64, payload: &[u8]) {
        self.note(index, term);
        let is_full = |open: &mut RecordBuffer| {
            open.bytes.len() + payload.len() > RECORD_BYTES || open.count >= u64::from(u16::MAX)
        };
        self.full.extend(self.open.take_if(is_full));
        let open = self.open.get_or_insert_with(|| {
            let mut bytes = Vec::with_capacity(ENTRIES_PREFIX_BYTES + payload.len() + 16);
            bytes.resize(ENTRIES_PREFIX_BYTES, 0);
            RecordBuffer { bytes, first: index, count: 0, term: 0 }
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

    /// Adds an entry whose payload `encode` writes into an empty buffer.
    pub fn push_with(&mut self, index: u64, term: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        let encode = |to: &mut Vec<u8>| {
            encode(to);
            Ok::<_, Infallible>(())
        };
        let Ok(()) = self.try_push_with(index, term, encode);
    }

    /// Adds an entry as [`push_with`](Entries::push_with), with a codec that may fail.
    ///
    /// # Errors
    ///
    /// The error of `encode`. Then the entry is not added.
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

    /// Caches `value` in place of the bytes of all these entries.
    ///
    /// [`RaftGroup::decoded`](crate::raft::RaftGroup::decoded) returns the value, so that readers
    /// need not decode the entries. Each entry counts as its bytes plus `extra_bytes`. Calls that
    /// read the bytes of these entries read them from the files.
    ///
    /// The value is dropped when the last of its records is evicted from the cache, possibly at
    /// once.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::raft::Result<()> {
    /// use std::sync::Arc;
    /// use highwater::{raft::{Entries, RaftLog}, storage::MemoryStorage};
    ///
    /// let group = RaftLog::options().open_with(MemoryStorage::new()).await?.group(1);
    /// let decoded: Arc<Vec<String>> = Arc::new(vec!["set x".into(), "set y".into()]);
    /// let mut entries = Entries::new();
    /// entries.push(1, 1, decoded[0].as_bytes());
    /// entries.push(2, 1, decoded[1].as_bytes());
    /// entries.cache_decoded(decoded, size_of::<String>() as u64);
    /// drop(group.append(entries).await?);
    ///
    /// // A truncation needs no update of the cache.
    /// drop(group.truncate_after(Some(1)).await?);
    /// let found = group.decoded(0..u64::MAX, u64::MAX);
    /// assert_eq!((found.indexes, &found.parts[0].indexes), (1..2, &(1..2)));
    /// let decoded = found.parts[0].value.downcast_ref::<Vec<String>>();
    /// assert_eq!(decoded.unwrap()[0], "set x");
    /// # Ok(()) }
    /// ```
    pub fn cache_decoded(&mut self, value: Arc<dyn Any + Send + Sync>, extra_bytes: u64) {
        self.decoded = Some((value, extra_bytes));
    }

    /// Counts an entry, checks its index and records where its term begins.
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

    /// Returns the number of entries.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Returns true if there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the index of the first entry; 0 if there are none.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Returns the index after the last entry.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// Returns the first index that is not contiguous, and the index expected there.
    pub(super) fn broken_at(&self) -> Option<(u64, u64)> {
        self.broken_at
    }

    /// Returns the first index of each term.
    pub(super) fn terms(&self) -> &[(u64, u64)] {
        &self.terms
    }

    /// Encodes the records for a group.
    pub(super) fn finish(&mut self, group: u64, kind: RecordKind) -> Vec<EncodedEntries> {
        let pending = std::mem::take(&mut self.full).into_iter().chain(self.open.take());
        pending
            .map(|pending| {
                let head = EntriesHead { group, first: pending.first, count: pending.count };
                let (first, count) = (pending.first, pending.count);
                let payload = head.put_before(kind, pending.bytes);
                EncodedEntries { payload, first, count, decoded: self.decoded.clone() }
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
