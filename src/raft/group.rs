//! Changing a group: room first, then check, order and make the change under the group's lock.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    pipeline::{Goal, Room, Unit},
    raft::{
        entry::{Entries, Filled},
        log::{Group, RaftLog, Store},
        record::{Change, EntriesHead, Kind, Purged},
        state::{At, GroupState, Refused},
        ticket::AppendTicket,
    },
    sabotage::{self, Sabotage},
};

/// One group of a [`RaftLog`]. A cheap handle; all handles of a group are the
/// same group, and it keeps the log open.
#[derive(Clone)]
pub struct RaftGroup {
    pub(super) store: Arc<Store>,
    pub(super) group: Arc<Group>,
}

/// What a group is, at one moment, with all that was ordered: it may be ahead of what is durable. Right
/// after opening it is what is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// The index of the first entry; [`next`](GroupInfo::next) if there is none.
    pub first: u64,
    /// One past the index of the last entry. Without entries it is one past what is purged, or 0:
    /// then an entry may be appended at any index from there on.
    pub next: u64,
    /// How far it is purged, with the id that was given.
    pub purged: Option<Purged>,
    /// The index and term of the last entry, or, if there is none, of what was purged last.
    pub last: Option<(u64, u64)>,
    /// The vote, as it was set.
    pub vote: Option<Bytes>,
    /// What was set by [`set_committed`](RaftGroup::set_committed).
    pub committed: Option<Bytes>,
    /// What was set by [`set_user`](RaftGroup::set_user).
    pub user: Option<Bytes>,
}

impl GroupInfo {
    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first == self.next
    }
}

impl RaftGroup {
    pub(super) fn new(store: Arc<Store>, group: Arc<Group>) -> Self {
        RaftGroup { store, group }
    }

