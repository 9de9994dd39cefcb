//! Opening a Raft log with settings of one's own.

use std::path::Path;

use crate::{
    error::{Error, Result},
    raft::{log::RaftLog, open},
    storage::Storage,
    wal::{Options, Wal},
};

/// The settings with which a Raft log is opened.
///
/// ```no_run
/// # async fn example() -> highwater::Result<()> {
/// use highwater::{Wal, raft::RaftLog};
/// let wal = Wal::options().segment_bytes(64 << 20);
/// let log = RaftLog::options().wal(wal).codec(1).open("data/raft").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a log is opened with them"]
pub struct RaftOptions {
    pub(super) wal: Options,
    pub(super) codec: u64,
    pub(super) tail_cache_bytes: u64,
    pub(super) checkpoint_bytes: Option<u64>,
    pub(super) rewrite_above_bytes: Option<u64>,
}

impl Default for RaftOptions {
    fn default() -> Self {
        RaftOptions {
            wal: Wal::options(),
            codec: 0,
            tail_cache_bytes: 64 << 20,
            checkpoint_bytes: None,
            rewrite_above_bytes: None,
        }
    }
}

impl RaftOptions {
    /// The settings of the log underneath: sizes, preallocation, compression, its runtime. The
    /// default ones by default.
    pub fn wal(mut self, wal: Options) -> Self {
        self.wal = wal;
        self
    }

    /// A number that stands for how entries, votes and ids are encoded; 0 by default. It is kept in
    /// the log, and opening refuses a log that was written with another.
    pub fn codec(mut self, codec: u64) -> Self {
        self.codec = codec;
        self
    }

    /// How many bytes of the newest entries are kept in memory, of all groups together; 64 MiB by
    /// default. 0 keeps none: then every read goes to the files.
    ///
    /// Followers that keep up and the state machine read from there. A record of entries counts
    /// whole, with 64 bytes on top. Where [`Entries::keep`](crate::raft::Entries::keep) has given
    /// something in place of the bytes it is that which is kept, and not both.
    pub fn tail_cache_bytes(mut self, bytes: u64) -> Self {
        self.tail_cache_bytes = bytes;
        self
    }

    /// After how many bytes of log a new state record is written, once a segment has been sealed; a
    /// segment's worth by default. It is what opening has to read of the log, about. Larger states
    /// are written more rarely: at most an eighth of what is written is state.
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_bytes = Some(bytes);
        self
    }

    /// How large the log may grow before the entries of groups that lie idle or lag are written
    /// again at its end, so that its beginning can go; four segments by default, and never less
    /// than twice what is alive. So copying never writes more than is appended.
    pub fn rewrite_above_bytes(mut self, bytes: u64) -> Self {
        self.rewrite_above_bytes = Some(bytes);
        self
    }

    /// Opens the log in `directory`, creating both if they aren't there. What it tells from then on
    /// was synced before this resolves.
    ///
    /// # Errors
    ///
    /// As [`Options::open`]; [`Error::OtherCodec`];
    /// [`Error::BadRaftRecord`] if the log is none of Raft;
    /// [`Error::Corrupt`] for any damage of what was durable: it never
    /// opens as a shorter log.
    ///
    /// # Cancel safety
    ///
    /// As [`Options::open`].
    pub async fn open(self, directory: impl AsRef<Path>) -> Result<RaftLog> {
        self.check()?;
        let wal = self.wal.clone().open(directory).await?;
        open::open(wal, &self).await
    }

    /// Opens the log in any storage.
    ///
    /// # Errors
    ///
    /// As [`RaftOptions::open`].
    ///
    /// # Cancel safety
    ///
    /// As [`RaftOptions::open`].
    pub async fn open_with(self, storage: impl Storage) -> Result<RaftLog> {
        self.check()?;
        let wal = self.wal.clone().open_with(storage).await?;
        open::open(wal, &self).await
    }

    /// A node that forgets a vote may vote twice, and one that forgets entries may elect a leader
    /// that lacks committed ones: no Raft log is ever cut at damage.
    fn check(&self) -> Result<()> {
        if self.wal.cuts_damage() {
            return Err(Error::InvalidOption {
                option: "on_damage",
                value: 1,
                reason: "a Raft log is never cut: open it strictly, and let a damaged node rejoin",
            });
        }
        Ok(())
    }
}
