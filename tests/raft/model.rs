//! The model of a group: a map of entries.

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
pub(crate) enum ModelChange {
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

    /// Applies a change. Returns false if the change must be rejected.
    pub(crate) fn apply(&mut self, change: &ModelChange) -> bool {
        match change {
            ModelChange::Append(entries) | ModelChange::Overwrite(entries) => {
                let Some(first) = entries.first().map(|entry| entry.index) else { return true };
                let overwrites = matches!(change, ModelChange::Overwrite(_));
                let fits = first == self.next() || overwrites && first < self.next();
                if first < self.lowest() || !fits && !self.entries.is_empty() {
                    return false;
                }
                self.entries.split_off(&first);
                for entry in entries {
                    self.entries.insert(entry.index, (entry.term, entry.payload.to_vec()));
                }
            }
            ModelChange::TruncateAfter(last) => {
                self.entries.retain(|index, _| last.is_some_and(|last| *index <= last));
            }
            ModelChange::Purge(upto, term, id) => {
                if *upto >= self.lowest() {
                    self.purged = Some((*upto, *term, id.clone()));
                    self.entries = self.entries.split_off(&(upto + 1));
                }
            }
            ModelChange::Vote(bytes) => self.vote = Some(bytes.clone()),
            ModelChange::Committed(bytes) => self.committed = Some(bytes.clone()),
            ModelChange::User(bytes) => self.user = Some(bytes.clone()),
            ModelChange::Remove => *self = Model::default(),
        }
        true
    }

    /// Returns the model of a group. Fails if its state and its entries disagree.
    pub(crate) async fn of(group: &RaftGroup) -> Result<Model, String> {
        let info = group.state();
        let entries = group
            .read(info.first..info.next, u64::MAX)
            .await
            .map_err(|error| format!("group {}: reading {info:?}: {error}", group.id()))?;
        let indexes: Vec<_> = entries.iter().map(|entry| entry.index).collect();
        if indexes != (info.first..info.next).collect::<Vec<_>>() {
            return Err(format!("group {}: {info:?} has a hole: {indexes:?}", group.id()));
        }
        for entry in &entries {
            if group.term(entry.index) != Some(entry.term) {
                return Err(format!("group {}: the term of {}", group.id(), entry.index));
            }
        }
        let last = entries.last().map(|entry| (entry.index, entry.term));
        let purged = info.purged.as_ref().map(|purged| (purged.index, purged.term));
        if info.last != last.or(purged) || purged.is_some_and(|(i, t)| group.term(i) != Some(t)) {
            return Err(format!("group {}: {info:?}, but the last entry is {last:?}", group.id()));
        }
        let entry = |entry: Entry| (entry.index, (entry.term, entry.payload.to_vec()));
        let bytes = |bytes: Option<bytes::Bytes>| bytes.map(|bytes| bytes.to_vec());
        Ok(Model {
            entries: entries.into_iter().map(entry).collect(),
            purged: info.purged.map(|purged| (purged.index, purged.term, purged.id.to_vec())),
            vote: bytes(info.vote),
            committed: bytes(info.committed),
            user: bytes(info.user),
        })
    }

    /// Returns the models of all groups of a log that are not blank.
    pub(crate) async fn all_of(log: &RaftLog) -> Result<BTreeMap<u64, Model>, String> {
        let mut all = BTreeMap::new();
        for id in log.groups() {
            all.insert(id, Model::of(&log.group(id)).await?);
        }
        Ok(all)
    }
}
