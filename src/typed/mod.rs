//! Records of a type of one's own, through a codec of tokio-util.

mod key_value;
#[cfg(feature = "serde")]
mod postcard;
mod replay;

use std::{
    error::Error as StdError,
    fmt,
    marker::PhantomData,
    ops::{Range, RangeBounds},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

#[cfg(feature = "serde")]
pub use self::postcard::{Postcard, PostcardError};
pub use self::{
    key_value::{Change, KeyValue, MalformedChange},
    replay::TypedReplay,
};
use crate::{
    error::{Error, Result},
    lsn::Lsn,
    wal::{Ticket, Wal},
};

type BoxError = Box<dyn StdError + Send + Sync>;

/// A handle of a log whose records are of type `T`, encoded by the codec `C`.
///
/// A record is encoded before anything is reserved, by a clone of the codec of its own, so nothing
/// carries over from one record to the next, and a codec that fails or panics leaves the log as it
/// was. The log keeps no note of the codec: read with the one that wrote.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
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
    /// This log, as one of records of type `T`.
    #[must_use]
    pub fn typed<T, C: Default + Clone>(&self) -> Typed<T, C> {
        self.typed_with(C::default())
    }

    /// As [`Wal::typed`], with a codec that has settings.
    #[must_use]
    pub fn typed_with<T, C: Clone>(&self, codec: C) -> Typed<T, C> {
        Typed { wal: self.clone(), codec, item: PhantomData }
    }
}

impl<T, C: Clone> Typed<T, C> {
    /// The log itself.
    #[must_use]
    pub fn wal(&self) -> &Wal {
        &self.wal
    }

    /// As [`Wal::append`]. Takes whatever the codec encodes, by reference if it can.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`]: nothing was appended; as [`Wal::append`].
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::append`].
    pub async fn append<I>(&self, item: I) -> Result<Lsn>
    where
        C: Encoder<I>,
        C::Error: Into<BoxError>,
    {
        self.wal.append(self.encode(item)?).await
    }

    /// As [`Wal::append_and_sync`].
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
        self.wal.append_and_sync(self.encode(item)?).await
    }

    /// As [`Wal::enqueue`].
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
        self.wal.enqueue(self.encode(item)?).await
    }

    /// As [`Wal::append_batch`]: all of the items, or none; none either if one can't be encoded.
    ///
    /// # Errors
    ///
    /// As [`Typed::append`], and [`Error::BatchTooLarge`].
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::append_batch`].
    pub async fn append_batch<I>(&self, items: impl IntoIterator<Item = I>) -> Result<Range<Lsn>>
    where
        C: Encoder<I>,
        C::Error: Into<BoxError>,
    {
        let payloads = items.into_iter().map(|item| self.encode(item));
        let payloads = payloads.collect::<Result<Vec<_>>>()?;
        self.wal.append_batch(payloads).await
    }

    /// As [`Wal::read`].
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] if the record is whole and the codec can't make a `T` of it, or not of
    /// all of it; as [`Wal::read`].
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

    /// As [`Wal::replay`]: a stream of LSNs and items. A record that can't be decoded is an
    /// [`Error::Decode`] with its LSN, and the stream goes on behind it: whether to is up to you.
    pub fn replay(&self, range: impl RangeBounds<Lsn>) -> TypedReplay<T, C>
    where
        C: Decoder<Item = T>,
        C::Error: Into<BoxError>,
    {
        TypedReplay::new(self.wal.replay(range), self.codec.clone())
    }

    fn encode<I>(&self, item: I) -> Result<Bytes>
    where
        C: Encoder<I>,
        C::Error: Into<BoxError>,
    {
        let mut bytes = BytesMut::new();
        match self.codec.clone().encode(item, &mut bytes) {
            Ok(()) => Ok(bytes.freeze()),
            Err(error) => Err(Error::Encode { source: Arc::from(error.into()) }),
        }
    }
}

/// One item, of the whole payload.
fn decode<C>(codec: &C, lsn: Lsn, payload: &[u8]) -> Result<C::Item>
where
    C: Decoder + Clone,
    C::Error: Into<BoxError>,
{
    let mut bytes = BytesMut::from(payload);
    // No more bytes will come: what the codec can't finish is an error, and no wait for more.
    let source = match codec.clone().decode_eof(&mut bytes) {
        Ok(Some(item)) if bytes.is_empty() => return Ok(item),
        Ok(Some(_)) => BoxError::from(format!("{} bytes behind the item are left", bytes.len())),
        Ok(None) => BoxError::from("the codec finds no item in it"),
        Err(error) => error.into(),
    };
    Err(Error::Decode { lsn, source: Arc::from(source) })
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
