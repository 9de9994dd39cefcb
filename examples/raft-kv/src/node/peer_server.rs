//! Handles the requests of other nodes by passing them to openraft.

use std::{fmt::Display, io};

use openraft::ReadPolicy;
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;

use crate::{
    node::{
        frames::{PeerRequest, PeerResponse, read_frame, write_frame},
        state_machine::Raft,
    },
    types::Snapshot,
};

pub(crate) async fn serve(listener: TcpListener, raft: Raft) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let raft = raft.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_connection(stream, &raft).await {
                debug!(%error, "the connection of a peer has ended");
            }
        });
    }
}

async fn serve_connection(mut stream: TcpStream, raft: &Raft) -> io::Result<()> {
    stream.set_nodelay(true)?;
    while let Some(request) = read_frame(&mut stream).await? {
        let response = handle(request, raft).await.unwrap_or_else(PeerResponse::Failed);
        write_frame(&mut stream, &response).await?;
    }
    Ok(())
}

async fn handle(request: PeerRequest, raft: &Raft) -> Result<PeerResponse, String> {
    fn text(error: impl Display) -> String {
        error.to_string()
    }
    Ok(match request {
        PeerRequest::AppendEntries(request) => {
            PeerResponse::AppendEntries(raft.append_entries(request).await.map_err(text)?)
        }
        PeerRequest::Vote(request) => PeerResponse::Vote(raft.vote(request).await.map_err(text)?),
        PeerRequest::Snapshot { vote, meta, keys } => {
            let snapshot = Snapshot { meta, snapshot: keys };
            PeerResponse::Snapshot(raft.install_full_snapshot(vote, snapshot).await.map_err(text)?)
        }
        PeerRequest::TransferLeader(request) => {
            PeerResponse::TransferLeader(raft.handle_transfer_leader(request).await.map_err(text)?)
        }
        PeerRequest::ReadIndex => {
            let read = raft.get_read_linearizer(ReadPolicy::ReadIndex).await.map_err(text)?;
            PeerResponse::ReadIndex(*read.read_log_id().log_id())
        }
    })
}
