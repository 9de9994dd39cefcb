//! openraft's state machine: the keys in memory, their snapshots in a file.
//!
//! Applying writes nothing. After a restart openraft installs the last snapshot and applies again what
//! the log holds behind it, up to what the log knows as committed.

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
    types::{Answer, LogId, Membership, Snapshot, SnapshotMeta, Types},
};

/// A cheap handle: the node reads through its own what openraft writes through another.
#[derive(Clone, Debug)]
pub(crate) struct StateMachine {
    state: Arc<Mutex<State>>,
    file: SnapshotFile,
    /// The mistake that the chaos test must find.
    applies_twice: bool,
}

/// These three change together: a snapshot has what was applied up to its own log id, no more and no
/// less.
#[derive(Clone, Debug, Default)]
struct State {
    keys: Keys,
    applied: Option<LogId>,
    membership: Membership,
}

impl StateMachine {
    pub(crate) fn new(file: SnapshotFile, applies_twice: bool) -> Self {
        StateMachine { state: Arc::default(), file, applies_twice }
    }

    /// The value as far as this node has applied the log. Not linearizable by itself.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.state().keys.get(key).cloned()
    }

    pub(crate) fn key_count(&self) -> usize {
        self.state().keys.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        // The lock is held for the copy, not for the encoding or the disk.
        let State { keys, applied, membership } = self.state().clone();
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
            let answer = {
                let mut state = self.state();
                state.applied = Some(entry.log_id);
                match entry.payload {
                    EntryPayload::Normal(mut command) => {
                        if self.applies_twice {
                            // Nobody's, so that it isn't known again.
                            command.session = entry.log_id.index;
                        }
                        state.keys.apply(command)
                    }
                    EntryPayload::Membership(membership) => {
                        state.membership = StoredMembership::new(Some(entry.log_id), membership);
                        Answer::Done
                    }
                    EntryPayload::Blank => Answer::Done,
                }
            };
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    /// Of the leader's, or of this node's own file when it starts.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Vec<u8>) -> io::Result<()> {
        let keys = postcard::from_bytes(&data).map_err(io::Error::other)?;
        self.file.save(meta.clone(), data).await?;
        let (applied, membership) = (meta.last_log_id, meta.last_membership.clone());
        *self.state() = State { keys, applied, membership };
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let stored = self.file.load().await?;
        Ok(stored.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}
