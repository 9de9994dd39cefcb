//! The handle of a group, and the calls that change the group.
//!
//! Each change waits for room in the log first. Then the group is locked. Under the lock, the
//! change is checked, gets its LSN and is applied.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    pipeline::embed::{room_for, unit},
    raft::{
        entries::Entries,
        error::{Error, Result},
        publish::{drop_garbage, nothing_changed, publish},
        records::{
            entries::EntriesHead,
            kind::RecordKind,
            record::{GroupChange, Purged},
        },
        state::{GroupState, Rejection},
        store::{LockedGroup, Store},
        ticket::AppendTicket,
        upkeep::schedule::start_upkeep_if_due,
    },
    sabotage::{self, Sabotage},
};

/// A handle of one group of a [`RaftLog`](crate::raft::RaftLog).
///
/// It is cheap to clone, and every handle with the same number is the same group. A handle keeps
/// the log open.
#[derive(Clone)]
pub struct RaftGroup {
    pub(super) store: Arc<Store>,
    pub(super) group: Arc<LockedGroup>,
}

/// The state of a group at one moment.
///
/// The state includes every change that has a position in the log, even if the change is not
/// durable yet. Directly after opening, all of it is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// The index of the first entry, or [`next`](GroupInfo::next) if there is none.
    pub first: u64,
    /// The index after the last entry.
    ///
    /// Without entries, it is the index after the last purged entry; 0 if there is none. Then
    /// entries may be appended at any index from there on.
    pub next: u64,
    /// How far the group is purged, or `None` if it never was.
    pub purged: Option<Purged>,
    /// The index and term of the last entry; without entries, of the last purged one.
    pub last: Option<(u64, u64)>,
    /// The bytes set by [`set_vote`](RaftGroup::set_vote).
    pub vote: Option<Bytes>,
    /// The bytes set by [`set_committed`](RaftGroup::set_committed).
    pub committed: Option<Bytes>,
    /// The bytes set by [`set_user`](RaftGroup::set_user).
    pub user: Option<Bytes>,
}

impl GroupInfo {
    /// Returns true if there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first == self.next
    }
}

impl RaftGroup {
    pub(super) fn new(store: Arc<Store>, group: Arc<LockedGroup>) -> Self {
        RaftGroup { store, group }
    }

