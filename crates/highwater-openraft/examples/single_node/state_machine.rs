//! A key-value store in memory, built from the entries of the log.
//!
//! It is not on disk. After a restart, openraft applies the log's entries up to `committed` on top
//! of the last snapshot. A real state machine keeps its snapshots in files, this one in memory.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, StoredMembership,
    storage::{EntryResponder, RaftStateMachine, Snapshot, SnapshotMeta},
    type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf},
};
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// The types of this application.
    pub(crate) Types: D = Set, R = Option<String>
);

/// A command that sets the value of a key. The response is the previous value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Set {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.key, self.value)
    }
}

/// A cheap handle, so that the application can read the state that openraft writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    values: BTreeMap<String, String>,
    applied: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
    snapshot: Option<(SnapshotMetaOf<Types>, BTreeMap<String, String>)>,
}

impl Keys {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.state().values.get(key).cloned()
    }
}

impl RaftSnapshotBuilder<Types> for Keys {
    type SnapshotData = BTreeMap<String, String>;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, Self::SnapshotData>> {
        let mut state = self.state();
        let meta =
            SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() };
        let values = state.values.clone();
        state.snapshot = Some((meta.clone(), values.clone()));
        Ok(Snapshot { meta, snapshot: values })
    }
}

impl RaftStateMachine<Types> for Keys {
    type SnapshotData = BTreeMap<String, String>;
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> io::Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>)> {
        let state = self.state();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut state = self.state();
            state.applied = Some(entry.log_id);
            let answer = match entry.payload {
                EntryPayload::Normal(Set { key, value }) => state.values.insert(key, value),
                EntryPayload::Membership(membership) => {
                    state.membership = StoredMembership::new(Some(entry.log_id), membership);
                    None
                }
                EntryPayload::Blank => None,
            };
            drop(state);
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        values: Self::SnapshotData,
    ) -> io::Result<()> {
        let mut state = self.state();
        state.applied = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        state.values = values.clone();
        state.snapshot = Some((meta.clone(), values));
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<SnapshotOf<Types, Self::SnapshotData>>> {
        let state = self.state();
        let snapshot = state.snapshot.clone();
        Ok(snapshot.map(|(meta, values)| Snapshot { meta, snapshot: values }))
    }
}
