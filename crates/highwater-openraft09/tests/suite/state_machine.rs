//! A state machine that records the applied entries.

use std::{
    io::Cursor,
    sync::{Arc, Mutex},
};

use openraft::{
    EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, RaftTypeConfig, Snapshot, SnapshotMeta,
    StorageError, StoredMembership, storage::RaftStateMachine,
};

openraft::declare_raft_types!(
    /// The types of the tests.
    pub(crate) Types: D = String, R = usize
);

pub(crate) type NodeId = <Types as RaftTypeConfig>::NodeId;
type Meta = SnapshotMeta<NodeId, <Types as RaftTypeConfig>::Node>;
type Members = StoredMembership<NodeId, <Types as RaftTypeConfig>::Node>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Applied(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    values: Vec<String>,
    applied: Option<LogId<NodeId>>,
    members: Members,
    snapshot: Option<Meta>,
}

impl Applied {
    pub(crate) fn values(&self) -> Vec<String> {
        self.0.lock().unwrap().values.clone()
    }
}

fn of_snapshot(meta: Meta) -> Snapshot<Types> {
    // No test reads it.
    Snapshot { meta, snapshot: Box::new(Cursor::new(Vec::new())) }
}

impl RaftSnapshotBuilder<Types> for Applied {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<NodeId>> {
        let mut state = self.0.lock().unwrap();
        let meta = Meta {
            last_log_id: state.applied,
            last_membership: state.members.clone(),
            snapshot_id: "the only one".to_owned(),
        };
        state.snapshot = Some(meta.clone());
        Ok(of_snapshot(meta))
    }
}

impl RaftStateMachine<Types> for Applied {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<NodeId>>, Members), StorageError<NodeId>> {
        let state = self.0.lock().unwrap();
        Ok((state.applied, state.members.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<usize>, StorageError<NodeId>>
    where
        I: IntoIterator<Item = openraft::Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut state = self.0.lock().unwrap();
        let mut answers = Vec::new();
        for entry in entries {
            state.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Normal(value) => state.values.push(value),
                EntryPayload::Membership(members) => {
                    state.members = StoredMembership::new(Some(entry.log_id), members);
                }
                EntryPayload::Blank => {}
            }
            answers.push(state.values.len());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> Result<Box<Cursor<Vec<u8>>>, StorageError<NodeId>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &Meta,
        _: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<NodeId>> {
        let mut state = self.0.lock().unwrap();
        state.applied = meta.last_log_id;
        state.members = meta.last_membership.clone();
        state.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<Types>>, StorageError<NodeId>> {
        Ok(self.0.lock().unwrap().snapshot.clone().map(of_snapshot))
    }
}
