//! What was done to a storage, as a test reads it.

/// The kinds of operations that faults are planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// [`Storage::create`](crate::storage::Storage::create).
    Create,
    /// [`Storage::open`](crate::storage::Storage::open).
    Open,
    /// [`Storage::remove`](crate::storage::Storage::remove).
    Remove,
    /// [`Storage::rename`](crate::storage::Storage::rename), by the name before.
    Rename,
    /// [`Storage::link`](crate::storage::Storage::link) and `link_from`, by the name before.
    Link,
    /// [`Storage::sync_dir`](crate::storage::Storage::sync_dir); the file's name is empty.
    SyncDir,
    /// [`StorageFile::read_at`](crate::storage::StorageFile::read_at).
    Read,
    /// [`StorageFile::write_at`](crate::storage::StorageFile::write_at).
    Write,
    /// [`StorageFile::write_at_nonblocking`](crate::storage::StorageFile::write_at_nonblocking).
    WriteNonblocking,
    /// `reserve` and `set_len` of a [`StorageFile`](crate::storage::StorageFile).
    Resize,
    /// `sync_data` and `sync_all` of a [`StorageFile`](crate::storage::StorageFile).
    Sync,
}

/// What was done, in order. Most are recorded when they have ended, and only if they succeeded;
/// syncs when they begin and when they end, so that the events never claim more order than there
/// was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the arguments of the calls")]
pub enum Event {
    Created {
        file: String,
    },
    Opened {
        file: String,
    },
    Removed {
        file: String,
    },
    Renamed {
        from: String,
        to: String,
    },
    Linked {
        from: String,
        to: String,
    },
    SyncDirBegan,
    SyncDirEnded {
        /// The index of the event with which the call began.
        begin: usize,
        ok: bool,
    },
    Read {
        file: String,
        offset: u64,
    },
    Wrote(Wrote),
    Resized {
        file: String,
        bytes: u64,
    },
    SyncBegan {
        file: String,
    },
    SyncEnded {
        file: String,
        /// The index of the event with which the call began.
        begin: usize,
        ok: bool,
    },
    /// A planned fault made the operation fail.
    Failed {
        op: Op,
        file: String,
    },
    /// What [`Faults::note`](crate::simulation::Faults::note) was given.
    Noted {
        note: u64,
    },
}

/// One write, whole or short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrote {
    /// The file's name.
    pub file: String,
    /// Where it was written, in bytes.
    pub offset: u64,
    /// How many bytes were.
    pub count: usize,
    /// The first bytes, 64 at most.
    pub head: Vec<u8>,
    /// Whether all bytes were zero.
    pub is_blank: bool,
    /// Whether it was a write that doesn't wait.
    pub is_nonblocking: bool,
}
