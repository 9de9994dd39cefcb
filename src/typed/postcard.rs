//! A codec for every type that serde can serialize.

use std::marker::PhantomData;

use ::postcard::{Error, take_from_bytes, to_allocvec};
use bytes::{Buf, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::codec::{Decoder, Encoder};

/// Encodes every type that serde can serialize and deserialize as
/// [postcard](https://postcard.jamesmunns.com).
///
/// The format is compact, has a stable specification and is *not* self-describing: a record
/// contains no field names. If you add, remove or move a field, older records become unreadable or
/// decode to wrong values. Use an enum for types that may change, and add variants at its end.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::typed::Result<()> {
/// use highwater::typed::Postcard;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, PartialEq, Debug)]
/// enum Event {
///     Opened { account: u64 },
///     Paid { account: u64, cents: i64 },
/// }
/// # let wal = highwater::Wal::options()
/// #     .open_with(highwater::storage::MemoryStorage::new()).await?;
/// let events = wal.typed::<Event, Postcard<Event>>();
/// let lsn = events.append(Event::Paid { account: 7, cents: 250 }).await?;
/// assert_eq!(events.read(lsn).await?, Event::Paid { account: 7, cents: 250 });
/// # Ok(()) }
/// ```
///
/// Postcard does not limit the nesting depth. A record of a few megabytes of a recursive type may
/// overflow the stack when it is decoded. Do not use recursive types if untrusted programs can
/// write to the log's directory.
pub struct Postcard<T>(PhantomData<fn() -> T>);

/// The reason why postcard cannot encode or decode an item.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostcardError {
    /// The error of postcard.
    #[error(transparent)]
    Postcard(#[from] Error),
    /// The read error, if the codec is used over something other than a log.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl<T: Serialize> Encoder<T> for Postcard<T> {
    type Error = PostcardError;

    fn encode(&mut self, item: T, to: &mut BytesMut) -> Result<(), PostcardError> {
        self.encode(&item, to)
    }
}

impl<T: Serialize> Encoder<&T> for Postcard<T> {
    type Error = PostcardError;

    fn encode(&mut self, item: &T, to: &mut BytesMut) -> Result<(), PostcardError> {
        to.extend_from_slice(&to_allocvec(item)?);
        Ok(())
    }
}

impl<T: DeserializeOwned> Decoder for Postcard<T> {
    type Item = T;
    type Error = PostcardError;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<T>, PostcardError> {
        match take_from_bytes(from) {
            Ok((item, rest)) => {
                let taken_bytes = from.len() - rest.len();
                from.advance(taken_bytes);
                Ok(Some(item))
            }
            Err(Error::DeserializeUnexpectedEnd) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Decodes an item even from zero bytes, because `()` takes none.
    fn decode_eof(&mut self, from: &mut BytesMut) -> Result<Option<T>, PostcardError> {
        match self.decode(from)? {
            Some(item) => Ok(Some(item)),
            None => Err(Error::DeserializeUnexpectedEnd.into()),
        }
    }
}

impl<T> Default for Postcard<T> {
    fn default() -> Self {
        Postcard(PhantomData)
    }
}

impl<T> Clone for Postcard<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Postcard<T> {}

impl<T> std::fmt::Debug for Postcard<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Postcard")
    }
}
