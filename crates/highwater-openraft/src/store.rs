//! The store, and the ways to open it.

use std::{fmt, io, marker::PhantomData, path::Path};

use highwater::raft::{Entry, Error, RaftGroup, RaftLog, RaftOptions};
use openraft::{
    RaftTypeConfig,
    entry::RaftEntry,
    type_config::alias::{EntryOf, LogIdOf},
};

use crate::{
    codec::{Codec, CodecError, Postcard},
    error::StoreError,
};

/// The number of the group in a log with one store.
const ONLY_GROUP: u64 = 0;

/// The log store of one openraft node, over one group of a [`RaftLog`].
///
/// It is cheap to clone. All clones are the same store, and each of them can read. Only one node at
/// a time may write to a group, as openraft does.
///
/// # Example
///
/// ```
/// # openraft::declare_raft_types!(pub Types: D = String, R = String);
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use highwater_openraft::LogStore;
/// use openraft::{RaftLogReader, Vote, storage::RaftLogStorage};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("raft");
/// let mut store = LogStore::<Types>::open(&path).await?;
/// store.save_vote(&Vote::new(2, 1)).await?;
/// store.close().await?;
///
/// let mut store = LogStore::<Types>::open(&path).await?;
/// assert_eq!(store.read_vote().await?, Some(Vote::new(2, 1)));
/// # Ok(()) }
/// ```
pub struct LogStore<C, K = Postcard> {
    pub(crate) group: RaftGroup,
    pub(crate) read_bytes_max: u64,
    types: PhantomData<fn() -> (C, K)>,
}

impl<C, K> Clone for LogStore<C, K> {
    fn clone(&self) -> Self {
        LogStore {
            group: self.group.clone(),
            read_bytes_max: self.read_bytes_max,
            types: PhantomData,
        }
    }
}

impl<C, K> fmt::Debug for LogStore<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").field("group", &self.group).finish_non_exhaustive()
    }
}

impl<C: RaftTypeConfig, K: Codec<C>> LogStore<C, K> {
    /// Opens the log of a single store in `directory` with the default options.
    ///
    /// Creates the directory and the log if they do not exist. All state that the store reports
    /// from then on was synced before this resolves.
    ///
    /// # Errors
    ///
    /// As [`RaftOptions::open`], above all for damage to durable data and for a log of another
    /// codec. A damaged log never opens as a shorter one.
    ///
    /// # Cancel safety
    ///
    /// As [`RaftOptions::open`].
    pub async fn open(directory: impl AsRef<Path>) -> io::Result<Self> {
        Self::of_log(Self::options().open(directory).await?)
    }

    /// Returns the options of a log for stores of this codec.
    ///
    /// Open the log with [`RaftOptions::open`], then create stores with
    /// [`of_group`](LogStore::of_group) or [`of_log`](LogStore::of_log).
    pub fn options() -> RaftOptions {
        RaftLog::options().codec(K::ID)
    }

    /// Returns the store of a log with one store: that of group 0.
    ///
    /// # Errors
    ///
    /// As [`of_group`](LogStore::of_group).
    pub fn of_log(log: RaftLog) -> io::Result<Self> {
        Self::of_group(log.group(ONLY_GROUP))
    }

    /// Returns the store of one group of a shared log. [`close`](LogStore::close) closes the log of
    /// all its groups.
    ///
    /// # Errors
    ///
    /// `InvalidData` with [`Error::OtherCodec`] if the log was opened with another codec than that
    /// of [`options`](LogStore::options).
    pub fn of_group(group: RaftGroup) -> io::Result<Self> {
        let (found, expected) = (group.log().codec(), K::ID);
        if found != expected {
            return Err(Error::OtherCodec { found, expected }.into());
        }
        Ok(LogStore { group, read_bytes_max: 2 << 20, types: PhantomData })
    }

    /// Sets the approximate size of the entries in one message to a follower.
    ///
    /// Default: 2 MiB. A message has at least one entry. A higher value needs fewer messages and
    /// more memory.
    #[must_use]
    pub fn read_bytes_max(mut self, bytes: u64) -> Self {
        self.read_bytes_max = bytes;
        self
    }

    /// Returns the store's group.
    #[must_use]
    pub fn group(&self) -> &RaftGroup {
        &self.group
    }

    /// Closes the log for all its groups.
    ///
    /// Syncs every change, calls every callback and releases the directory's lock. Shut the nodes
    /// down first. Closing a closed log does nothing.
    ///
    /// # Errors
    ///
    /// As [`RaftLog::close`].
    ///
    /// # Cancel safety
    ///
    /// As [`RaftLog::close`].
    pub async fn close(&self) -> io::Result<()> {
        Ok(self.group.log().close().await.map_err(self.failed("close"))?)
    }

    /// Adds the group and the operation to an error of the log.
    pub(crate) fn failed(
        &self,
        operation: &'static str,
    ) -> impl Fn(Error) -> StoreError + use<C, K> {
        let group = self.group.id();
        move |source| StoreError::Log { group, operation, source }
    }

    pub(crate) fn unencodable(
        &self,
        operation: &'static str,
    ) -> impl Fn(CodecError) -> StoreError + use<C, K> {
        let group = self.group.id();
        move |source| StoreError::Encode { group, operation, source: source.into() }
    }

    pub(crate) fn encoded(
        &self,
        operation: &'static str,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        encode(&mut bytes).map_err(self.unencodable(operation))?;
        Ok(bytes)
    }

    pub(crate) fn decoded<T>(
        &self,
        operation: &'static str,
        value: Result<T, CodecError>,
    ) -> Result<T, StoreError> {
        let group = self.group.id();
        value.map_err(|source| StoreError::Decode { group, operation, source: source.into() })
    }

    /// Decodes an entry. Checks that the entry contains its own index, because bytes of another
    /// codec may decode by chance.
    pub(crate) fn entry(&self, entry: Entry) -> Result<EntryOf<C>, StoreError> {
        let decoded = K::decode_entry(&entry.payload).and_then(|decoded| {
            let (_, index) = decoded.log_id_parts();
            match index == entry.index {
                true => Ok(decoded),
                false => Err(format!("entry {} contains index {index}", entry.index).into()),
            }
        });
        self.decoded("reading an entry", decoded)
    }

    pub(crate) fn log_id(&self, bytes: &[u8]) -> Result<LogIdOf<C>, StoreError> {
        self.decoded("reading a log id", K::decode_log_id(bytes))
    }
}
