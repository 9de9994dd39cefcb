//! The state of a group, and how each change alters it. Pure.
//!
//! The same transitions run when a change is made and when it is read back at open.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    lsn::Lsn,
    raft::{
        index::{Index, IndexRun},
        records::{
            entries::EntriesHead,
            kind::RecordKind,
            record::{GroupChange, Purged},
        },
    },
};

/// The position and the length of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordLocation {
    pub(super) lsn: Lsn,
    pub(super) bytes: u64,
}

/// The reason why a change is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    NotContiguous { index: u64, expected: u64 },
    Purged { index: u64, first: u64 },
}

/// The state of one group after its newest record.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupState {
    /// The live entries: `first..next`. An empty log has `first == next`.
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) purged: Option<Purged>,
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    pub(super) user: Option<Bytes>,
    /// The first index and the number of each term. The first term begins at or before `first`.
    pub(super) terms: VecDeque<(u64, u64)>,
    pub(super) index: Index,
    /// The state includes every record of the group below this LSN.
    pub(super) applied: Lsn,
    /// Increases whenever an index may get another entry.
    pub(super) generation: u64,
}

impl GroupState {
    pub(super) fn is_empty(&self) -> bool {
        self.first == self.next
    }

    /// Returns true if the group has no entries and nothing is set.
    pub(super) fn is_blank(&self) -> bool {
        let is_unset = self.vote.is_none() && self.committed.is_none() && self.user.is_none();
        is_unset && self.purged.is_none() && self.is_empty()
    }

    /// Returns the lowest index that an entry can have.
    pub(super) fn lowest(&self) -> u64 {
        self.purged.as_ref().map_or(0, |purged| purged.index + 1)
    }

    /// Returns the term of an entry, or of the last purged one.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if (self.first..self.next).contains(&index) {
            let after = self.terms.partition_point(|(first, _)| *first <= index);
            return self.terms.get(after.checked_sub(1)?).map(|(_, term)| *term);
        }
        self.purged.as_ref().filter(|purged| purged.index == index).map(|purged| purged.term)
    }

    /// Checks that entries may be appended at `indexes`.
    pub(super) fn check(&self, kind: RecordKind, indexes: &Range<u64>) -> Result<(), Rejection> {
        let (index, lowest) = (indexes.start, self.lowest());
        if index < lowest {
            return Err(Rejection::Purged { index, first: lowest });
        }
        let fits = match kind {
            RecordKind::Overwrite => index <= self.next,
            _ => index == self.next,
        };
        if self.is_empty() || fits {
            Ok(())
        } else {
            Err(Rejection::NotContiguous { index, expected: self.next })
        }
    }

    /// Applies the change of a record. Returns index runs that are slow to drop.
    pub(super) fn apply(
        &mut self,
        change: &GroupChange,
        at: RecordLocation,
    ) -> Result<Vec<Arc<IndexRun>>, Rejection> {
        let mut dead = Vec::new();
        match change {
            GroupChange::Entries(RecordKind::Copy, head, terms) => self.relocate(head, terms, at),
            GroupChange::Entries(kind, head, terms) => {
                let indexes = head.first..head.first.saturating_add(head.count);
                self.check(*kind, &indexes)?;
                self.append(indexes, terms, at);
            }
            GroupChange::Truncate { next } => self.truncate(*next),
            GroupChange::Purge(purged) => dead = self.purge(purged),
            GroupChange::Vote(vote) => self.vote = Some(vote.clone()),
            GroupChange::Committed(committed) => self.committed = Some(committed.clone()),
            GroupChange::User(user) => self.user = Some(user.clone()),
            GroupChange::Remove => {
                dead = self.index.purge(u64::MAX);
                let generation = self.generation + 1;
                *self = GroupState { generation, ..GroupState::default() };
            }
        }
        self.applied = at.lsn.plus(1);
        Ok(dead)
    }

    fn append(&mut self, indexes: Range<u64>, terms: &[(u64, u64)], at: RecordLocation) {
        if indexes.start < self.next {
            self.truncate(indexes.start);
        }
        if self.is_empty() {
            self.first = indexes.start;
            self.terms.clear();
            self.index = Index::default();
        }
        for (index, term) in terms {
            if self.terms.back().is_none_or(|(_, last)| last != term) {
                self.terms.push_back((*index, *term));
            }
        }
        self.next = indexes.end;
        self.index.push(indexes, at.lsn, at.bytes);
    }

    /// Drops the entries from `next` on.
    fn truncate(&mut self, next: u64) {
        if next >= self.next {
            return;
        }
        self.generation += 1;
        if next <= self.first {
            self.clear(self.lowest());
            return;
        }
        self.next = next;
        self.index.truncate(next);
        while self.terms.back().is_some_and(|(first, _)| *first >= next) {
            self.terms.pop_back();
        }
    }

    /// Removes all entries; the next one is expected at `next`.
    fn clear(&mut self, next: u64) {
        (self.first, self.next) = (next, next);
        self.terms.clear();
        self.index = Index::default();
    }

    /// Drops the entries up to `purged`. Changes nothing if they are purged already.
    fn purge(&mut self, purged: &Purged) -> Vec<Arc<IndexRun>> {
        if purged.index < self.lowest() {
            return Vec::new();
        }
        let first = purged.index.saturating_add(1);
        self.purged = Some(purged.clone());
        if first >= self.next {
            let dead = self.index.purge(u64::MAX);
            self.clear(first);
            return dead;
        }
        self.first = self.first.max(first);
        while self.terms.get(1).is_some_and(|(next, _)| *next <= self.first) {
            self.terms.pop_front();
        }
        self.index.purge(self.first)
    }

    /// Records that entries were copied to `at`. Ignores the copy if the group no longer holds
    /// exactly these entries.
    fn relocate(&mut self, head: &EntriesHead, terms: &[(u64, u64)], at: RecordLocation) {
        let copied = head.first..head.first.saturating_add(head.count);
        let alive = copied.start.max(self.first)..copied.end.min(self.next);
        let is_same = terms.iter().enumerate().all(|(number, (first, term))| {
            let end = terms.get(number + 1).map_or(copied.end, |(next, _)| *next);
            let range = (*first).max(alive.start)..end.min(alive.end);
            range.is_empty()
                || (self.term(range.start), self.term(range.end - 1)) == (Some(*term), Some(*term))
        });
        if !alive.is_empty() && is_same {
            self.index.relocate(alive, at.lsn, at.bytes);
        }
    }
}
