//! A cluster of three nodes in one process. A request is a function call.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, TryStreamExt};
use openraft::{
    BasicNode, Config, EntryPayload, OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    RaftSnapshotBuilder, ServerState, SnapshotPolicy, StoredMembership,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
    storage::{EntryResponder, RaftStateMachine},
    type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf},
};

use crate::types::{Medium, Payload, Types, Written};

pub(crate) type Raft = openraft::Raft<Types, Counter>;

/// Returns what a node's log has written so far.
type ReadWritten = Box<dyn Fn() -> Option<Written> + Send + Sync>;

pub(crate) struct Cluster {
    nodes: Vec<(Raft, ReadWritten)>,
    leader: usize,
}

impl Cluster {
    pub(crate) async fn start<M: Medium>(at: &Path, options: M::Options) -> io::Result<Self> {
        let config = Config {
            // Long timeouts, because a busy disk must not cause an election.
            heartbeat_interval: 500,
            election_timeout_min: 3_000,
            election_timeout_max: 6_000,
            snapshot_policy: SnapshotPolicy::Never,
            ..Config::default()
        };
        let config = Arc::new(config.validate().map_err(io::Error::other)?);
        let network = Network::default();
        let mut nodes: Vec<(Raft, ReadWritten)> = Vec::new();
        for id in 1..=3 {
            let medium = M::open(&at.join(id.to_string()), &options).await?;
            let (config, peers) = (Arc::clone(&config), network.clone());
            let raft = Raft::new(id, config, peers, medium.store(), Counter::default()).await;
            let raft = raft.map_err(io::Error::other)?;
            network.nodes().insert(id, raft.clone());
            nodes.push((raft, Box::new(move || medium.written())));
        }
        let members: BTreeMap<u64, BasicNode> =
            (1..=3).map(|id| (id, BasicNode::default())).collect();
        nodes[0].0.initialize(members).await.map_err(io::Error::other)?;
        let wait = nodes[0].0.wait(Some(Duration::from_secs(30)));
        wait.state(ServerState::Leader, "the first node becomes the leader")
            .await
            .map_err(io::Error::other)?;
        // The leader accepts writes only after a quorum has confirmed it, a moment later.
        let mut attempts = 0;
        while let Err(error) = nodes[0].0.client_write(Payload(Vec::new())).await {
            attempts += 1;
            if attempts > 300 {
                return Err(io::Error::other(error));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(Cluster { nodes, leader: 0 })
    }

    pub(crate) fn leader(&self) -> &Raft {
        &self.nodes[self.leader].0
    }

    pub(crate) fn leader_written(&self) -> Option<Written> {
        (self.nodes[self.leader].1)()
    }

    pub(crate) async fn stop(self) -> io::Result<()> {
        for (raft, _) in &self.nodes {
            raft.shutdown().await.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<BTreeMap<u64, Raft>>>);

impl Network {
    fn nodes(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Raft>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Peer {
    network: Network,
    target: u64,
}

impl Peer {
    fn raft(&self) -> Result<Raft, Unreachable<Types>> {
        let missing = || Unreachable::new(&io::Error::other("the node has not started yet"));
        self.network.nodes().get(&self.target).cloned().ok_or_else(missing)
    }
}

fn failed(error: impl std::error::Error + 'static) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&error))
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _: &BasicNode) -> Peer {
        Peer { network: self.clone(), target }
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.raft()?.append_entries(request).await.map_err(failed)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.raft()?.vote(request).await.map_err(failed)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, ()>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let installed = self.raft()?.install_full_snapshot(vote, snapshot).await;
        installed.map_err(|error| failed(error).into())
    }
}

/// A state machine that only stores the last applied log ID and the membership.
#[derive(Clone, Default)]
pub(crate) struct Counter {
    applied: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
}

impl RaftSnapshotBuilder<Types> for Counter {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, ()>> {
        let (last_log_id, last_membership) = (self.applied, self.membership.clone());
        let meta = SnapshotMetaOf::<Types> { last_log_id, last_membership };
        Ok(SnapshotOf::<Types, ()> { meta, snapshot: () })
    }
}

impl RaftStateMachine<Types> for Counter {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> io::Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, (): ()) -> io::Result<()> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, ()>>> {
        Ok(None)
    }
}
