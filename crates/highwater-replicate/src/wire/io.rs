//! Reads and writes messages on a stream.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    error::{Error, Result},
    wire::{
        decode::decode,
        encode::encode,
        kind::{HEADER_BYTES, Header},
        message::Message,
    },
};

const PREAMBLE_BYTES: usize = 16;
const MAGIC: [u8; 8] = *b"HWREPL\r\n";
const VERSION: u16 = 1;

/// The side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Replica,
}

impl Role {
    pub(crate) fn code(self) -> u8 {
        match self {
            Role::Leader => 1,
            Role::Replica => 2,
        }
    }

    fn other(self) -> Role {
        match self {
            Role::Leader => Role::Replica,
            Role::Replica => Role::Leader,
        }
    }

    fn preamble(self) -> [u8; PREAMBLE_BYTES] {
        let [m0, m1, m2, m3, m4, m5, m6, m7] = MAGIC;
        let [v0, v1] = VERSION.to_le_bytes();
        [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, self.code(), 0, 0, 0, 0, 0]
    }
}

/// Sends the preamble of this side, and checks the other one.
pub(crate) async fn preamble<S>(stream: &mut S, role: Role) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&role.preamble()).await?;
    stream.flush().await?;
    let mut theirs = [0; PREAMBLE_BYTES];
    stream.read_exact(&mut theirs).await?;
    let reason = match theirs {
        theirs if theirs == role.other().preamble() => return Ok(()),
        theirs if theirs == role.preamble() => "it has the same role",
        [m @ .., _, _, _, _, _, _, _, _] if m == MAGIC => "it has another version of the protocol",
        _ => "it does not speak this protocol",
    };
    Err(Error::Preamble { reason })
}

/// Reads a message.
///
/// Not cancel-safe: a dropped future may have read a part of it.
pub(crate) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> Result<Message> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let broken = |reason| Error::Protocol { reason };
    let header = Header::parse(header).map_err(broken)?;
    // At most 1 MiB and 8 bytes.
    let mut body = BytesMut::zeroed(usize::try_from(header.body_bytes).unwrap_or(usize::MAX));
    stream.read_exact(&mut body).await?;
    decode(header, Bytes::from(body)).map_err(broken)
}

/// Writes a message. The caller flushes the stream.
pub(crate) async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &Message,
) -> Result<()> {
    let mut bytes = Vec::with_capacity(64);
    let payload = encode(message, &mut bytes);
    stream.write_all(&bytes).await?;
    if let Some(payload) = payload {
        stream.write_all(&payload).await?;
    }
    Ok(())
}
