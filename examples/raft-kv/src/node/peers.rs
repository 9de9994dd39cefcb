//! openraft's network: a connection for each thing that must not wait for the others (entries,
//! heartbeats, snapshots), opened when there is something to say.

use std::{collections::BTreeMap, future::Future, io, sync::Arc, time::Duration};

use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    node::frames::{Request, Response, read_frame, write_frame},
    types::{Addresses, Snapshot, Types, Vote},
};

/// How this node reaches the others: at the addresses in the membership, but for those that have a
/// route of their own. The chaos test's routes lead through its proxies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    routes: Arc<BTreeMap<u64, String>>,
}

impl Peers {
    pub(crate) fn new(routes: BTreeMap<u64, String>) -> Self {
        Peers { routes: Arc::new(routes) }
    }

    pub(crate) fn connection(&self, id: u64, addresses: &Addresses) -> Connection {
        let address = self.routes.get(&id).unwrap_or(&addresses.peers).clone();
        Connection { address, stream: None }
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Addresses) -> Connection {
        self.connection(target, node)
    }
}

/// Requests to one node, one at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    address: String,
    stream: Option<TcpStream>,
}

enum Failure {
    /// Nothing was sent: the node is down, or the way to it.
    Unreachable(io::Error),
    /// Whether it arrived is not known.
    Broken(io::Error),
}

impl Failure {
    fn into_io(self) -> io::Error {
        match self {
            Failure::Unreachable(error) | Failure::Broken(error) => error,
        }
    }
}

impl From<Failure> for RPCError<Types> {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable(error) => RPCError::Unreachable(Unreachable::new(&error)),
            Failure::Broken(error) => RPCError::Network(NetworkError::new(&error)),
        }
    }
}

impl From<Failure> for StreamingError<Types> {
    fn from(failure: Failure) -> Self {
        RPCError::from(failure).into()
    }
}

impl Connection {
    pub(crate) async fn ask(
        &mut self,
        request: &Request,
        within: Duration,
    ) -> io::Result<Response> {
        self.call(request, within).await.map_err(Failure::into_io)
    }

    async fn call(&mut self, request: &Request, within: Duration) -> Result<Response, Failure> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        // The stream is put back only after a whole answer: also if this future is dropped, the next
        // request can't get the answer to this one.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let connected = timeout(within, connect(&self.address)).await;
                connected
                    .map_err(late)
                    .and_then(|connected| connected)
                    .map_err(Failure::Unreachable)?
            }
        };
        let answer = timeout(within, exchange(&mut stream, request)).await;
        let answer = answer.map_err(late).and_then(|answer| answer).map_err(Failure::Broken)?;
        self.stream = Some(stream);
        match answer {
            Response::Failed(why) => Err(Failure::Broken(io::Error::other(why))),
            answer => Ok(answer),
        }
    }
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn exchange(stream: &mut TcpStream, request: &Request) -> io::Result<Response> {
    write_frame(stream, request).await?;
    read_frame(stream).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn unexpected(response: Response) -> Failure {
    Failure::Broken(io::Error::other(format!("not the answer to this request: {response:?}")))
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        match self.call(&Request::AppendEntries(request), option.soft_ttl()).await? {
            Response::AppendEntries(response) => Ok(response),
            other => Err(unexpected(other).into()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(&Request::Vote(request), option.soft_ttl()).await? {
            Response::Vote(response) => Ok(response),
            other => Err(unexpected(other).into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        Snapshot { meta, snapshot: keys }: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let request = Request::Snapshot { vote, meta, keys };
        tokio::select! {
            closed = cancel => Err(closed.into()),
            response = self.call(&request, option.soft_ttl()) => match response? {
                Response::Snapshot(response) => Ok(response),
                other => Err(unexpected(other).into()),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.call(&Request::TransferLeader(request), option.soft_ttl()).await? {
            Response::TransferLeader(response) => Ok(response),
            other => Err(unexpected(other).into()),
        }
    }
}
