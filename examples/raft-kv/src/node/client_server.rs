//! Handles the requests of clients.

use std::{collections::BTreeMap, io, time::Duration};

use openraft::{
    ChangeMembers, ReadPolicy,
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, ForwardToLeader, RaftError},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::{
    node::{
        frames::{PeerRequest, PeerResponse},
        freezer::Freezer,
        peers::Peers,
        state_machine::{Raft, StateMachine},
    },
    protocol::{Reply, Request},
    types::{Addresses, CommandOutcome, LogId, Types},
};

/// The time limit of a request, after which the client must send it again. Its entry may still be
/// committed later.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) raft: Raft,
    pub(crate) keys: StateMachine,
    pub(crate) peers: Peers,
    pub(crate) freezer: Freezer,
    /// Makes reads stale: a mistake on purpose, which the chaos test must find.
    pub(crate) reads_stale: bool,
}

type ReplyResult = Result<Reply, Reply>;

pub(crate) async fn serve(listener: TcpListener, service: Service) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move { service.serve_connection(stream).await });
    }
}

impl Service {
    async fn serve_connection(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (from, mut to) = stream.split();
        let mut lines = BufReader::new(from).lines();
        while let Some(line) = lines.next_line().await? {
            let reply = match line.parse() {
                Ok(request) => self.handle_with_timeout(request).await,
                Err(reason) => Reply::Error(reason),
            };
            to.write_all(format!("{reply}\n").as_bytes()).await?;
        }
        Ok(())
    }

    async fn handle_with_timeout(&self, request: Request) -> Reply {
        match tokio::time::timeout(TIMEOUT, self.handle(request)).await {
            Ok(outcome) => outcome.unwrap_or_else(|reply| reply),
            Err(_) => Reply::Retry("the request takes too long".into()),
        }
    }

    async fn handle(&self, request: Request) -> ReplyResult {
        fn done<T>(_: T) -> ReplyResult {
            Ok(Reply::Ok)
        }
        match request {
            Request::Write(command) => match self.raft.client_write(command).await {
                Ok(written) => Ok(match written.data {
                    CommandOutcome::Done => Reply::Ok,
                    CommandOutcome::Mismatch(found) => Reply::Mismatch(found),
                    CommandOutcome::Stale => Reply::Stale,
                }),
                Err(error) => Err(write_error(error)),
            },
            Request::Get { key } => {
                self.catch_up().await?;
                Ok(self.keys.get(&key).map_or(Reply::None, Reply::Value))
            }
            Request::Status => Ok(Reply::Status(self.status())),
            Request::Initialize(nodes) => {
                let nodes: BTreeMap<u64, Addresses> = nodes.into_iter().collect();
                self.raft.initialize(nodes).await.map_err(error)?;
                Ok(Reply::Ok)
            }
            Request::Learn(id, node) => {
                self.raft.add_learner(id, node, true).await.map_err(write_error).and_then(done)
            }
            // Removed voters leave the membership, and do not stay as learners.
            Request::Members(ids) => {
                let voters = ChangeMembers::ReplaceAllVoters(ids.into_iter().collect());
                self.raft.change_membership(voters, false).await.map_err(write_error).and_then(done)
            }
            Request::Lead(id) => {
                self.check_is_leader()?;
                self.raft.trigger().transfer_leader(id).await.map_err(error).and_then(done)
            }
            Request::Snapshot => self.raft.trigger().snapshot().await.map_err(error).and_then(done),
            Request::Freeze => {
                self.freezer.freeze();
                Ok(Reply::Ok)
            }
            Request::Thaw => {
                self.freezer.thaw();
                Ok(Reply::Ok)
            }
            Request::Purge => {
                let snapshot = self.raft.metrics().borrow_watched().snapshot;
                let upto = snapshot.map_or(0, |id| id.index);
                self.raft.trigger().purge_log(upto).await.map_err(error).and_then(done)
            }
        }
    }

    /// Waits until this node has applied all entries that were committed at the time of the call.
    /// After that a read is linearizable.
    ///
    /// The leader confirms its leadership with a quorum. Any other node gets an index to read at
    /// from the leader, and waits until it has applied the log up to it.
    async fn catch_up(&self) -> Result<(), Reply> {
        if self.reads_stale {
            return Ok(());
        }
        let metrics = self.raft.metrics().borrow_watched().clone();
        let leader =
            metrics.current_leader.ok_or_else(|| Reply::Retry("there is no leader".into()))?;
        if leader == metrics.id {
            let read = self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
            return read.map(|_| ()).map_err(|error| Reply::Retry(error.to_string()));
        }
        let known = metrics.membership_config.membership().get_node(&leader).cloned();
        let addresses =
            known.ok_or_else(|| Reply::Retry("the leader's address is unknown".into()))?;
        let index = self.read_index(leader, &addresses).await?.index;
        let wait = self.raft.wait(Some(TIMEOUT));
        let applied = wait.applied_index_at_least(Some(index), "a read").await;
        applied.map(|_| ()).map_err(|error| Reply::Retry(error.to_string()))
    }

    async fn read_index(&self, leader: u64, addresses: &Addresses) -> Result<LogId, Reply> {
        let mut connection = self.peers.connection(leader, addresses);
        match connection.request(&PeerRequest::ReadIndex, TIMEOUT).await {
            Ok(PeerResponse::ReadIndex(id)) => Ok(id),
            Ok(other) => Err(Reply::Error(format!("expected an index to read at, got {other:?}"))),
            Err(error) => Err(Reply::Retry(error.to_string())),
        }
    }

    /// Returns `Ok` if this node is the leader, or else the reply that names the leader.
    fn check_is_leader(&self) -> Result<(), Reply> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        match metrics.current_leader {
            Some(leader) if leader == metrics.id => Ok(()),
            Some(leader) => match metrics.membership_config.membership().get_node(&leader) {
                Some(node) => Err(Reply::Leader(node.clients.clone())),
                None => Err(Reply::Retry("the leader's address is unknown".into())),
            },
            None => Err(Reply::Retry("there is no leader".into())),
        }
    }

    fn status(&self) -> String {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        let leader = metrics.current_leader.map_or("-".to_owned(), |id| id.to_string());
        let voters: Vec<_> =
            metrics.membership_config.membership().voter_ids().map(|id| id.to_string()).collect();
        format!(
            "id={} state={:?} leader={leader} term={} last={} applied={} snapshot={} purged={} keys={} voters={}",
            metrics.id,
            metrics.state,
            metrics.current_term,
            metrics.last_log_index.unwrap_or(0),
            index(metrics.last_applied),
            index(metrics.snapshot),
            index(metrics.purged),
            self.keys.key_count(),
            voters.join(","),
        )
    }
}

fn error(error: impl ToString) -> Reply {
    Reply::Error(error.to_string())
}

fn write_error(error: RaftError<Types, ClientWriteError<Types>>) -> Reply {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(ForwardToLeader {
            leader_node: Some(node),
            ..
        })) => Reply::Leader(node.clients),
        error => Reply::Retry(error.to_string()),
    }
}
