//! What a group's log is, and what each change makes of it: the same transitions when it is written
//! and when it is read back. Pure.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    lsn::Lsn,
    raft::{
        index::{Index, Run},
        record::{Change, EntriesHead, Kind, Purged},
    },
};

/// Where a record stands, and how long it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) lsn: Lsn,
    pub(super) bytes: u64,
}

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    NotContiguous { index: u64, expected: u64 },
    Purged { index: u64, first: u64 },
}

/// One group, as its newest record leaves it.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupState {
    /// The live entries: `first..next`. An empty log has `first == next`.
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) purged: Option<Purged>,
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    pub(super) user: Option<Bytes>,
    /// Where each term begins; the first at `first` or before.
    pub(super) terms: VecDeque<(u64, u64)>,
    pub(super) index: Index,
    /// All records below this are in it.
    pub(super) applied: Lsn,
    /// Grows whenever another entry may take the place of one that was there.
    pub(super) generation: u64,
}

impl GroupState {
    pub(super) fn is_empty(&self) -> bool {
        self.first == self.next
    }

    /// Whether nothing is known of the group.
    pub(super) fn is_blank(&self) -> bool {
        let is_unset = self.vote.is_none() && self.committed.is_none() && self.user.is_none();
        is_unset && self.purged.is_none() && self.is_empty()
    }

    /// The lowest index that an entry can have.
    pub(super) fn lowest(&self) -> u64 {
        self.purged.as_ref().map_or(0, |purged| purged.index + 1)
    }

    /// The term of an entry, or of the last one that was purged.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if (self.first..self.next).contains(&index) {
            let after = self.terms.partition_point(|(first, _)| *first <= index);
            return self.terms.get(after.checked_sub(1)?).map(|(_, term)| *term);
        }
        self.purged.as_ref().filter(|purged| purged.index == index).map(|purged| purged.term)
    }

    /// Whether entries may be appended at `indexes`.
    pub(super) fn check(&self, kind: Kind, indexes: &Range<u64>) -> Result<(), Refused> {
        let (index, lowest) = (indexes.start, self.lowest());
        if index < lowest {
            return Err(Refused::Purged { index, first: lowest });
        }
        let fits = match kind {
            Kind::Overwrite => index <= self.next,
            _ => index == self.next,
        };
        if self.is_empty() || fits {
            Ok(())
        } else {
            Err(Refused::NotContiguous { index, expected: self.next })
        }
    }

    /// What a record makes of it. What is dead now and takes time to drop is given back.
    pub(super) fn apply(&mut self, change: &Change, at: At) -> Result<Vec<Arc<Run>>, Refused> {
        let mut dead = Vec::new();
        match change {
            Change::Entries(Kind::Copy, head, terms) => self.relocate(head, terms, at),
            Change::Entries(kind, head, terms) => {
                let indexes = head.first..head.first.saturating_add(head.count);
                self.check(*kind, &indexes)?;
                self.append(indexes, terms, at);
            }
            Change::Truncate { next } => self.truncate(*next),
            Change::Purge(purged) => dead = self.purge(purged),
            Change::Vote(vote) => self.vote = Some(vote.clone()),
            Change::Committed(committed) => self.committed = Some(committed.clone()),
            Change::User(user) => self.user = Some(user.clone()),
            Change::Remove => {
                dead = self.index.purge(u64::MAX);
                let generation = self.generation + 1;
                *self = GroupState { generation, ..GroupState::default() };
            }
        }
        self.applied = at.lsn.plus(1);
        Ok(dead)
    }

    fn append(&mut self, indexes: Range<u64>, terms: &[(u64, u64)], at: At) {
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

    /// Drops entries from `next` on.
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

    fn clear(&mut self, next: u64) {
        (self.first, self.next) = (next, next);
        self.terms.clear();
        self.index = Index::default();
    }

    /// A purge below what is purged changes nothing.
    fn purge(&mut self, purged: &Purged) -> Vec<Arc<Run>> {
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

    /// Live entries were written again, at `at`. Nothing but where they stand changes, and not even
    /// that for entries that aren't the ones that were copied.
    fn relocate(&mut self, head: &EntriesHead, terms: &[(u64, u64)], at: At) {
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
