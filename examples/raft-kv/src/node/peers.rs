//! openraft's network over TCP.
//!
//! Entries, heartbeats and snapshots use separate connections, so that they do not wait for each
//! other. A connection opens with its first request.

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
    node::frames::{PeerRequest, PeerResponse, read_frame, write_frame},
    types::{Addresses, Snapshot, Types, Vote},
};

/// The addresses of the other nodes: those in the membership, unless a route replaces one. The
/// chaos test uses routes through its proxies.
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

/// A connection to one node, with one request at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    address: String,
    stream: Option<TcpStream>,
}

enum Failure {
    /// Nothing was sent, because the node or the network is down.
    Unreachable(io::Error),
    /// It is unknown whether the request arrived.
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
    pub(crate) async fn request(
        &mut self,
        request: &PeerRequest,
        within: Duration,
    ) -> io::Result<PeerResponse> {
        self.call(request, within).await.map_err(Failure::into_io)
    }

    async fn call(
        &mut self,
        request: &PeerRequest,
        within: Duration,
    ) -> Result<PeerResponse, Failure> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        // Puts the stream back only after a complete response. So even if this future is dropped,
        // the next request cannot read the response to this one.
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
        let response = timeout(within, exchange(&mut stream, request)).await;
        let response =
            response.map_err(late).and_then(|response| response).map_err(Failure::Broken)?;
        self.stream = Some(stream);
        match response {
            PeerResponse::Failed(reason) => Err(Failure::Broken(io::Error::other(reason))),
            response => Ok(response),
        }
    }
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn exchange(stream: &mut TcpStream, request: &PeerRequest) -> io::Result<PeerResponse> {
    write_frame(stream, request).await?;
    read_frame(stream).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn unexpected(response: PeerResponse) -> Failure {
    Failure::Broken(io::Error::other(format!(
        "the response does not match the request: {response:?}"
    )))
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        match self.call(&PeerRequest::AppendEntries(request), option.soft_ttl()).await? {
            PeerResponse::AppendEntries(response) => Ok(response),
            other => Err(unexpected(other).into()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(&PeerRequest::Vote(request), option.soft_ttl()).await? {
            PeerResponse::Vote(response) => Ok(response),
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
        let request = PeerRequest::Snapshot { vote, meta, keys };
        tokio::select! {
            closed = cancel => Err(closed.into()),
            response = self.call(&request, option.soft_ttl()) => match response? {
                PeerResponse::Snapshot(response) => Ok(response),
                other => Err(unexpected(other).into()),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.call(&PeerRequest::TransferLeader(request), option.soft_ttl()).await? {
            PeerResponse::TransferLeader(response) => Ok(response),
            other => Err(unexpected(other).into()),
        }
    }
}
