//! What the nodes say to each other: a length in four bytes, then that many bytes of postcard.

use std::io;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::types::{LogId, SnapshotMeta, Types, Vote};

/// What a length may be: a peer that says more speaks something else.
const FRAME_BYTES_MAX: u32 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    AppendEntries(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    Snapshot {
        vote: Vote,
        meta: SnapshotMeta,
        keys: Vec<u8>,
    },
    TransferLeader(TransferLeaderRequest<Types>),
    /// How far a node has to apply the log before it may answer a read that has begun by now.
    ReadIndex,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    AppendEntries(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    Snapshot(SnapshotResponse<Types>),
    TransferLeader(TransferLeaderResponse<Types>),
    ReadIndex(LogId),
    /// The node can't: it isn't the leader, or it is stopping.
    Failed(String),
}

pub(crate) async fn write_frame(
    to: &mut (impl AsyncWrite + Unpin),
    frame: &impl Serialize,
) -> io::Result<()> {
    let bytes = postcard::to_extend(frame, vec![0; 4]).map_err(io::Error::other)?;
    let mut bytes = bytes;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|length| *length <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("the frame is too long"))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    to.write_all(&bytes).await
}

/// `None` at the end of the connection.
pub(crate) async fn read_frame<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let length = match from.read_u32_le().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        length => length?,
    };
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no frame"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes).await?;
    postcard::from_bytes(&bytes).map(Some).map_err(io::Error::other)
}
