//! The hook by which the sides of a connection check each other.

use std::{fmt, future::Future, pin::Pin};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::{
    error::{Error, Result},
    wire::{AUTH_BYTES_MAX, Message, Role, read_message, write_message},
};

/// A stream that can carry a connection.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// The messages that an [`Authenticate`] hook may exchange with the other side.
pub struct Exchange<'a> {
    stream: &'a mut dyn Duplex,
    role: Role,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(stream: &'a mut dyn Duplex, role: Role) -> Self {
        Exchange { stream, role }
    }

    /// Returns whether this side is the leader.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    /// Sends at most 4,096 bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Authentication`] for a longer message; [`Error::Connection`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, end the connection.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > AUTH_BYTES_MAX {
            let reason = "the hook sends more than 4,096 bytes".to_owned();
            return Err(Error::Authentication { reason });
        }
        let message = Message::Auth(Bytes::copy_from_slice(bytes));
        write_message(&mut self.stream, &message).await?;
        Ok(self.stream.flush().await?)
    }

    /// Receives a message of the other side's hook.
    ///
    /// # Errors
    ///
    /// [`Error::Authentication`] if the other side sends another message; [`Error::Connection`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, end the connection.
    pub async fn receive(&mut self) -> Result<Bytes> {
        match read_message(&mut self.stream).await? {
            Message::Auth(bytes) => Ok(bytes),
            _ => {
                let reason = "the other side does not authenticate".to_owned();
                Err(Error::Authentication { reason })
            }
        }
    }
}

impl fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("is_leader", &self.is_leader()).finish_non_exhaustive()
    }
}

/// The future of an [`Authenticate`] hook.
pub type Authenticated<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// Checks the other side of a connection, before a byte of the log is sent or accepted.
///
/// Both sides run their hook at the same time. A hook that needs no message checks the identity
/// that the stream has proven, such as the certificate of TLS.
pub trait Authenticate: Send + Sync {
    /// Returns `Ok` if the other side may lead or follow this log.
    ///
    /// The time limit of the connection applies.
    fn authenticate<'a>(&'a self, exchange: Exchange<'a>) -> Authenticated<'a>;
}

/// Accepts each peer. Use it only if the stream itself admits no other peers: a Unix socket with
/// permissions, or TLS that checks certificates on both sides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unauthenticated;

impl Authenticate for Unauthenticated {
    fn authenticate<'a>(&'a self, _: Exchange<'a>) -> Authenticated<'a> {
        Box::pin(async { Ok(()) })
    }
}
