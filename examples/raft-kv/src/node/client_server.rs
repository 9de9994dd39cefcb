//! The requests of clients.

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
        frames::{Request, Response},
        peers::Peers,
        state_machine::StateMachine,
    },
    protocol::{Ask, Reply},
    types::{Addresses, Answer, LogId, Raft, Types},
};

/// How long a request may take before the client is told to ask again. An entry may be committed long
/// after that.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) raft: Raft,
    pub(crate) keys: StateMachine,
    pub(crate) peers: Peers,
    /// The mistake that the chaos test must find.
    pub(crate) reads_stale: bool,
}

type Outcome = Result<Reply, Reply>;

pub(crate) async fn serve(listener: TcpListener, service: Service) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move { service.converse(stream).await });
    }
}

impl Service {
    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (from, mut to) = stream.split();
        let mut lines = BufReader::new(from).lines();
        while let Some(line) = lines.next_line().await? {
            let reply = match line.parse() {
                Ok(ask) => self.answer_in_time(ask).await,
                Err(why) => Reply::Error(why),
            };
            to.write_all(format!("{reply}\n").as_bytes()).await?;
        }
        Ok(())
    }

    async fn answer_in_time(&self, ask: Ask) -> Reply {
        match tokio::time::timeout(PATIENCE, self.answer(ask)).await {
            Ok(outcome) => outcome.unwrap_or_else(|reply| reply),
            Err(_) => Reply::Retry("it takes too long".into()),
        }
    }

    async fn answer(&self, ask: Ask) -> Outcome {
        fn done<T>(_: T) -> Outcome {
            Ok(Reply::Ok)
        }
        match ask {
            Ask::Write(command) => match self.raft.client_write(command).await {
                Ok(written) => Ok(match written.data {
                    Answer::Done => Reply::Ok,
                    Answer::Mismatch(found) => Reply::Mismatch(found),
                    Answer::Stale => Reply::Stale,
                }),
                Err(error) => Err(refused(error)),
            },
            Ask::Get { key } => {
                self.catch_up().await?;
                Ok(self.keys.get(&key).map_or(Reply::None, Reply::Value))
            }
            Ask::Status => Ok(Reply::Status(self.status())),
            Ask::Initialize(nodes) => {
                let nodes: BTreeMap<u64, Addresses> = nodes.into_iter().collect();
                self.raft.initialize(nodes).await.map_err(error)?;
                Ok(Reply::Ok)
            }
            Ask::Learn(id, node) => {
                self.raft.add_learner(id, node, true).await.map_err(refused).and_then(done)
            }
            // Whoever isn't among them any more is forgotten, and not kept as a learner.
            Ask::Members(ids) => {
                let voters = ChangeMembers::ReplaceAllVoters(ids.into_iter().collect());
                self.raft.change_membership(voters, false).await.map_err(refused).and_then(done)
            }
            Ask::Lead(id) => {
                self.leads()?;
                self.raft.trigger().transfer_leader(id).await.map_err(error).and_then(done)
            }
            Ask::Snapshot => self.raft.trigger().snapshot().await.map_err(error).and_then(done),
            Ask::Purge => {
                let snapshot = self.raft.metrics().borrow_watched().snapshot;
                let upto = snapshot.map_or(0, |id| id.index);
                self.raft.trigger().purge_log(upto).await.map_err(error).and_then(done)
            }
        }
    }

    /// Returns when this node has applied all that was committed when it was called: what it reads
    /// after that is linearizable.
    ///
    /// The leader asks a quorum whether it still leads. Any other node asks the leader to do that,
    /// and waits until it has applied as much.
    async fn catch_up(&self) -> Result<(), Reply> {
        if self.reads_stale {
            return Ok(());
        }
        let metrics = self.raft.metrics().borrow_watched().clone();
        let leader = metrics.current_leader.ok_or_else(|| Reply::Retry("no leader".into()))?;
        if leader == metrics.id {
            let read = self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
            return read.map(|_| ()).map_err(|error| Reply::Retry(error.to_string()));
        }
        let known = metrics.membership_config.membership().get_node(&leader).cloned();
        let addresses = known.ok_or_else(|| Reply::Retry("the leader is unknown".into()))?;
        let index = self.read_index(leader, &addresses).await?.index;
        let wait = self.raft.wait(Some(PATIENCE));
        let applied = wait.applied_index_at_least(Some(index), "a read").await;
        applied.map(|_| ()).map_err(|error| Reply::Retry(error.to_string()))
    }

    async fn read_index(&self, leader: u64, addresses: &Addresses) -> Result<LogId, Reply> {
        let mut connection = self.peers.connection(leader, addresses);
        match connection.ask(&Request::ReadIndex, PATIENCE).await {
            Ok(Response::ReadIndex(id)) => Ok(id),
            Ok(other) => Err(Reply::Error(format!("not an index to read at: {other:?}"))),
            Err(error) => Err(Reply::Retry(error.to_string())),
        }
    }

    /// Where the leader is, if it isn't this node.
    fn leads(&self) -> Result<(), Reply> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        match metrics.current_leader {
            Some(leader) if leader == metrics.id => Ok(()),
            Some(leader) => match metrics.membership_config.membership().get_node(&leader) {
                Some(node) => Err(Reply::Leader(node.clients.clone())),
                None => Err(Reply::Retry("the leader is unknown".into())),
            },
            None => Err(Reply::Retry("no leader".into())),
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

fn refused(error: RaftError<Types, ClientWriteError<Types>>) -> Reply {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(ForwardToLeader {
            leader_node: Some(node),
            ..
        })) => Reply::Leader(node.clients),
        error => Reply::Retry(error.to_string()),
    }
}
