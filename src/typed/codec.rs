//! Encodes and decodes one record.

use std::{error::Error as StdError, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::{
    lsn::Lsn,
    typed::error::{Error, Result},
};

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// Encodes an item with a clone of the codec.
pub(super) fn encode<C, I>(codec: &C, item: I) -> Result<Bytes>
where
    C: Encoder<I> + Clone,
    C::Error: Into<BoxError>,
{
    let mut bytes = BytesMut::new();
    match codec.clone().encode(item, &mut bytes) {
        Ok(()) => Ok(bytes.freeze()),
        Err(error) => Err(Error::Encode { source: Arc::from(error.into()) }),
    }
}

/// Decodes one item from the whole payload with a clone of the codec.
pub(super) fn decode<C>(codec: &C, lsn: Lsn, payload: &[u8]) -> Result<C::Item>
where
    C: Decoder + Clone,
    C::Error: Into<BoxError>,
{
    let mut bytes = BytesMut::from(payload);
    // `decode_eof`, because no more bytes follow: an incomplete item is an error.
    let source = match codec.clone().decode_eof(&mut bytes) {
        Ok(Some(item)) if bytes.is_empty() => return Ok(item),
        Ok(Some(_)) => BoxError::from(format!("{} bytes follow the item", bytes.len())),
        Ok(None) => BoxError::from("the codec found no item in the record"),
        Err(error) => error.into(),
    };
    Err(Error::Decode { lsn, source: Arc::from(source) })
}
