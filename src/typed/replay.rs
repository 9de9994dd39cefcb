//! The stream of decoded records.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{Stream, ready};
use tokio_util::codec::Decoder;

use crate::{
    error::Result,
    lsn::Lsn,
    replay::Replay,
    typed::{BoxError, decode},
};

/// The stream that [`Typed::replay`](crate::typed::Typed::replay) gives: LSNs and items, oldest
/// first.
///
/// [`Error::Decode`](crate::Error::Decode) names a record that the codec can't read, and doesn't
/// end the stream; every other error does, as in [`Replay`].
#[must_use = "streams do nothing unless polled"]
pub struct TypedReplay<T, C> {
    records: Replay,
    codec: C,
    item: PhantomData<fn() -> T>,
}

impl<T, C> TypedReplay<T, C> {
    pub(super) fn new(records: Replay, codec: C) -> Self {
        TypedReplay { records, codec, item: PhantomData }
    }
}

impl<T, C> Stream for TypedReplay<T, C>
where
    C: Decoder<Item = T> + Clone + Unpin,
    C::Error: Into<BoxError>,
{
    type Item = Result<(Lsn, T)>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let record = ready!(Pin::new(&mut self.records).poll_next(context));
        Poll::Ready(record.map(|record| {
            let record = record?;
            let item = decode(&self.codec, record.lsn, &record.payload)?;
            Ok((record.lsn, item))
        }))
    }
}

impl<T, C> fmt::Debug for TypedReplay<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedReplay").field("records", &self.records).finish_non_exhaustive()
    }
}