    /// Returns the group's number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.group.id
    }

    /// Returns the current state of the group, from memory.
    #[must_use]
    pub fn state(&self) -> GroupInfo {
        let state = self.group.lock();
        let last = match state.next.checked_sub(1) {
            Some(index) if !state.is_empty() => state.term(index).map(|term| (index, term)),
            _ => state.purged.as_ref().map(|purged| (purged.index, purged.term)),
        };
        GroupInfo {
            first: state.first,
            next: state.next,
            purged: state.purged.clone(),
            last,
            vote: state.vote.clone(),
            committed: state.committed.clone(),
            user: state.user.clone(),
        }
    }

    /// Returns the term of an entry, or of the last purged one, from memory.
    #[must_use]
    pub fn term(&self, index: u64) -> Option<u64> {
        self.group.lock().term(index)
    }

    /// Appends entries after the last one.
    ///
    /// The entries can be read when this returns. They are durable when the ticket reports it; do
    /// not acknowledge them before. After a crash the log holds all of them or none.
    ///
    /// An empty group accepts any first index that is not purged. The call waits only for room in
    /// the log's ring, before the entries get their positions. It never waits for the disk.
    ///
    /// # Errors
    ///
    /// Nothing was appended:
    ///
    /// - [`Error::NotContiguous`]; [`Error::Purged`] if the first index is purged;
    /// - [`RecordTooLarge`](crate::Error::RecordTooLarge) and
    ///   [`BatchTooLarge`](crate::Error::BatchTooLarge);
    /// - [`NoSpace`](crate::Error::NoSpace) and [`Io`](crate::Error::Io) if the file of the next
    ///   segment cannot be prepared;
    /// - [`Poisoned`](crate::Error::Poisoned) and [`Closed`](crate::Error::Closed).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: if the future is dropped before it resolves, nothing is appended.
    pub async fn append(&self, entries: impl Into<Entries>) -> Result<AppendTicket> {
        self.append_as(RecordKind::Append, entries.into()).await
    }

    /// Appends entries and drops the old ones from the first new index on.
    ///
    /// Both happen in one step.
    ///
    /// For Raft libraries that overwrite a suffix without truncating it first. The first index may
    /// be any index from the lowest that is not purged to the next one.
    ///
    /// # Errors
    ///
    /// As [`append`](RaftGroup::append).
    ///
    /// # Cancel safety
    ///
    /// As [`append`](RaftGroup::append).
    pub async fn append_overwriting(&self, entries: impl Into<Entries>) -> Result<AppendTicket> {
        self.append_as(RecordKind::Overwrite, entries.into()).await
    }

    async fn append_as(&self, kind: RecordKind, mut entries: Entries) -> Result<AppendTicket> {
        let group = self.group.id;
        if let Some((index, expected)) = entries.broken_at() {
            return Err(Error::NotContiguous { group, index, expected });
        }
        let indexes = entries.first()..entries.next();
        if entries.is_empty() {
            return Ok(nothing_changed(&self.store, &self.group.lock()));
        }
        let records = entries.finish(group, kind);
        let log = self.store.log();
        let unit = unit(log, records.iter().map(|record| (&record.payload).into()).collect())?;
        let room = room_for(log, &unit).await?;
        let mut state = self.group.lock();
        state.check(kind, &indexes).map_err(|rejection| rejection.into_error(group))?;
        let ends = records.iter().skip(1).map(|record| record.first).chain([indexes.end]);
        let changes = records.iter().zip(ends).enumerate().map(|(number, (record, end))| {
            let head = EntriesHead { group, first: record.first, count: end - record.first };
            // Only the first record drops the old entries.
            let kind = if number == 0 { kind } else { RecordKind::Append };
            GroupChange::Entries(kind, head, terms_in(entries.terms(), record.first..end))
        });
        let changes: Vec<_> = changes.collect();
        let (ticket, garbage) = publish(&self.store, &mut state, room, unit, &changes, &records);
        drop(state);
        drop_garbage(&self.store, garbage);
        start_upkeep_if_due(&self.store, false);
        Ok(ticket)
    }

    /// Drops the entries after index `last`, or all entries for `None`.
    ///
    /// Changes nothing if there are none. There is no need to wait for the ticket, because every
    /// later append becomes durable only together with the truncation.
    ///
    /// # Errors
    ///
    /// As [`append`](RaftGroup::append).
    ///
    /// # Cancel safety
    ///
    /// As [`append`](RaftGroup::append).
    pub async fn truncate_after(&self, last: Option<u64>) -> Result<AppendTicket> {
        let next = last.map_or(0, |last| last.saturating_add(1));
        let is_change = move |state: &GroupState| next < state.next && !state.is_empty();
        self.change(move |state| is_change(state).then_some(GroupChange::Truncate { next })).await
    }

    /// Drops the entries up to and including index `upto`, which a snapshot covers.
    ///
    /// The group keeps `upto`, `term` and `id` in their place. If `upto` is after the last entry,
    /// the group is empty and continues after `upto`. If `upto` is already purged, nothing changes.
    ///
    /// The call takes the same short time for any number of entries. The files are removed in the
    /// background, after the purge is durable and no reader or other group needs them.
    ///
    /// # Errors
    ///
    /// As [`append`](RaftGroup::append).
    ///
    /// # Cancel safety
    ///
    /// As [`append`](RaftGroup::append).
    pub async fn purge(&self, upto: u64, term: u64, id: impl Into<Bytes>) -> Result<AppendTicket> {
        let purged = Purged { index: upto.min(u64::MAX - 1), term, id: owned(id) };
        let change = move |state: &GroupState| {
            (purged.index >= state.lowest()).then(|| GroupChange::Purge(purged.clone()))
        };
        self.change(change).await
    }

    /// Sets the vote. Wait for the ticket before you send the vote to another node.
    ///
    /// # Errors
    ///
    /// As [`append`](RaftGroup::append).
    ///
    /// # Cancel safety
    ///
    /// As [`append`](RaftGroup::append).
    pub async fn set_vote(&self, vote: impl Into<Bytes>) -> Result<AppendTicket> {
        let vote = owned(vote);
        let ticket = self.change(move |_| Some(GroupChange::Vote(vote.clone()))).await?;
        let skips = sabotage::is_on(Sabotage::SkipVoteFlush);
        Ok(if skips { ticket.without_sync() } else { ticket })
    }

    /// Records how far the group is committed.
    ///
    /// The value is written and synced together with the next change, not on its own. If it
    /// survives a crash, every earlier change has survived too.
    ///
    /// # Errors
    ///
    /// As [`append`](RaftGroup::append).
    ///
    /// # Cancel safety
    ///
    /// As [`append`](RaftGroup::append).
    pub async fn set_committed(&self, committed: impl Into<Bytes>) -> Result<()> {
        let committed = owned(committed);
        let ticket = self.change(move |_| Some(GroupChange::Committed(committed.clone()))).await?;
        ticket.join_next_write();
        Ok(())
    }

    /// Sets further bytes of the caller, for example members or the metadata of a snapshot.
    ///
    /// # Errors
    ///
    /// As [`append`](RaftGroup::append).
    ///
    /// # Cancel safety
    ///
    /// As [`append`](RaftGroup::append).
    pub async fn set_user(&self, user: impl Into<Bytes>) -> Result<AppendTicket> {
        let user = owned(user);
        self.change(move |_| Some(GroupChange::User(user.clone()))).await
    }

    /// Makes a change of one record, unless `change` returns `None` under the lock.
    ///
    /// `change` is called twice: before the wait for room and after it. The record is made from the
    /// first call, so the change must not depend on the state.
    pub(super) async fn change(
        &self,
        change: impl Fn(&GroupState) -> Option<GroupChange>,
    ) -> Result<AppendTicket> {
        let planned = {
            let state = self.group.lock();
            match change(&state) {
                Some(change) => change,
                None => return Ok(nothing_changed(&self.store, &state)),
            }
        };
        let log = self.store.log();
        let unit = unit(log, vec![planned.encode(self.group.id).into()])?;
        let room = room_for(log, &unit).await?;
        let mut state = self.group.lock();
        if change(&state).is_none() {
            return Ok(nothing_changed(&self.store, &state));
        }
        let frees_space = matches!(planned, GroupChange::Purge(_) | GroupChange::Remove);
        let (ticket, garbage) = publish(&self.store, &mut state, room, unit, &[planned], &[]);
        drop(state);
        drop_garbage(&self.store, garbage);
        start_upkeep_if_due(&self.store, frees_space);
        Ok(ticket)
    }
}

/// Copies the caller's bytes. The copy is dropped under the group's lock, where no code of the
/// caller may run.
fn owned(bytes: impl Into<Bytes>) -> Bytes {
    Bytes::copy_from_slice(&bytes.into())
}

/// Returns the terms within `part`, each with its first index there.
fn terms_in(terms: &[(u64, u64)], part: Range<u64>) -> Vec<(u64, u64)> {
    let before = terms.partition_point(|(first, _)| *first <= part.start).saturating_sub(1);
    let own = terms.iter().skip(before).take_while(|(first, _)| *first < part.end);
    own.map(|(first, term)| ((*first).max(part.start), *term)).collect()
}

impl Rejection {
    fn into_error(self, group: u64) -> Error {
        match self {
            Rejection::NotContiguous { index, expected } => {
                Error::NotContiguous { group, index, expected }
            }
            Rejection::Purged { index, first } => Error::Purged { group, index, first },
        }
    }
}

impl fmt::Debug for RaftGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftGroup").field("id", &self.group.id).finish_non_exhaustive()
    }
}
