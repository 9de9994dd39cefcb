//! A group as a map of entries: what the log must be, in the plainest form.

use std::collections::BTreeMap;

use highwater::raft::{Entry, RaftGroup, RaftLog};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) entries: BTreeMap<u64, (u64, Vec<u8>)>,
    pub(crate) purged: Option<(u64, u64, Vec<u8>)>,
    pub(crate) vote: Option<Vec<u8>>,
    pub(crate) committed: Option<Vec<u8>>,
    pub(crate) user: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Append(Vec<Entry>),
    Overwrite(Vec<Entry>),
    TruncateAfter(Option<u64>),
    Purge(u64, u64, Vec<u8>),
    Vote(Vec<u8>),
    Committed(Vec<u8>),
    User(Vec<u8>),
    Remove,
}

impl Model {
    pub(crate) fn lowest(&self) -> u64 {
        self.purged.as_ref().map_or(0, |(index, ..)| index + 1)
    }

    pub(crate) fn next(&self) -> u64 {
        self.entries.last_key_value().map_or(self.lowest(), |(index, _)| index + 1)
    }

    pub(crate) fn first(&self) -> u64 {
        self.entries.first_key_value().map_or(self.lowest(), |(index, _)| *index)
    }

    /// Changes it, if it may be changed so.
    pub(crate) fn apply(&mut self, change: &Change) -> bool {
        match change {
            Change::Append(entries) | Change::Overwrite(entries) => {
                let Some(first) = entries.first().map(|entry| entry.index) else { return true };
                let overwrites = matches!(change, Change::Overwrite(_));
                let fits = first == self.next() || overwrites && first < self.next();
                if first < self.lowest() || !fits && !self.entries.is_empty() {
                    return false;
                }
                self.entries.split_off(&first);
                for entry in entries {
                    self.entries.insert(entry.index, (entry.term, entry.payload.to_vec()));
                }
            }
            Change::TruncateAfter(last) => {
                self.entries.retain(|index, _| last.is_some_and(|last| *index <= last));
            }
            Change::Purge(upto, term, id) => {
                if *upto >= self.lowest() {
                    self.purged = Some((*upto, *term, id.clone()));
                    self.entries = self.entries.split_off(&(upto + 1));
                }
            }
            Change::Vote(bytes) => self.vote = Some(bytes.clone()),
            Change::Committed(bytes) => self.committed = Some(bytes.clone()),
            Change::User(bytes) => self.user = Some(bytes.clone()),
            Change::Remove => *self = Model::default(),
        }
        true
    }

    /// What a group of a log is, as it is told and as it is read.
    pub(crate) async fn of(group: &RaftGroup) -> Result<Model, String> {
        let told = group.state();
        let entries = group
            .read(told.first..told.next, u64::MAX)
            .await
            .map_err(|error| format!("group {}: reading {told:?}: {error}", group.id()))?;
        let indexes: Vec<_> = entries.iter().map(|entry| entry.index).collect();
        if indexes != (told.first..told.next).collect::<Vec<_>>() {
            return Err(format!("group {}: {told:?} has a hole: {indexes:?}", group.id()));
        }
        for entry in &entries {
            if group.term(entry.index) != Some(entry.term) {
                return Err(format!("group {}: the term of {}", group.id(), entry.index));
            }
        }
        let last = entries.last().map(|entry| (entry.index, entry.term));
        let purged = told.purged.as_ref().map(|purged| (purged.index, purged.term));
        if told.last != last.or(purged) || purged.is_some_and(|(i, t)| group.term(i) != Some(t)) {
            return Err(format!("group {}: {told:?}, but the last entry is {last:?}", group.id()));
        }
        let entry = |entry: Entry| (entry.index, (entry.term, entry.payload.to_vec()));
        let bytes = |bytes: Option<bytes::Bytes>| bytes.map(|bytes| bytes.to_vec());
        Ok(Model {
            entries: entries.into_iter().map(entry).collect(),
            purged: told.purged.map(|purged| (purged.index, purged.term, purged.id.to_vec())),
            vote: bytes(told.vote),
            committed: bytes(told.committed),
            user: bytes(told.user),
        })
    }

    /// All groups of a log that aren't blank.
    pub(crate) async fn all_of(log: &RaftLog) -> Result<BTreeMap<u64, Model>, String> {
        let mut all = BTreeMap::new();
        for id in log.groups() {
            all.insert(id, Model::of(&log.group(id)).await?);
        }
        Ok(all)
    }
}
