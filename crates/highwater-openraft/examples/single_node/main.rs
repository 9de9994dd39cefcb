//! Initializes one node, writes to it, reads from it, and restarts it.
//!
//! `cargo run --example single_node`

#![allow(clippy::print_stdout, reason = "an example prints its results")]

mod state_machine;

use std::{
    collections::BTreeMap, error::Error, future::Future, path::Path, sync::Arc, time::Duration,
};

use highwater_openraft::LogStore;
use openraft::{
    BasicNode, Config, OptionalSend, Raft, RaftNetworkFactory, RaftNetworkV2, ReadPolicy,
    ServerState,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
    type_config::alias::{SnapshotOf, VoteOf},
};

use state_machine::{Keys, Set, Types};

const NODE: u64 = 1;

/// The cluster has no other node.
#[derive(Clone, Copy, Debug)]
struct NoNetwork;

fn no_other_node() -> Unreachable<Types> {
    Unreachable::new(&std::io::Error::other("this cluster has one node"))
}

impl RaftNetworkFactory<Types> for NoNetwork {
    type Network = NoNetwork;

    async fn new_client(&mut self, _: u64, _: &BasicNode) -> NoNetwork {
        NoNetwork
    }
}

impl RaftNetworkV2<Types> for NoNetwork {
    type SnapshotData = BTreeMap<String, String>;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(no_other_node()))
    }

    async fn vote(
        &mut self,
        _: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(no_other_node()))
    }

    async fn full_snapshot(
        &mut self,
        _: VoteOf<Types>,
        _: SnapshotOf<Types, Self::SnapshotData>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(StreamingError::Unreachable(no_other_node()))
    }
}

/// A node, its log store, and its keys.
struct Node {
    raft: Raft<Types, Keys>,
    store: LogStore<Types>,
    keys: Keys,
}

impl Node {
    async fn start(directory: &Path) -> Result<Self, Box<dyn Error>> {
        let store = LogStore::open(directory).await?;
        let keys = Keys::default();
        // The state machine is in memory. So after a restart the node must win an election before
        // it leads, because it may know less of the committed entries than it had acknowledged.
        let config = Config { enable_leader_restore: Some(false), ..Config::default() };
        let config = Arc::new(config.validate()?);
        let raft = Raft::new(NODE, config, NoNetwork, store.clone(), keys.clone()).await?;
        Ok(Node { raft, store, keys })
    }

    async fn is_leader(&self) -> Result<(), Box<dyn Error>> {
        let wait = self.raft.wait(Some(Duration::from_secs(20)));
        wait.state(ServerState::Leader, "the only node leads").await?;
        Ok(())
    }

    /// Shuts the node down before the store, because closing the store calls the last callbacks.
    async fn stop(self) -> Result<(), Box<dyn Error>> {
        self.raft.shutdown().await?;
        self.store.close().await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;

    let node = Node::start(directory.path()).await?;
    node.raft.initialize(BTreeMap::from([(NODE, BasicNode::default())])).await?;
    node.is_leader().await?;
    for number in 0..100 {
        let (key, value) = ("n".to_owned(), number.to_string());
        node.raft.client_write(Set { key, value }).await?;
    }
    node.raft.ensure_linearizable(ReadPolicy::ReadIndex).await?;
    println!("written: n = {:?}", node.keys.get("n"));
    node.stop().await?;

    let node = Node::start(directory.path()).await?;
    node.is_leader().await?;
    node.raft.ensure_linearizable(ReadPolicy::ReadIndex).await?;
    println!("started again: n = {:?}", node.keys.get("n"));
    assert_eq!(node.keys.get("n").as_deref(), Some("99"));
    node.stop().await?;
    Ok(())
}
