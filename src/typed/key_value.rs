//! A codec for the changes of a map: put, delete, no-op.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// A change of a map from byte keys to byte values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Sets the value of a key.
    Put {
        /// The key: 0 to 2^32 - 1 bytes.
        key: Bytes,
        /// The value: any number of bytes, also 0.
        value: Bytes,
    },
    /// Removes a key.
    Delete {
        /// The key: any number of bytes, also 0.
        key: Bytes,
    },
    /// Changes nothing. For a record that only needs a position, such as the first of a new leader.
    NoOp,
}

impl Change {
    /// Returns a [`Change::Put`].
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Change::Put { key: key.into(), value: value.into() }
    }

    /// Returns a [`Change::Delete`].
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Change::Delete { key: key.into() }
    }
}

const NO_OP: u8 = 0;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// Encodes a [`Change`]. The format is stable:
///
/// | change | bytes |
/// |---|---|
/// | no-op | `00` |
/// | put | `01`, the length of the key (4 bytes, little-endian), the key, the value |
/// | delete | `02`, the key |
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyValue;

/// The reason why a record is not a [`Change`], or a change cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedChange {
    /// The first byte is not a kind of change that this release knows.
    #[error("not a change of a map: the first byte is {0:#04x}")]
    UnknownKind(u8),
    /// The record of a put ends before the end of its key.
    #[error("a put ends before the end of its key: {missing_bytes} bytes are missing")]
    Short {
        /// The number of missing bytes.
        missing_bytes: usize,
    },
    /// Bytes follow a no-op.
    #[error("{0} bytes follow a no-op")]
    Trailing(usize),
    /// The length of the key does not fit into 32 bits.
    #[error("a key of {0} bytes is too long; the maximum is 4294967295")]
    KeyTooLong(usize),
    /// The read error, if the codec is used over something other than a log.
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

    /// Returns `None`, because a change ends where its record ends.
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

    /// The format must not change, because logs in it exist.
    #[test]
    fn format_matches_the_documentation() {
        assert_eq!(encoded(&Change::NoOp)[..], [0]);
        assert_eq!(encoded(&Change::put("ab", "c"))[..], *b"\x01\x02\0\0\0abc");
        assert_eq!(encoded(&Change::delete("ab"))[..], *b"\x02ab");
        for change in [Change::put("", ""), Change::delete(""), Change::put("k", vec![0; 300])] {
            assert_eq!(KeyValue.decode_eof(&mut encoded(&change)).unwrap(), Some(change));
        }
    }

    #[test]
    fn malformed_change_is_rejected() {
        assert_eq!(KeyValue.decode_eof(&mut BytesMut::new()).unwrap(), None);
        let hostile: [&[u8]; 5] =
            [b"\x03", b"\0x", b"\x01\0\0\0", b"\x01\x02\0\0\0a", b"\x01\xff\xff\xff\xffabc"];
        for bytes in hostile {
            KeyValue.decode_eof(&mut BytesMut::from(bytes)).unwrap_err();
        }
    }
}
