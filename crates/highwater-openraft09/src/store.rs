//! The store, and the ways to open it.

use std::{fmt, marker::PhantomData, path::Path};

use highwater::raft::{Error, RaftGroup, RaftLog, RaftOptions, Result};

use crate::codec::{Codec, Postcard};

/// The number of the group in a log with one store.
const ONLY_GROUP: u64 = 0;

/// The log store of one openraft node, over one group of a [`RaftLog`].
///
/// It is cheap to clone. All clones are the same store, and each of them can read.
pub struct LogStore<C, K = Postcard> {
    pub(crate) group: RaftGroup,
    pub(crate) read_bytes_max: u64,
    types: PhantomData<fn() -> (C, K)>,
}

impl<C, K> Clone for LogStore<C, K> {
    fn clone(&self) -> Self {
        let (group, read_bytes_max) = (self.group.clone(), self.read_bytes_max);
        LogStore { group, read_bytes_max, types: PhantomData }
    }
}

impl<C, K> fmt::Debug for LogStore<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").field("group", &self.group).finish_non_exhaustive()
    }
}

impl<C, K: Codec> LogStore<C, K> {
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
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::of_log(Self::options().open(directory).await?)
    }

    /// Returns the options of a log for stores of this codec.
    pub fn options() -> RaftOptions {
        RaftLog::options().codec(K::ID)
    }

    /// Returns the store of a log with one store: that of group 0.
    ///
    /// # Errors
    ///
    /// As [`of_group`](LogStore::of_group).
    pub fn of_log(log: RaftLog) -> Result<Self> {
        Self::of_group(log.group(ONLY_GROUP))
    }

    /// Returns the store of one group of a shared log. [`close`](LogStore::close) closes the log of
    /// all its groups.
    ///
    /// # Errors
    ///
    /// [`Error::OtherCodec`] if the log was opened with another codec than that of
    /// [`options`](LogStore::options).
    pub fn of_group(group: RaftGroup) -> Result<Self> {
        let (found, expected) = (group.log().codec(), K::ID);
        if found != expected {
            return Err(Error::OtherCodec { found, expected });
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
    /// down first.
    ///
    /// # Errors
    ///
    /// As [`RaftLog::close`].
    ///
    /// # Cancel safety
    ///
    /// As [`RaftLog::close`].
    pub async fn close(&self) -> Result<()> {
        self.group.log().close().await
    }
}
