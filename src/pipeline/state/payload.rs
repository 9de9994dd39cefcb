//! [`Payload`]: the bytes of one record, borrowed or owned.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// The bytes of one record.
///
/// Converts from any type whose bytes can be borrowed or moved. The difference matters only for
/// records larger than the ring: the log copies borrowed bytes once more, and writes owned bytes
/// from where they are.
#[derive(Clone, Debug)]
pub struct Payload<'a>(Repr<'a>);

#[derive(Clone, Debug)]
enum Repr<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl Payload<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Borrowed(bytes) => bytes,
            Repr::Owned(bytes) => bytes,
        }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        match self.0 {
            Repr::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Repr::Owned(bytes) => bytes,
        }
    }
}

macro_rules! payload_from {
    ($($lifetime:lifetime $from:ty => $make:expr),* $(,)?) => {
        $(impl<$lifetime> From<$from> for Payload<$lifetime> {
            fn from(from: $from) -> Self {
                let make: fn($from) -> Repr<$lifetime> = $make;
                Payload(make(from))
            }
        })*
    };
}

payload_from! {
    'a &'a [u8] => |bytes| Repr::Borrowed(bytes),
    'a &'a Vec<u8> => |bytes| Repr::Borrowed(bytes),
    'a &'a str => |text| Repr::Borrowed(text.as_bytes()),
    'a &'a String => |text| Repr::Borrowed(text.as_bytes()),
    'a &'a Bytes => |bytes| Repr::Owned(bytes.clone()),
    'a Bytes => |bytes| Repr::Owned(bytes),
    'a Vec<u8> => |bytes| Repr::Owned(bytes.into()),
    'a String => |text| Repr::Owned(text.into()),
    'a Box<[u8]> => |bytes| Repr::Owned(bytes.into()),
    'a BytesMut => |bytes| Repr::Owned(bytes.freeze()),
    'a Cow<'a, [u8]> => |bytes| match bytes {
        Cow::Borrowed(bytes) => Repr::Borrowed(bytes),
        Cow::Owned(bytes) => Repr::Owned(bytes.into()),
    },
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Payload(Repr::Borrowed(bytes))
    }
}
