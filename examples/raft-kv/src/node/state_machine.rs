//! openraft's state machine: the keys in memory, and their snapshots in a file.
//!
//! Applying an entry writes nothing to the disk. After a restart openraft installs the last
//! snapshot and applies the entries after it again, up to the commit index in the log.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, StoredMembership,
    storage::{EntryResponder, RaftStateMachine},
};

use crate::{
    node::{keys::Keys, snapshot_file::SnapshotFile},
    types::{CommandOutcome, LogId, Membership, Snapshot, SnapshotMeta, Types},
};

pub(crate) type Raft = openraft::Raft<Types, StateMachine>;

/// A handle to the state, cheap to clone. openraft writes through one handle, and the node reads
/// through another.
#[derive(Clone, Debug)]
pub(crate) struct StateMachine {
    state: Arc<Mutex<MachineState>>,
    file: SnapshotFile,
    /// Applies repeated commands twice: a mistake on purpose, which the chaos test must find.
    applies_twice: bool,
}

/// The three fields change together, so that a snapshot has exactly the entries up to its log ID.
#[derive(Clone, Debug, Default)]
struct MachineState {
    keys: Keys,
    applied: Option<LogId>,
    membership: Membership,
}

impl StateMachine {
    pub(crate) fn new(file: SnapshotFile, applies_twice: bool) -> Self {
        StateMachine { state: Arc::default(), file, applies_twice }
    }

    /// Returns the value in this node's state, which may be stale.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.state().keys.get(key).cloned()
    }

    pub(crate) fn key_count(&self) -> usize {
        self.state().keys.len()
    }

    fn state(&self) -> MutexGuard<'_, MachineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        // Holds the lock only for the copy, not during encoding and disk I/O.
        let MachineState { keys, applied, membership } = self.state().clone();
        let meta = SnapshotMeta { last_log_id: applied, last_membership: membership };
        let keys = postcard::to_stdvec(&keys).map_err(io::Error::other)?;
        self.file.save(meta.clone(), keys.clone()).await?;
        Ok(Snapshot { meta, snapshot: keys })
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        let state = self.state();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = {
                let mut state = self.state();
                state.applied = Some(entry.log_id);
                match entry.payload {
                    EntryPayload::Normal(mut command) => {
                        if self.applies_twice {
                            // A new session for each entry, so that a repeated command is not
                            // recognized.
                            command.session = entry.log_id.index;
                        }
                        state.keys.apply(command)
                    }
                    EntryPayload::Membership(membership) => {
                        state.membership = StoredMembership::new(Some(entry.log_id), membership);
                        CommandOutcome::Done
                    }
                    EntryPayload::Blank => CommandOutcome::Done,
                }
            };
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    /// Installs a snapshot of the leader, or this node's own snapshot at the start.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Vec<u8>) -> io::Result<()> {
        let keys = postcard::from_bytes(&data).map_err(io::Error::other)?;
        self.file.save(meta.clone(), data).await?;
        let (applied, membership) = (meta.last_log_id, meta.last_membership.clone());
        *self.state() = MachineState { keys, applied, membership };
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let stored = self.file.load().await?;
        Ok(stored.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}
