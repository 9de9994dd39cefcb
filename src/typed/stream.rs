//! Streams of decoded records.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{Stream, ready};
use tokio_util::codec::Decoder;

use crate::{
    error::Result as LogResult,
    follow::Follow,
    lsn::Lsn,
    record::Record,
    replay::Replay,
    typed::{
        codec::{BoxError, decode},
        error::Result,
    },
};

/// A stream of records that are decoded: LSNs and items, oldest first.
///
/// [`Error::Decode`](crate::typed::Error::Decode) names a record that the codec cannot decode; the
/// stream continues after it. All other items are those of the stream of records, `S`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::typed::Result<()> {
/// use futures::TryStreamExt;
/// use highwater::typed::{Change, KeyValue};
/// # let wal = highwater::Wal::options()
/// #     .open_with(highwater::storage::MemoryStorage::new()).await?;
/// let changes = wal.typed::<Change, KeyValue>();
/// changes.append_and_sync(Change::delete("size")).await?;
/// let mut follow = changes.follow(wal.watermarks().first);
/// let (_, change) = follow.try_next().await?.expect("a change");
/// assert_eq!(change, Change::delete("size"));
/// let checkpoint = follow.records().position();
/// assert_eq!(checkpoint, wal.watermarks().reserved);
/// # Ok(()) }
/// ```
#[must_use = "streams do nothing unless polled"]
pub struct TypedStream<S, T, C> {
    records: S,
    codec: C,
    item: PhantomData<fn() -> T>,
}

/// The stream of [`Typed::replay`](crate::typed::Typed::replay).
pub type TypedReplay<T, C> = TypedStream<Replay, T, C>;

/// The stream of [`Typed::follow`](crate::typed::Typed::follow).
pub type TypedFollow<T, C> = TypedStream<Follow, T, C>;

impl<S, T, C> TypedStream<S, T, C> {
    pub(super) fn new(records: S, codec: C) -> Self {
        TypedStream { records, codec, item: PhantomData }
    }

    /// Returns the stream of records, for example for its position.
    pub fn records(&self) -> &S {
        &self.records
    }
}

impl<S, T, C> Stream for TypedStream<S, T, C>
where
    S: Stream<Item = LogResult<Record>> + Unpin,
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

impl<S: fmt::Debug, T, C> fmt::Debug for TypedStream<S, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedStream").field("records", &self.records).finish_non_exhaustive()
    }
}