    /// The group's number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.group.id
    }

    /// The log that it is in.
    #[must_use]
    pub fn log(&self) -> RaftLog {
        RaftLog { store: Arc::clone(&self.store) }
    }

    /// What the group is now, from memory.
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

    /// The term of the entry at `index`, or of the one that was purged last; from memory.
    #[must_use]
    pub fn term(&self, index: u64) -> Option<u64> {
        self.group.lock().term(index)
    }

    /// Appends entries behind the last one. They can be read when this returns, and are durable when
    /// the ticket says so; until then nobody may be told of them. After a crash all of them are
    /// there, or none.
    ///
    /// An empty group takes any first index above what is purged. What is waited for is room in the
    /// log's ring, before anything is ordered; never a disk.
    ///
    /// # Errors
    ///
    /// [`Error::NotContiguous`], [`Error::Purged`] if the first index is purged,
    /// [`Error::RecordTooLarge`] and [`Error::BatchTooLarge`], [`Error::NoSpace`]: nothing was
    /// appended. [`Error::Poisoned`], [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: until it resolves, nothing is appended.
    pub async fn append(&self, entries: impl Into<Entries>) -> Result<AppendTicket> {
        self.append_as(Kind::Append, entries.into()).await
    }

    /// As [`append`](RaftGroup::append), and drops what stands at the first of the new indexes and
    /// behind, all in one step: for engines that overwrite a suffix without truncating it before. The
    /// first index may be any from the one below what is purged to the next.
    ///
    /// # Errors
    ///
    /// As [`append`](RaftGroup::append).
    ///
    /// # Cancel safety
    ///
    /// As [`append`](RaftGroup::append).
    pub async fn append_overwriting(&self, entries: impl Into<Entries>) -> Result<AppendTicket> {
        self.append_as(Kind::Overwrite, entries.into()).await
    }

    async fn append_as(&self, kind: Kind, mut entries: Entries) -> Result<AppendTicket> {
        let group = self.group.id;
        if let Some((index, expected)) = entries.broken_at() {
            return Err(Error::NotContiguous { group, index, expected });
        }
        let indexes = entries.first()..entries.next();
        if entries.is_empty() {
            return Ok(self.store.nothing_changed(&self.group.lock()));
        }
        let records = entries.finish(group, kind);
        let core = self.store.wal.core();
        let unit = core.unit(records.iter().map(|record| (&record.payload).into()).collect())?;
        let room = core.room_for(&unit).await?;
        let mut state = self.group.lock();
        state.check(kind, &indexes).map_err(|refused| refused.of(group))?;
        let ends = records.iter().skip(1).map(|record| record.first).chain([indexes.end]);
        let changes = records.iter().zip(ends).enumerate().map(|(number, (record, end))| {
            let head = EntriesHead { group, first: record.first, count: end - record.first };
            // Only the first of them drops what stands there.
            let kind = if number == 0 { kind } else { Kind::Append };
            Change::Entries(kind, head, terms_in(entries.terms(), record.first..end))
        });
        let changes: Vec<_> = changes.collect();
        let (ticket, dead) = self.store.publish(&mut state, room, unit, &changes, &records);
        drop(state);
        self.store.drop_elsewhere(dead);
        self.store.look_for_work(false);
        Ok(ticket)
    }

    /// Drops the entries behind `last`, or all, by a record that overrides them. Beyond the end it
    /// changes nothing. It needs no wait for the disk: what is appended next is durable only with
    /// it.
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
        let change =
            move |state: &GroupState| Ok(is_change(state).then_some(Change::Truncate { next }));
        self.change(change).await
    }

    /// Drops the entries up to `upto`, that one included, which a snapshot covers: `term` and `id` are
    /// kept in their place. It may lie beyond the end; then the log is empty, and goes on behind it.
    /// Below what is purged already it changes nothing.
    ///
    /// It takes no time, however many entries go: the files do in the background, when the record is
    /// durable and nobody needs them.
    ///
    /// # Errors
    ///
    /// As [`append`](RaftGroup::append).
    ///
    /// # Cancel safety
    ///
    /// As [`append`](RaftGroup::append).
    pub async fn purge(&self, upto: u64, term: u64, id: impl Into<Bytes>) -> Result<AppendTicket> {
        let purged = Purged { index: upto.min(u64::MAX - 1), term, id: id.into() };
        let change = move |state: &GroupState| {
            Ok((purged.index >= state.lowest()).then(|| Change::Purge(purged.clone())))
        };
        self.change(change).await
    }

    /// Sets the vote. Wait for the ticket before anybody is told of it.
    ///
    /// # Errors
    ///
    /// As [`append`](RaftGroup::append).
    ///
    /// # Cancel safety
    ///
    /// As [`append`](RaftGroup::append).
    pub async fn set_vote(&self, vote: impl Into<Bytes>) -> Result<AppendTicket> {
        let vote = vote.into();
        let ticket = self.change(move |_| Ok(Some(Change::Vote(vote.clone())))).await?;
        let skips = sabotage::is_on(Sabotage::SkipVoteFlush);
        Ok(if skips { ticket.already() } else { ticket })
    }

    /// Notes how far the group is committed. It rides along with the next write and sync: if it
    /// survives a crash, all that was appended before it has too.
    ///
    /// # Errors
    ///
    /// As [`append`](RaftGroup::append).
    ///
    /// # Cancel safety
    ///
    /// As [`append`](RaftGroup::append).
    pub async fn set_committed(&self, committed: impl Into<Bytes>) -> Result<()> {
        let committed = committed.into();
        let ticket = self.change(move |_| Ok(Some(Change::Committed(committed.clone())))).await?;
        ticket.rides_along();
        Ok(())
    }

    /// Sets what else belongs to the group: a hard state, the members, a snapshot's metadata.
    ///
    /// # Errors
    ///
    /// As [`append`](RaftGroup::append).
    ///
    /// # Cancel safety
    ///
    /// As [`append`](RaftGroup::append).
    pub async fn set_user(&self, user: impl Into<Bytes>) -> Result<AppendTicket> {
        let user = user.into();
        self.change(move |_| Ok(Some(Change::User(user.clone())))).await
    }

    /// Makes a change of one record that doesn't depend on what the group is, unless, under the lock,
    /// there turns out to be nothing to change.
    pub(super) async fn change(
        &self,
        change: impl Fn(&GroupState) -> Result<Option<Change>>,
    ) -> Result<AppendTicket> {
        let planned = {
            let state = self.group.lock();
            match change(&state)? {
                Some(change) => change,
                None => return Ok(self.store.nothing_changed(&state)),
            }
        };
        let core = self.store.wal.core();
        let unit = core.unit(vec![planned.encode(self.group.id).into()])?;
        let room = core.room_for(&unit).await?;
        let mut state = self.group.lock();
        if change(&state)?.is_none() {
            return Ok(self.store.nothing_changed(&state));
        }
        let gives_space = matches!(planned, Change::Purge(_) | Change::Remove);
        let (ticket, dead) = self.store.publish(&mut state, room, unit, &[planned], &[]);
        drop(state);
        self.store.drop_elsewhere(dead);
        self.store.look_for_work(gives_space);
        Ok(ticket)
    }
}

