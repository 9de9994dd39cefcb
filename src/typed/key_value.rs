//! A ready codec for the log of a map: put, delete, nothing.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// A change of a map from keys to values, both of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The key has this value from now on.
    Put {
        /// Any bytes, also none; up to 4 GiB less one.
        key: Bytes,
        /// Any bytes, also none.
        value: Bytes,
    },
    /// The key has no value from now on.
    Delete {
        /// Any bytes, also none.
        key: Bytes,
    },
    /// Nothing changes: for a record that is wanted for its place alone, as a leader's first.
    NoOp,
}

impl Change {
    /// A [`Change::Put`].
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Change::Put { key: key.into(), value: value.into() }
    }

    /// A [`Change::Delete`].
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Change::Delete { key: key.into() }
    }
}

const NO_OP: u8 = 0;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// The codec of [`Change`]s. Its format stays as it is:
///
/// | change | bytes |
/// |---|---|
/// | no-op | `00` |
/// | put | `01`, the key's length as 4 bytes, little-endian, the key, the value |
/// | delete | `02`, the key |
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyValue;

/// A record is no [`Change`], or a key is too long to be one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedChange {
    /// The first byte tells no change that this release knows.
    #[error("no change of a map: it begins with byte {0:#04x}")]
    UnknownKind(u8),
    /// A put that ends within its key.
    #[error("a put that ends within its key: {missing_bytes} bytes are missing")]
    Short {
        /// How many bytes are missing.
        missing_bytes: usize,
    },
    /// A no-op with something behind it.
    #[error("a no-op with {0} bytes behind it")]
    Trailing(usize),
    /// The length of a key doesn't fit into 32 bits.
    #[error("a key of {0} bytes; at most 4 GiB less one will do")]
    KeyTooLong(usize),
    /// What reading failed with, for a codec used over something other than a log.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Encoder<&Change> for KeyValue {
    type Error = MalformedChange;

    fn encode(&mut self, change: &Change, to: &mut BytesMut) -> Result<(), MalformedChange> {
        match change {
            Change::NoOp => to.put_u8(NO_OP),
            Change::Put { key, value } => {
                let key_bytes =
                    u32::try_from(key.len()).map_err(|_| MalformedChange::KeyTooLong(key.len()))?;
                to.reserve(5 + key.len() + value.len());
                to.put_u8(PUT);
                to.put_u32_le(key_bytes);
                to.put_slice(key);
                to.put_slice(value);
            }
            Change::Delete { key } => {
                to.reserve(1 + key.len());
                to.put_u8(DELETE);
                to.put_slice(key);
            }
        }
        Ok(())
    }
}

impl Encoder<Change> for KeyValue {
    type Error = MalformedChange;

    fn encode(&mut self, change: Change, to: &mut BytesMut) -> Result<(), MalformedChange> {
        self.encode(&change, to)
    }
}

impl Decoder for KeyValue {
    type Item = Change;
    type Error = MalformedChange;

    /// A record is a change: only its end says how long the change is, so this waits for it.
    fn decode(&mut self, _: &mut BytesMut) -> Result<Option<Change>, MalformedChange> {
        Ok(None)
    }

    fn decode_eof(&mut self, from: &mut BytesMut) -> Result<Option<Change>, MalformedChange> {
        let mut bytes = from.split().freeze();
        if bytes.is_empty() {
            return Ok(None);
        }
        match bytes.get_u8() {
            NO_OP if bytes.is_empty() => Ok(Some(Change::NoOp)),
            NO_OP => Err(MalformedChange::Trailing(bytes.len())),
            PUT => {
                let short = |missing_bytes| MalformedChange::Short { missing_bytes };
                let missing = 4usize.saturating_sub(bytes.len());
                if missing > 0 {
                    return Err(short(missing));
                }
                let key_bytes = usize::try_from(bytes.get_u32_le()).unwrap_or(usize::MAX);
                let missing = key_bytes.saturating_sub(bytes.len());
                if missing > 0 {
                    return Err(short(missing));
                }
                let key = bytes.split_to(key_bytes);
                Ok(Some(Change::Put { key, value: bytes }))
            }
            DELETE => Ok(Some(Change::Delete { key: bytes })),
            kind => Err(MalformedChange::UnknownKind(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(change: &Change) -> BytesMut {
        let mut bytes = BytesMut::new();
        KeyValue.encode(change, &mut bytes).unwrap();
        bytes
    }

    /// Logs in this format exist: it doesn't change.
    #[test]
    fn the_format_is_the_documented_one() {
        assert_eq!(encoded(&Change::NoOp)[..], [0]);
        assert_eq!(encoded(&Change::put("ab", "c"))[..], *b"\x01\x02\0\0\0abc");
        assert_eq!(encoded(&Change::delete("ab"))[..], *b"\x02ab");
        for change in [Change::put("", ""), Change::delete(""), Change::put("k", vec![0; 300])] {
            assert_eq!(KeyValue.decode_eof(&mut encoded(&change)).unwrap(), Some(change));
        }
    }

    #[test]
    fn what_is_no_change_is_refused() {
        assert_eq!(KeyValue.decode_eof(&mut BytesMut::new()).unwrap(), None);
        let hostile: [&[u8]; 5] =
            [b"\x03", b"\0x", b"\x01\0\0\0", b"\x01\x02\0\0\0a", b"\x01\xff\xff\xff\xffabc"];
        for bytes in hostile {
            KeyValue.decode_eof(&mut BytesMut::from(bytes)).unwrap_err();
        }
    }
}
