//! A cluster of one node on the store: durability, errors, encoding.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use highwater::simulation::{Disk, Op, Survival};
use highwater_openraft09::{Codec, LogStore, Postcard};
use openraft::{
    BasicNode, CommittedLeaderId, Config, Entry, EntryPayload, LogId, Raft, RaftNetwork,
    RaftNetworkFactory, ServerState, Vote,
    error::{InstallSnapshotError, RPCError, RaftError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
    storage::RaftLogStorage,
};

use crate::state_machine::{Applied, NodeId, Types};

type Store = LogStore<Types>;
type Failed<E = RaftError<NodeId>> = RPCError<NodeId, BasicNode, E>;

/// The cluster has no other node.
struct NoNetwork;

fn no_other_node() -> Unreachable {
    Unreachable::new(&io::Error::other("this cluster has one node"))
}

impl RaftNetworkFactory<Types> for NoNetwork {
    type Network = NoNetwork;

    async fn new_client(&mut self, _: NodeId, _: &BasicNode) -> NoNetwork {
        NoNetwork
    }
}

impl RaftNetwork<Types> for NoNetwork {
    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Failed> {
        Err(RPCError::Unreachable(no_other_node()))
    }

    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, Failed<RaftError<NodeId, InstallSnapshotError>>>
    {
        Err(RPCError::Unreachable(no_other_node()))
    }

    async fn vote(
        &mut self,
        _: VoteRequest<NodeId>,
        _: RPCOption,
    ) -> Result<VoteResponse<NodeId>, Failed> {
        Err(RPCError::Unreachable(no_other_node()))
    }
}

async fn start(store: &Store) -> (Raft<Types>, Applied) {
    let (config, applied) = (Arc::new(Config::default().validate().unwrap()), Applied::default());
    let raft = Raft::new(1, config, NoNetwork, store.clone(), applied.clone()).await.unwrap();
    (raft, applied)
}

async fn leads(raft: &Raft<Types>) {
    let wait = raft.wait(Some(Duration::from_secs(60)));
    wait.state(ServerState::Leader, "the only node leads").await.unwrap();
}

fn log_id(term: u64, index: u64) -> LogId<NodeId> {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(term: u64, index: u64) -> Entry<Types> {
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(format!("v{index}")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_keeps_its_writes() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    let (raft, applied) = start(&store).await;
    raft.initialize(BTreeMap::from([(1, BasicNode::default())])).await.unwrap();
    leads(&raft).await;
    let before = store.group().log().wal().stats().sync_count;
    for number in 0..50 {
        raft.client_write(number.to_string()).await.unwrap();
    }
    let syncs = store.group().log().wal().stats().sync_count - before;
    assert!(syncs >= 50, "openraft 0.9 waits for each: {syncs}");
    let written = applied.values();
    raft.shutdown().await.unwrap();
    store.close().await.unwrap();

    let store = Store::open(directory.path()).await.unwrap();
    let (raft, applied) = start(&store).await;
    leads(&raft).await;
    raft.ensure_linearizable().await.unwrap();
    assert_eq!(applied.values(), written);
    raft.shutdown().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn saved_vote_is_durable() {
    let disk = Disk::new(3);
    let open =
        |disk: Disk| async { Store::of_log(Store::options().open_with(disk).await.unwrap()) };
    let mut store = open(disk.clone()).await.unwrap();
    for term in 1..20 {
        store.save_vote(&Vote::new(term, 7)).await.unwrap();
        let mut after = open(disk.crash(Survival::Nothing)).await.unwrap();
        assert_eq!(after.read_vote().await.unwrap(), Some(Vote::new(term, 7)));
    }
    disk.faults().on(Op::Sync).fail(io::ErrorKind::TimedOut);
    let error = store.save_vote(&Vote::new(20, 7)).await.unwrap_err();
    assert!(error.to_string().contains("reopen"), "{error}");
    // Every later call also returns the cause and the advice.
    let error = store.purge(log_id(1, 1)).await.unwrap_err();
    assert!(error.to_string().contains("reopen"), "{error}");
}

/// A client of a node with a failed device gets an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_with_failed_flush_stops_with_an_error() {
    let disk = Disk::new(3);
    let store = Store::of_log(Store::options().open_with(disk.clone()).await.unwrap()).unwrap();
    let (raft, _) = start(&store).await;
    raft.initialize(BTreeMap::from([(1, BasicNode::default())])).await.unwrap();
    leads(&raft).await;
    raft.client_write("kept".to_owned()).await.unwrap();
    disk.faults().on(Op::Sync).fail(io::ErrorKind::TimedOut);
    let written = raft.client_write("lost".to_owned());
    let answer = tokio::time::timeout(Duration::from_secs(60), written).await;
    assert!(answer.expect("there is an answer").is_err());
}

#[tokio::test]
async fn log_of_another_codec_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    store.close().await.unwrap();
    let error = LogStore::<Types, Postcard<2>>::open(directory.path()).await.unwrap_err();
    assert!(matches!(error, highwater::raft::Error::OtherCodec { .. }), "{error}");
}

/// If this fails with a newer openraft, the encoding of its types has changed, and the codec needs
/// a new number.
#[test]
fn the_bytes_are_kept() {
    fn encoded(value: &impl serde::Serialize) -> Vec<u8> {
        let mut bytes = Vec::new();
        <Postcard as Codec>::encode(value, &mut bytes).unwrap();
        bytes
    }
    assert_eq!(<Postcard as Codec>::ID, 0x706f_3901_0000_0001);
    assert_eq!(encoded(&entry(3, 300)), b"\x03\x01\xac\x02\x01\x04v300");
    assert_eq!(encoded(&Vote::new_committed(5, 2_u64)), [5, 2, 1]);
    assert_eq!(encoded(&log_id(5, 9)), [5, 1, 9]);
    let decoded: Entry<Types> =
        <Postcard as Codec>::decode(b"\x03\x01\xac\x02\x01\x04v300").unwrap();
    assert_eq!(decoded.log_id, log_id(3, 300));
    assert!(<Postcard as Codec>::decode::<Entry<Types>>(b"\x03\x01\xac\x02\x01\x04v300x").is_err());
}
