//! [`Event`]: one operation of a storage, as a test reads it.

/// The kinds of operations that can have faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// [`Storage::create`](crate::storage::Storage::create).
    Create,
    /// [`Storage::open`](crate::storage::Storage::open).
    Open,
    /// [`Storage::remove`](crate::storage::Storage::remove).
    Remove,
    /// [`Storage::rename`](crate::storage::Storage::rename), with the old name.
    Rename,
    /// [`Storage::link`](crate::storage::Storage::link) and `link_from`, with the old name.
    Link,
    /// [`Storage::sync_dir`](crate::storage::Storage::sync_dir), with an empty name.
    SyncDir,
    /// [`StorageFile::read_at`](crate::storage::StorageFile::read_at).
    Read,
    /// [`StorageFile::write_at`](crate::storage::StorageFile::write_at).
    Write,
    /// [`StorageFile::write_at_nonblocking`](crate::storage::StorageFile::write_at_nonblocking).
    WriteNonblocking,
    /// [`StorageFile::write_at_durably`](crate::storage::StorageFile::write_at_durably).
    WriteDurably,
    /// `reserve` and `set_len` of a [`StorageFile`](crate::storage::StorageFile).
    Resize,
    /// `sync_data` and `sync_all` of a [`StorageFile`](crate::storage::StorageFile).
    Sync,
}

/// A completed operation. Most operations are recorded after they succeeded. Syncs are recorded
/// when they begin and when they end, because other operations may run meanwhile.
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
    /// A fault made the operation fail.
    Failed {
        op: Op,
        file: String,
    },
    /// The argument of [`Faults::note`](crate::simulation::Faults::note).
    Noted {
        note: u64,
    },
}

/// One write, whole or short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrote {
    /// The file's name.
    pub file: String,
    /// The offset in bytes.
    pub offset: u64,
    /// The number of bytes written.
    pub count: usize,
    /// The first bytes, at most 64.
    pub head: Vec<u8>,
    /// Set if all bytes were zero.
    pub is_blank: bool,
    /// Set if it was a non-blocking write.
    pub is_nonblocking: bool,
    /// Set if it was a durable write.
    pub is_durable: bool,
}
