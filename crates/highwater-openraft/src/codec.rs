//! The encoding of entries, votes and ids.

use openraft::{
    RaftTypeConfig,
    type_config::alias::{EntryOf, LogIdOf, VoteOf},
};

/// The reason why a value cannot be encoded or decoded.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// Copies an entry.
pub type Copier<E> = fn(&E) -> E;

/// Encodes openraft's types for the log.
///
/// The log stores the [`ID`](Codec::ID), and a log with another `ID` is not opened. So change the
/// `ID` whenever the bytes change. Examples are another format, and another version of the
/// application's types or of openraft's. All groups of a log share one `ID`.
///
/// ```
/// use highwater_openraft::codec::{Codec, CodecError};
/// use openraft::type_config::alias::{EntryOf, LogIdOf, VoteOf};
/// # openraft::declare_raft_types!(pub Types: D = String, R = String);
///
/// /// Postcard, except for the entries, which have their own format.
/// enum MyCodec {}
///
/// impl Codec<Types> for MyCodec {
///     const ID: u64 = u64::from_be_bytes(*b"mine   1");
///     fn encode_entry(entry: &EntryOf<Types>, to: &mut Vec<u8>) -> Result<(), CodecError> {
///         # <highwater_openraft::Postcard as Codec<Types>>::encode_entry(entry, to)
///         # /*
///         ...
///         # */
///     }
///     # fn decode_entry(bytes: &[u8]) -> Result<EntryOf<Types>, CodecError> {
///     #     <highwater_openraft::Postcard as Codec<Types>>::decode_entry(bytes)
///     # }
///     # fn encode_vote(vote: &VoteOf<Types>, to: &mut Vec<u8>) -> Result<(), CodecError> {
///     #     <highwater_openraft::Postcard as Codec<Types>>::encode_vote(vote, to)
///     # }
///     # fn decode_vote(bytes: &[u8]) -> Result<VoteOf<Types>, CodecError> {
///     #     <highwater_openraft::Postcard as Codec<Types>>::decode_vote(bytes)
///     # }
///     # fn encode_log_id(id: &LogIdOf<Types>, to: &mut Vec<u8>) -> Result<(), CodecError> {
///     #     <highwater_openraft::Postcard as Codec<Types>>::encode_log_id(id, to)
///     # }
///     # fn decode_log_id(bytes: &[u8]) -> Result<LogIdOf<Types>, CodecError> {
///     #     <highwater_openraft::Postcard as Codec<Types>>::decode_log_id(bytes)
///     # }
///     // ... and so on.
/// }
/// # let id = <MyCodec as Codec<Types>>::ID;
/// ```
pub trait Codec<C: RaftTypeConfig>: Send + Sync + 'static {
    /// The number of this codec and its version.
    const ID: u64;

    /// Appends the bytes of an entry, with its log id, to `to`.
    ///
    /// # Errors
    ///
    /// If the entry cannot be encoded. Then nothing is appended to the log, and openraft stops the
    /// node.
    fn encode_entry(entry: &EntryOf<C>, to: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Decodes an entry.
    ///
    /// # Errors
    ///
    /// If the bytes are malformed.
    fn decode_entry(bytes: &[u8]) -> Result<EntryOf<C>, CodecError>;

    /// Returns a function that copies an entry, usually `Some(Clone::clone)`.
    ///
    /// With a copier, the newest entries are cached as they were appended, and a read returns
    /// copies of them. Without a copier, which is the default, their bytes are cached, and every
    /// read decodes them.
    ///
    /// With a copier, a field that the codec omits is present until a restart or until the entry
    /// leaves the cache. A state machine must not use such a field, because other nodes never have
    /// it.
    fn copier() -> Option<Copier<EntryOf<C>>> {
        None
    }

    /// Appends the bytes of a vote to `to`.
    ///
    /// # Errors
    ///
    /// If the value cannot be encoded.
    fn encode_vote(vote: &VoteOf<C>, to: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Decodes a vote.
    ///
    /// # Errors
    ///
    /// If the bytes are malformed.
    fn decode_vote(bytes: &[u8]) -> Result<VoteOf<C>, CodecError>;

    /// Appends the bytes of a log id to `to`, at least one byte.
    ///
    /// # Errors
    ///
    /// If the value cannot be encoded.
    fn encode_log_id(id: &LogIdOf<C>, to: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Decodes a log id.
    ///
    /// # Errors
    ///
    /// If the bytes are malformed.
    fn decode_log_id(bytes: &[u8]) -> Result<LogIdOf<C>, CodecError>;
}

/// Encodes openraft's types with serde and [postcard](https://postcard.jamesmunns.com). The default
/// codec of a [`LogStore`](crate::LogStore).
///
/// `VERSION` is the version of the application's own types (`D`, the node's). Raise it when their
/// bytes change, for example with a new field. The format is not self-describing, so types that
/// require a self-describing format cannot be read back (`serde_json::Value`, untagged enums,
/// `skip_serializing_if`). Write your own codec for them, and for entries that are not `Clone`.
///
/// ```
/// # openraft::declare_raft_types!(pub Types: D = String, R = String);
/// use highwater_openraft::{Codec, LogStore, Postcard};
/// // A log of the second version of this application's commands.
/// type Store = LogStore<Types, Postcard<2>>;
/// assert_ne!(<Postcard<2> as Codec<Types>>::ID, <Postcard as Codec<Types>>::ID);
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Postcard<const VERSION: u32 = 1> {}

/// `pos` and the version of the layout of openraft's types.
///
/// The tests compare the layout byte for byte.
const POSTCARD: u64 = 0x706f_7301;

impl<C, const VERSION: u32> Codec<C> for Postcard<VERSION>
where
    C: RaftTypeConfig,
    EntryOf<C>: Clone,
{
    const ID: u64 = POSTCARD << 32 | VERSION as u64;

    fn encode_entry(entry: &EntryOf<C>, to: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(postcard::to_io(entry, to).map(|_| ())?)
    }

    fn decode_entry(bytes: &[u8]) -> Result<EntryOf<C>, CodecError> {
        whole(postcard::take_from_bytes(bytes)?)
    }

    fn copier() -> Option<Copier<EntryOf<C>>> {
        Some(Clone::clone)
    }

    fn encode_vote(vote: &VoteOf<C>, to: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(postcard::to_io(vote, to).map(|_| ())?)
    }

    fn decode_vote(bytes: &[u8]) -> Result<VoteOf<C>, CodecError> {
        whole(postcard::take_from_bytes(bytes)?)
    }

    fn encode_log_id(id: &LogIdOf<C>, to: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(postcard::to_io(id, to).map(|_| ())?)
    }

    fn decode_log_id(bytes: &[u8]) -> Result<LogIdOf<C>, CodecError> {
        whole(postcard::take_from_bytes(bytes)?)
    }
}

/// Returns the value if all bytes were decoded. Remaining bytes show that the value is of another
/// type.
fn whole<T>((value, rest): (T, &[u8])) -> Result<T, CodecError> {
    match rest.len() {
        0 => Ok(value),
        count => Err(format!("{count} bytes follow the value").into()),
    }
}
