//! What entries, votes and ids are as bytes.

use serde::{Serialize, de::DeserializeOwned};

/// Why something can't be encoded or decoded.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// A format of serde's, in which entries, votes and ids are kept in the log.
///
/// The [`ID`](Codec::ID) is kept there too, and a log that was written with another one is not opened:
/// change it with everything that changes the bytes.
///
/// ```
/// use highwater_openraft09::{Codec, Postcard};
/// assert_ne!(<Postcard<2> as Codec>::ID, <Postcard as Codec>::ID);
/// ```
pub trait Codec: Send + Sync + 'static {
    /// The number of this codec, version included.
    const ID: u64;

    /// Puts a value behind what is in `to`: one byte at least.
    ///
    /// # Errors
    ///
    /// If it can't be encoded.
    fn encode<T: Serialize>(value: &T, to: &mut Vec<u8>) -> Result<(), CodecError>;

    /// The value that was encoded.
    ///
    /// # Errors
    ///
    /// If these bytes are none.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError>;
}

/// [postcard](https://postcard.jamesmunns.com), the default.
///
/// `VERSION` is that of the application's own types: raise it when their bytes change, for instance
/// with a new field. The bytes say nothing of their type, so types that ask for it when they are read
/// (`serde_json::Value`, untagged enums, `skip_serializing_if`) can't be read back.
#[derive(Clone, Copy, Debug)]
pub enum Postcard<const VERSION: u32 = 1> {}

/// `po9` and the layout of openraft's own types, as the tests have it in bytes.
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
            count => Err(format!("{count} bytes are left over behind it").into()),
        }
    }
}
