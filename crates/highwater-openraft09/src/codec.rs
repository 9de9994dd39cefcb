//! The encoding of entries, votes and ids.

use serde::{Serialize, de::DeserializeOwned};

/// The reason why a value cannot be encoded or decoded.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// Encodes entries, votes and ids for the log, in a format of serde.
///
/// The log stores the [`ID`](Codec::ID), and a log with another `ID` is not opened. So change the
/// `ID` whenever the bytes change.
///
/// ```
/// use highwater_openraft09::{Codec, Postcard};
/// assert_ne!(<Postcard<2> as Codec>::ID, <Postcard as Codec>::ID);
/// ```
pub trait Codec: Send + Sync + 'static {
    /// The number of this codec and its version.
    const ID: u64;

    /// Appends the bytes of a value to `to`, at least one byte.
    ///
    /// # Errors
    ///
    /// If the value cannot be encoded.
    fn encode<T: Serialize>(value: &T, to: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Decodes a value.
    ///
    /// # Errors
    ///
    /// If the bytes are malformed.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError>;
}

/// Encodes values with [postcard](https://postcard.jamesmunns.com). The default codec.
///
/// `VERSION` is the version of the application's own types. Raise it when their bytes change, for
/// example with a new field. The format is not self-describing, so types that require a
/// self-describing format cannot be read back (`serde_json::Value`, untagged enums,
/// `skip_serializing_if`).
#[derive(Clone, Copy, Debug)]
pub enum Postcard<const VERSION: u32 = 1> {}

/// `po9` and the version of the layout of openraft's types.
///
/// The tests compare the layout byte for byte.
const POSTCARD: u64 = 0x706f_3901;

impl<const VERSION: u32> Codec for Postcard<VERSION> {
    const ID: u64 = POSTCARD << 32 | VERSION as u64;

    fn encode<T: Serialize>(value: &T, to: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(postcard::to_io(value, to).map(|_| ())?)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        let (value, rest) = postcard::take_from_bytes(bytes)?;
        match rest.len() {
            0 => Ok(value),
            count => Err(format!("{count} bytes follow the value").into()),
        }
    }
}
