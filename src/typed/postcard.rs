//! A ready codec for whatever serde can write.

use std::marker::PhantomData;

use ::postcard::{Error, take_from_bytes, to_allocvec};
use bytes::{Buf, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::codec::{Decoder, Encoder};

/// The codec of any type that serde can write and read, in the format
/// [postcard](https://postcard.jamesmunns.com): compact, with a stable specification, and *not*
/// self-describing. A record carries no names, so a field that is added, removed or moved makes the
/// records before unreadable, or readable as something else: put what may change into an enum, and
/// add variants at its end.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
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
pub struct Postcard<T>(PhantomData<fn() -> T>);

/// Why postcard could not write or read an item.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostcardError {
    /// What postcard answered.
    #[error(transparent)]
    Postcard(#[from] Error),
    /// What reading failed with, for a codec used over something other than a log.
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

    /// An item may take no bytes at all, as `()` does.
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
