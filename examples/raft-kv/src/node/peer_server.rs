//! The requests of the other nodes, given to openraft.

use std::{fmt::Display, io};

use openraft::ReadPolicy;
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;

use crate::{
    node::frames::{Request, Response, read_frame, write_frame},
    types::{Raft, Snapshot},
};

pub(crate) async fn serve(listener: TcpListener, raft: Raft) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let raft = raft.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &raft).await {
                debug!(%error, "a peer's connection has ended");
            }
        });
    }
}

async fn converse(mut stream: TcpStream, raft: &Raft) -> io::Result<()> {
    stream.set_nodelay(true)?;
    while let Some(request) = read_frame(&mut stream).await? {
        let response = answer(request, raft).await.unwrap_or_else(Response::Failed);
        write_frame(&mut stream, &response).await?;
    }
    Ok(())
}

async fn answer(request: Request, raft: &Raft) -> Result<Response, String> {
    fn text(error: impl Display) -> String {
        error.to_string()
    }
    Ok(match request {
        Request::AppendEntries(request) => {
            Response::AppendEntries(raft.append_entries(request).await.map_err(text)?)
        }
        Request::Vote(request) => Response::Vote(raft.vote(request).await.map_err(text)?),
        Request::Snapshot { vote, meta, keys } => {
            let snapshot = Snapshot { meta, snapshot: keys };
            Response::Snapshot(raft.install_full_snapshot(vote, snapshot).await.map_err(text)?)
        }
        Request::TransferLeader(request) => {
            Response::TransferLeader(raft.handle_transfer_leader(request).await.map_err(text)?)
        }
        Request::ReadIndex => {
            let read = raft.get_read_linearizer(ReadPolicy::ReadIndex).await.map_err(text)?;
            Response::ReadIndex(*read.read_log_id().log_id())
        }
    })
}
