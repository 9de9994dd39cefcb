//! The options of a Raft log.

use crate::wal::{Options, Wal};

/// The options to open a Raft log with.
///
/// ```no_run
/// # async fn example() -> highwater::raft::Result<()> {
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
    /// Sets the options of the log underneath: sizes, preallocation, compression, runtime.
    ///
    /// Default: the defaults of [`Options`]. [`OnDamage`](crate::OnDamage) must stay strict.
    pub fn wal(mut self, wal: Options) -> Self {
        self.wal = wal;
        self
    }

    /// Sets the number of the codec that the caller uses for entries, votes and ids.
    ///
    /// The number is stored in the log. Opening refuses a log with another number, so that a
    /// program never decodes bytes of another format. Default: 0. Choose a new number whenever the
    /// encoding changes.
    pub fn codec(mut self, codec: u64) -> Self {
        self.codec = codec;
        self
    }

    /// Sets the size of the cache of the newest entries, shared by all groups.
    ///
    /// Default: 64 MiB. With 0, every read goes to the files. Raise it if followers or the state
    /// machine often lag behind the cached entries. The cost is that much memory. A record of
    /// entries counts with its length plus 64 bytes. If
    /// [`cache_decoded`](crate::raft::Entries::cache_decoded) supplied a value, the cache holds the
    /// value instead of the bytes.
    pub fn tail_cache_bytes(mut self, bytes: u64) -> Self {
        self.tail_cache_bytes = bytes;
        self
    }

    /// Sets how many bytes are appended between two checkpoints.
    ///
    /// A checkpoint is written when a segment has been sealed and that many bytes were appended
    /// since the last one. Opening reads about that many bytes. Default: the size of a segment. A
    /// lower value makes opening faster and writes more. Checkpoints never exceed about 1/8 of the
    /// bytes written: a large one is written less often.
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_bytes = Some(bytes);
        self
    }

    /// Sets the log size above which old live entries are rewritten at the end.
    ///
    /// Idle groups keep old segments alive. Rewriting their entries lets those segments be removed.
    /// Default: four segments. The limit is never below twice the live bytes, so that rewriting
    /// never writes more than was appended. A lower value saves disk space and rewrites more.
    pub fn rewrite_above_bytes(mut self, bytes: u64) -> Self {
        self.rewrite_above_bytes = Some(bytes);
        self
    }
}
