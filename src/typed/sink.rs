//! [`TypedSink`]: the log as a sink of items.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures::Sink;
use tokio_util::codec::Encoder;

use crate::{
    typed::{
        codec::{BoxError, encode},
        error::{Error, Result},
    },
    wal::WalSink,
};

/// A [`Sink`] that encodes and appends each item, and syncs on flush; made by
/// [`Typed::sink`](crate::typed::Typed::sink).
///
/// It is a [`WalSink`] with a codec. An item that the codec can't encode is refused with
/// [`Error::Encode`] when it is sent. The sink can be used again after that.
#[must_use = "sinks do nothing unless polled"]
pub struct TypedSink<C> {
    sink: WalSink,
    codec: C,
}

impl<C> TypedSink<C> {
    pub(super) fn new(sink: WalSink, codec: C) -> Self {
        TypedSink { sink, codec }
    }
}

impl<I, C> Sink<I> for TypedSink<C>
where
    C: Encoder<I> + Clone + Unpin,
    C::Error: Into<BoxError>,
{
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.sink).poll_ready(context).map_err(Error::from)
    }

    fn start_send(mut self: Pin<&mut Self>, item: I) -> Result<()> {
        let payload = encode(&self.codec, item)?;
        Ok(Pin::new(&mut self.sink).start_send(payload)?)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.sink).poll_flush(context).map_err(Error::from)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.sink).poll_close(context).map_err(Error::from)
    }
}

impl<C> fmt::Debug for TypedSink<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedSink").field("sink", &self.sink).finish_non_exhaustive()
    }
}
