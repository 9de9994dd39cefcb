//! What entries, votes and ids are as bytes.

use openraft::{
    RaftTypeConfig,
    type_config::alias::{EntryOf, LogIdOf, VoteOf},
};

/// Why something can't be encoded or decoded.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// What copies an entry.
pub type Copier<E> = fn(&E) -> E;

/// How what openraft gives is kept in the log.
///
/// The [`ID`](Codec::ID) is kept in the log too, and a log that was written with another one is not
/// opened. So change it with everything that changes the bytes: another format, another version of
/// the application's own types, or of openraft's.
///
/// All groups of a log share one `ID`.
///
/// ```
/// use highwater_openraft::codec::{Codec, CodecError};
/// use openraft::type_config::alias::{EntryOf, LogIdOf, VoteOf};
/// # openraft::declare_raft_types!(pub Types: D = String, R = String);
///
/// /// Postcard for all but the entries, which are of a format of one's own.
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
    /// The number of this codec, version included.
    const ID: u64;

    /// Puts an entry, its log id included, behind what is in `to`.
    ///
    /// # Errors
    ///
    /// If it can't be encoded: then nothing is appended, and openraft stops the node.
    fn encode_entry(entry: &EntryOf<C>, to: &mut Vec<u8>) -> Result<(), CodecError>;

    /// The entry that was encoded.
    ///
    /// # Errors
    ///
    /// If these bytes are none.
    fn decode_entry(bytes: &[u8]) -> Result<EntryOf<C>, CodecError>;

    /// How an entry is copied, if it can be: `Some(Clone::clone)`, as a rule. Then the newest entries
    /// are kept as they were appended, and what is read is a copy of them. Without it, which is the
    /// default, their bytes are kept, and every read decodes them.
    ///
    /// So with it, a field that the codec leaves out is there until a restart, or until the entry is
    /// old: a state machine must not look at it, as on another node it never is there.
    fn copier() -> Option<Copier<EntryOf<C>>> {
        None
    }

    /// Puts a vote behind what is in `to`.
    ///
    /// # Errors
    ///
    /// If it can't be encoded.
    fn encode_vote(vote: &VoteOf<C>, to: &mut Vec<u8>) -> Result<(), CodecError>;

    /// The vote that was encoded.
    ///
    /// # Errors
    ///
    /// If these bytes are none.
    fn decode_vote(bytes: &[u8]) -> Result<VoteOf<C>, CodecError>;

    /// Puts a log id behind what is in `to`: one byte at least.
    ///
    /// # Errors
    ///
    /// If it can't be encoded.
    fn encode_log_id(id: &LogIdOf<C>, to: &mut Vec<u8>) -> Result<(), CodecError>;

    /// The log id that was encoded.
    ///
    /// # Errors
    ///
    /// If these bytes are none.
    fn decode_log_id(bytes: &[u8]) -> Result<LogIdOf<C>, CodecError>;
}

/// openraft's types as serde sees them, in [postcard](https://postcard.jamesmunns.com): the codec that
/// a [`LogStore`](crate::LogStore) has by default.
///
/// `VERSION` is that of the application's own types (`D`, the node's): raise it when their bytes
/// change, for instance with a new field. The bytes say nothing of their type, so types that ask for
/// it when they are read (`serde_json::Value`, untagged enums, `skip_serializing_if`) can't be read
/// back: use a codec of your own for them. So do entries that aren't `Clone`.
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

/// `pos` and the layout of openraft's own types, as the tests have it in bytes.
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

/// Bytes that are left over belong to another type.
fn whole<T>((value, rest): (T, &[u8])) -> Result<T, CodecError> {
    match rest.len() {
        0 => Ok(value),
        count => Err(format!("{count} bytes are left over behind it").into()),
    }
}