/// The terms of a part of the entries, each from its first index in that part on.
fn terms_in(terms: &[(u64, u64)], part: Range<u64>) -> Vec<(u64, u64)> {
    let before = terms.partition_point(|(first, _)| *first <= part.start).saturating_sub(1);
    let own = terms.iter().skip(before).take_while(|(first, _)| *first < part.end);
    own.map(|(first, term)| ((*first).max(part.start), *term)).collect()
}

impl Refused {
    pub(super) fn of(self, group: u64) -> Error {
        match self {
            Refused::NotContiguous { index, expected } => {
                Error::NotContiguous { group, index, expected }
            }
            Refused::Purged { index, first } => Error::Purged { group, index, first },
        }
    }
}

/// What takes time to drop.
#[derive(Default)]
pub(super) struct Dead {
    runs: Vec<Arc<crate::raft::index::Run>>,
    cached: Vec<crate::raft::cache::Slot>,
}

impl Store {
    /// Orders the records of changes and makes them, under the group's lock and without waiting. The
    /// changes were checked under the same lock.
    pub(super) fn publish(
        &self,
        state: &mut GroupState,
        room: Room<'_>,
        unit: Unit<'_>,
        changes: &[Change],
        entries: &[Filled],
    ) -> (AppendTicket, Dead) {
        let core = self.wal.core();
        let frames = unit.frames();
        let span = core.publish(room, unit);
        let mut dead = Dead::default();
        let mut lsn = span.lsn;
        for (number, (change, frame_bytes)) in changes.iter().zip(frames).enumerate() {
            if let Some(entries) = entries.get(number) {
                self.cache.insert(lsn, entries.slot(), &mut dead.cached);
            }
            // It was checked under this lock.
            let runs = state.apply(change, At { lsn, bytes: frame_bytes }).unwrap_or_default();
            dead.runs.extend(runs);
            lsn = lsn.plus(frame_bytes);
        }
        (AppendTicket::new(core, span.lsn, span.goal), dead)
    }

    /// For a change that is none: what the group is now is what to wait for.
    pub(super) fn nothing_changed(&self, state: &GroupState) -> AppendTicket {
        let core = self.wal.core();
        let goal = Goal { end: state.applied, epoch: core.epoch() };
        AppendTicket::new(core, state.applied, goal)
    }

    /// Large things are dropped by the pool, and not by the caller's task.
    pub(super) fn drop_elsewhere(&self, dead: Dead) {
        const FEW: usize = 64;
        if dead.runs.len() > FEW {
            self.wal.core().executor.spawn(Box::new(move || drop(dead)));
        }
    }
}

impl fmt::Debug for RaftGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftGroup").field("id", &self.group.id).finish_non_exhaustive()
    }
}
