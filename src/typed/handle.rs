//! The handle of a typed log.

use std::{
    fmt,
    marker::PhantomData,
    ops::{Range, RangeBounds},
};

use futures::Stream;
use tokio_util::codec::{Decoder, Encoder};

use crate::{
    error::Result as LogResult,
    lsn::{Lsn, Start},
    record::Record,
    typed::{
        codec::{BoxError, decode, encode},
        error::Result,
        sink::TypedSink,
        stream::{TypedFollow, TypedReplay, TypedStream},
    },
    wal::{Appended, Durability, Ticket, Wal},
};

/// A handle of a log with records of type `T`, encoded by the codec `C`.
///
/// Each record is encoded by a fresh clone of the codec, so no state carries over between records.
/// An item is encoded before any position is reserved. If the codec fails or panics, the log is
/// unchanged. The log does not record which codec it uses: read it with the codec that wrote it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::typed::Result<()> {
/// use futures::TryStreamExt;
/// use highwater::typed::{Change, KeyValue};
/// # let wal = highwater::Wal::options()
/// #     .open_with(highwater::storage::MemoryStorage::new()).await?;
/// let changes = wal.typed::<Change, KeyValue>();
/// let lsn = changes.append_and_sync(Change::put("color", "blue")).await?;
/// changes.append(Change::delete("size")).await?;
/// assert_eq!(changes.read(lsn).await?, Change::put("color", "blue"));
/// let all: Vec<_> = changes.replay(..).try_collect().await?;
/// assert_eq!(all[1].1, Change::delete("size"));
/// # Ok(()) }
/// ```
pub struct Typed<T, C> {
    wal: Wal,
    codec: C,
    item: PhantomData<fn() -> T>,
}

impl Wal {
    /// Returns a handle that appends and reads records of type `T`.
    #[must_use]
    pub fn typed<T, C: Default + Clone>(&self) -> Typed<T, C> {
        self.typed_with(C::default())
    }

    /// Returns a typed handle with a codec that has settings.
    #[must_use]
    pub fn typed_with<T, C: Clone>(&self, codec: C) -> Typed<T, C> {
        Typed { wal: self.clone(), codec, item: PhantomData }
    }
}

impl<T, C: Clone> Typed<T, C> {
    /// Returns the log itself.
    #[must_use]
    pub fn wal(&self) -> &Wal {
        &self.wal
    }

