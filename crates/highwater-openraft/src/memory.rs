//! Reads the newest entries from memory without decoding them again.
//!
//! An append stores its entries in the log's own cache in place of their bytes
//! ([`Entries::cache_decoded`](highwater::raft::Entries::cache_decoded)). This crate caches
//! nothing. So it has no cache to update at a truncation or a purge. A change through another store
//! of the same group needs no update either, nor does a failed or dropped append. The reasons:
//!
//! - The log's cache finds entries by the LSN of their record.
//! - Each read looks up the current records of the group under its lock.
//! - No two records ever have the same LSN, so an entry that the log does not hold is never found.
//!
//! The size limit [`RaftOptions::tail_cache_bytes`](highwater::raft::RaftOptions::tail_cache_bytes)
//! is for all groups of a log, and the cache holds one copy of each entry. Other entries are read
//! from the files.

use std::{ops::Range, sync::Arc};

use highwater::raft::{Entries, RaftGroup};

use crate::codec::Copier;

/// Entries that were appended together, each with its size in the log.
#[derive(Debug)]
pub(crate) struct Batch<E> {
    first: u64,
    entries: Vec<(E, u32)>,
}

impl<E: Send + Sync + 'static> Batch<E> {
    pub(crate) fn new(first: u64, count: usize) -> Self {
        Batch { first, entries: Vec::with_capacity(count) }
    }

    pub(crate) fn push(&mut self, entry: E, bytes: u64) {
        self.entries.push((entry, u32::try_from(bytes).unwrap_or(u32::MAX)));
    }

    /// Makes the log cache the batch in place of the bytes of `entries`.
    pub(crate) fn cache_in(self, entries: &mut Entries) {
        entries.cache_decoded(Arc::new(self), size_of::<(E, u32)>() as u64);
    }

    fn part(&self, indexes: &Range<u64>) -> Option<&[(E, u32)]> {
        let position = |index: u64| usize::try_from(index.checked_sub(self.first)?).ok();
        self.entries.get(position(indexes.start)?..position(indexes.end)?)
    }
}

/// Entries that the log held at one moment, without a gap, all in memory. Each is copied when it is
/// read.
#[derive(Debug)]
pub(crate) struct InMemory<E> {
    parts: Vec<(Arc<Batch<E>>, Range<u64>)>,
    indexes: Range<u64>,
    /// True if the log held no other entries in the requested range.
    pub(crate) is_all: bool,
    copy: Copier<E>,
}

impl<E: Send + Sync + 'static> InMemory<E> {
    /// Finds the unpurged entries of a range, up to `bytes_max`.
    ///
    /// Finds at least one entry. Returns `None` if the first one has to be read from the log.
    pub(crate) fn find(
        group: &RaftGroup,
        indexes: Range<u64>,
        bytes_max: u64,
        copy: Copier<E>,
    ) -> Option<Self> {
        let cached = group.decoded(indexes, bytes_max);
        let (first, end) = (cached.indexes.start, cached.indexes.end);
        let (parts, indexes) = (Vec::new(), first..first);
        let mut found = InMemory { parts, indexes, is_all: false, copy };
        let mut bytes = 0u64;
        for part in cached.parts {
            let Ok(batch) = part.value.downcast::<Batch<E>>() else { break };
            let mut next = part.indexes.start;
            for (_, entry_bytes) in batch.part(&part.indexes)? {
                bytes = bytes.saturating_add(u64::from(*entry_bytes));
                if bytes > bytes_max && next > first {
                    break;
                }
                next = next.saturating_add(1);
            }
            found.indexes.end = next;
            found.parts.push((batch, part.indexes.start..next));
            if next < part.indexes.end {
                break;
            }
        }
        found.is_all = found.indexes.end == end;
        (found.is_all || !found.parts.is_empty()).then_some(found)
    }

    pub(crate) fn indexes(&self) -> Range<u64> {
        self.indexes.clone()
    }

    pub(crate) fn into_copies(self) -> impl Iterator<Item = E> + Send {
        let copy = self.copy;
        self.parts.into_iter().flat_map(move |(batch, indexes)| {
            // `find` checked that the batch holds every index.
            let first = batch.first;
            indexes.filter_map(move |index| {
                let at = usize::try_from(index.checked_sub(first)?).ok()?;
                batch.entries.get(at).map(|(entry, _)| copy(entry))
            })
        })
    }

    pub(crate) fn to_vec(&self) -> Vec<E> {
        let count = self.indexes.end.saturating_sub(self.indexes.start);
        let mut copies = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
        for (batch, indexes) in &self.parts {
            let part = batch.part(indexes).unwrap_or_default();
            copies.extend(part.iter().map(|(entry, _)| (self.copy)(entry)));
        }
        copies
    }
}
