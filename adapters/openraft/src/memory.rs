//! Entries as openraft gave them: the newest are read back from memory, and nobody decodes them again.
//!
//! What an append brings is put into the log's own cache in place of the bytes
//! ([`Entries::keep`](highwater::raft::Entries::keep)), and nothing is cached here. So there is nothing
//! to be told of a truncation, a purge, another store over the same group, or an append that failed or
//! was dropped: the cache knows entries by the record that holds them, and each read asks the group,
//! under its lock, which records hold its entries at that moment. No record is ever at the place of
//! another, so an entry that the log doesn't hold isn't found. And there is one bound for all groups
//! of a log, [`RaftOptions::tail_cache_bytes`](highwater::raft::RaftOptions::tail_cache_bytes), with
//! one copy of each entry in it. What isn't there any more is read from the files.

use std::{ops::Range, sync::Arc};

use highwater::raft::{Entries, RaftGroup};

use crate::codec::Copier;

/// Entries that were appended together, each with the bytes that it has in the log.
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

    /// Has the log's cache keep it in place of the bytes, which are in `entries`.
    pub(crate) fn keep(self, entries: &mut Entries) {
        entries.keep(Arc::new(self), size_of::<(E, u32)>() as u64);
    }

    fn part(&self, indexes: &Range<u64>) -> Option<&[(E, u32)]> {
        let place = |index: u64| usize::try_from(index.checked_sub(self.first)?).ok();
        self.entries.get(place(indexes.start)?..place(indexes.end)?)
    }
}

/// Entries that the log held at one moment, without a gap, all of them in memory. They are copied when
/// they are asked for.
#[derive(Debug)]
pub(crate) struct InMemory<E> {
    parts: Vec<(Arc<Batch<E>>, Range<u64>)>,
    indexes: Range<u64>,
    /// Whether there were no others in the range that was asked for.
    pub(crate) is_all: bool,
    copy: Copier<E>,
}

impl<E: Send + Sync + 'static> InMemory<E> {
    /// A range's entries, from the first that isn't purged on, until they have `bytes_max`, but one at
    /// least. `None` if the first of them has to be read from the log.
    pub(crate) fn find(
        group: &RaftGroup,
        indexes: Range<u64>,
        bytes_max: u64,
        copy: Copier<E>,
    ) -> Option<Self> {
        let kept = group.kept(indexes, bytes_max);
        let (first, end) = (kept.indexes.start, kept.indexes.end);
        let (parts, indexes) = (Vec::new(), first..first);
        let mut found = InMemory { parts, indexes, is_all: false, copy };
        let mut bytes = 0u64;
        for part in kept.parts {
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
            // Each was looked at when it was found.
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