    /// Encodes and appends an item, as [`Wal::append`].
    ///
    /// The codec decides which types it accepts, for example `&T`.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] if the codec fails, and the errors of [`Wal::append`]. Nothing was
    /// appended.
    ///
    /// [`Error::Encode`]: crate::typed::Error::Encode
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::append`].
    pub async fn append<I>(&self, item: I) -> Result<Lsn>
    where
        C: Encoder<I>,
        C::Error: Into<BoxError>,
    {
        Ok(self.wal.append(encode(&self.codec, item)?).await?)
    }

    /// Encodes and appends an item and syncs it, as [`Wal::append_and_sync`].
    ///
    /// # Errors
    ///
    /// As [`Typed::append`].
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::append`].
    pub async fn append_and_sync<I>(&self, item: I) -> Result<Lsn>
    where
        C: Encoder<I>,
        C::Error: Into<BoxError>,
    {
        Ok(self.wal.append_and_sync(encode(&self.codec, item)?).await?)
    }

    /// Encodes and appends an item with the given durability, as [`Wal::append_with`].
    ///
    /// # Errors
    ///
    /// As [`Typed::append`], and those of [`Wal::append_with`].
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::append`].
    pub async fn append_with<I>(&self, item: I, durability: Durability) -> Result<Appended>
    where
        C: Encoder<I>,
        C::Error: Into<BoxError>,
    {
        Ok(self.wal.append_with(encode(&self.codec, item)?, durability).await?)
    }

    /// Encodes and enqueues an item without waiting for room, as [`Wal::try_enqueue`].
    ///
    /// # Errors
    ///
    /// [`Error::Encode`], and those of [`Wal::try_enqueue`]. Nothing was appended.
    ///
    /// [`Error::Encode`]: crate::typed::Error::Encode
    pub fn try_enqueue<I>(&self, item: I) -> Result<Ticket>
    where
        C: Encoder<I>,
        C::Error: Into<BoxError>,
    {
        Ok(self.wal.try_enqueue(encode(&self.codec, item)?)?)
    }

    /// Returns a sink that encodes and appends each sent item, as [`Wal::sink`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::typed::Result<()> {
    /// use futures::SinkExt;
    /// use highwater::typed::{Change, KeyValue};
    /// # let wal = highwater::Wal::options()
    /// #     .open_with(highwater::storage::MemoryStorage::new()).await?;
    /// let changes = wal.typed::<Change, KeyValue>();
    /// let mut sink = changes.sink();
    /// sink.feed(Change::put("color", "blue")).await?;
    /// sink.send(Change::delete("size")).await?;
    /// assert_eq!(wal.watermarks().synced, wal.watermarks().reserved);
    /// # Ok(()) }
    /// ```
    pub fn sink(&self) -> TypedSink<C> {
        TypedSink::new(self.wal.sink(), self.codec.clone())
    }

    /// Encodes and enqueues an item, as [`Wal::enqueue`].
    ///
    /// # Errors
    ///
    /// As [`Typed::append`].
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::enqueue`].
    pub async fn enqueue<I>(&self, item: I) -> Result<Ticket>
    where
        C: Encoder<I>,
        C::Error: Into<BoxError>,
    {
        Ok(self.wal.enqueue(encode(&self.codec, item)?).await?)
    }

    /// Encodes and appends all items or none, as [`Wal::append_batch`].
    ///
    /// # Errors
    ///
    /// As [`Typed::append`], and those of [`Wal::append_batch`]. If one item cannot be encoded,
    /// nothing was appended.
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::append_batch`].
    pub async fn append_batch<I>(&self, items: impl IntoIterator<Item = I>) -> Result<Range<Lsn>>
    where
        C: Encoder<I>,
        C::Error: Into<BoxError>,
    {
        let payloads = items.into_iter().map(|item| encode(&self.codec, item));
        let payloads = payloads.collect::<Result<Vec<_>>>()?;
        Ok(self.wal.append_batch(payloads).await?)
    }

    /// Reads and decodes the record at `lsn`, as [`Wal::read`].
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] if the codec cannot decode the record or leaves some of its bytes unread.
    /// Otherwise the errors of [`Wal::read`].
    ///
    /// [`Error::Decode`]: crate::typed::Error::Decode
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only reads.
    pub async fn read(&self, lsn: Lsn) -> Result<T>
    where
        C: Decoder<Item = T>,
        C::Error: Into<BoxError>,
    {
        let record = self.wal.read(lsn).await?;
        decode(&self.codec, lsn, &record.payload)
    }

    /// Decodes a record.
    ///
    /// Use it for records of any stream, together with their [`end`](Record::end).
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] if the codec cannot decode the record or leaves some of its bytes unread.
    ///
    /// [`Error::Decode`]: crate::typed::Error::Decode
    pub fn decode(&self, record: &Record) -> Result<T>
    where
        C: Decoder<Item = T>,
        C::Error: Into<BoxError>,
    {
        decode(&self.codec, record.lsn, &record.payload)
    }

    /// Decodes the records of a stream: of a slot, of a [`Reader`](crate::Reader), or of any other.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::typed::Result<()> {
    /// use futures::TryStreamExt;
    /// use highwater::typed::{Change, KeyValue};
    /// # let wal = highwater::Wal::options()
    /// #     .open_with(highwater::storage::MemoryStorage::new()).await?;
    /// let changes = wal.typed::<Change, KeyValue>();
    /// changes.append(Change::NoOp).await?;
    /// let mut written = changes.decode_all(wal.follow_written(wal.watermarks().first));
    /// assert_eq!(written.try_next().await?.map(|item| item.1), Some(Change::NoOp));
    /// # Ok(()) }
    /// ```
    pub fn decode_all<S>(&self, records: S) -> TypedStream<S, T, C>
    where
        S: Stream<Item = LogResult<Record>>,
        C: Decoder<Item = T>,
        C::Error: Into<BoxError>,
    {
        TypedStream::new(records, self.codec.clone())
    }

    /// Returns a stream of the existing durable items and then each new one, as [`Wal::follow`].
    ///
    /// A record that cannot be decoded yields [`Error::Decode`], and the stream continues.
    ///
    /// [`Error::Decode`]: crate::typed::Error::Decode
    pub fn follow(&self, from: impl Into<Start>) -> TypedFollow<T, C>
    where
        C: Decoder<Item = T>,
        C::Error: Into<BoxError>,
    {
        self.decode_all(self.wal.follow(from))
    }

    /// Returns a stream of LSNs and decoded items, as [`Wal::replay`].
    ///
    /// A record that cannot be decoded yields [`Error::Decode`] with its LSN. The stream continues
    /// after it, so the caller decides whether to stop.
    ///
    /// [`Error::Decode`]: crate::typed::Error::Decode
    pub fn replay(&self, range: impl RangeBounds<Lsn>) -> TypedReplay<T, C>
    where
        C: Decoder<Item = T>,
        C::Error: Into<BoxError>,
    {
        self.decode_all(self.wal.replay(range))
    }
}

impl<T, C: Clone> Clone for Typed<T, C> {
    fn clone(&self) -> Self {
        self.wal.typed_with(self.codec.clone())
    }
}

impl<T, C> fmt::Debug for Typed<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed").field("wal", &self.wal).finish_non_exhaustive()
    }
}
