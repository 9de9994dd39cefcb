//! The store, and how it is opened.

use std::{fmt, marker::PhantomData, path::Path};

use highwater::{
    Error, Result,
    raft::{RaftGroup, RaftLog, RaftOptions},
};

use crate::codec::{Codec, Postcard};

/// The group of a store that has a log of its own.
const ONLY_GROUP: u64 = 0;

/// The log store of one openraft node, over one group of a [`RaftLog`]. A cheap handle: clones are the
/// same store, and each of them can read.
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
    /// Opens a log that is all this store's, in `directory`, with the default settings; creates both if
    /// they aren't there. What the store tells from then on was synced before this resolves.
    ///
    /// # Errors
    ///
    /// As [`RaftOptions::open`]: above all damage to what was durable, which never opens as a shorter
    /// log, and a log of another codec.
    ///
    /// # Cancel safety
    ///
    /// As [`RaftOptions::open`].
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::of_log(Self::options().open(directory).await?)
    }

    /// The settings of a log for stores of this codec.
    pub fn options() -> RaftOptions {
        RaftLog::options().codec(K::ID)
    }

    /// The store of a log that it has for itself: that of group 0.
    ///
    /// # Errors
    ///
    /// As [`of_group`](LogStore::of_group).
    pub fn of_log(log: RaftLog) -> Result<Self> {
        Self::of_group(log.group(ONLY_GROUP))
    }

    /// The store of one group of a log that many share. [`close`](LogStore::close) closes the log of
    /// all of them.
    ///
    /// # Errors
    ///
    /// [`Error::OtherCodec`] if the log was not opened with [`options`](LogStore::options), or with
    /// that codec.
    pub fn of_group(group: RaftGroup) -> Result<Self> {
        let (found, expected) = (group.log().codec(), K::ID);
        if found != expected {
            return Err(Error::OtherCodec { found, expected });
        }
        Ok(LogStore { group, read_bytes_max: 2 << 20, types: PhantomData })
    }

    /// How many bytes of entries one message to a follower holds, about: 2 MiB by default. One entry
    /// is sent in any case.
    #[must_use]
    pub fn read_bytes_max(mut self, bytes: u64) -> Self {
        self.read_bytes_max = bytes;
        self
    }

    /// The group that it is the store of.
    #[must_use]
    pub fn group(&self) -> &RaftGroup {
        &self.group
    }

    /// Ends the log that the store is in, for all its groups: what was ordered is synced, every
    /// callback is called, the lock is freed. Shut the nodes down before.
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
