//! The storage of a test's log, and helpers.

use std::{io, path::PathBuf};

use highwater::{
    Wal,
    raft::{RaftLog, RaftOptions},
    simulation::Disk,
    storage::MemoryStorage,
};
use openraft::{
    EntryPayload,
    storage::{IOFlushed, RaftLogStorage},
    type_config::{
        TypeConfigExt,
        alias::{EntryOf, LogIdOf},
    },
    vote::RaftLeaderIdExt,
};

use crate::state_machine::{Set, Types};

pub(crate) type Store = highwater_openraft::LogStore<Types>;

/// Clones share the storage.
#[derive(Clone, Debug)]
pub(crate) enum Medium {
    Memory(MemoryStorage),
    Directory(PathBuf),
    Disk(Disk),
}

impl Medium {
    pub(crate) async fn open_log(&self, options: RaftOptions) -> highwater::raft::Result<RaftLog> {
        match self {
            Medium::Memory(storage) => options.open_with(storage.clone()).await,
            Medium::Directory(path) => options.open(path).await,
            Medium::Disk(disk) => options.open_with(disk.clone()).await,
        }
    }

    pub(crate) async fn open(&self, options: RaftOptions) -> io::Result<Store> {
        Store::of_log(self.open_log(options).await?)
    }
}

/// Small segments and no cache, so that every read uses the files.
pub(crate) fn tiny() -> RaftOptions {
    let wal = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10);
    Store::options().wal(wal).tail_cache_bytes(0)
}

pub(crate) fn log_id(term: u64, index: u64) -> LogIdOf<Types> {
    let leader = openraft::type_config::alias::LeaderIdOf::<Types>::new_committed(term, 1);
    LogIdOf::<Types>::new(leader, index)
}

/// Returns an entry whose value identifies it.
pub(crate) fn entry(term: u64, index: u64, value: impl ToString) -> EntryOf<Types> {
    let set = Set { key: format!("key {index}"), value: value.to_string() };
    EntryOf::<Types> { log_id: log_id(term, index), payload: EntryPayload::Normal(set) }
}

pub(crate) fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<EntryOf<Types>> {
    indexes.map(|index| entry(term, index, term)).collect()
}

/// Resolves with the outcome of the callback, or with an error if it is never called.
pub(crate) type Called = tokio::sync::oneshot::Receiver<io::Result<()>>;

/// Appends entries and returns the future outcome of the callback.
pub(crate) async fn append<S: RaftLogStorage<Types>>(
    store: &mut S,
    entries: Vec<EntryOf<Types>>,
) -> io::Result<Called> {
    let (send, called) = Types::oneshot();
    store.append(entries, IOFlushed::signal(send)).await?;
    Ok(called)
}

/// Appends entries and waits until they are durable.
pub(crate) async fn append_durably<S: RaftLogStorage<Types>>(
    store: &mut S,
    entries: Vec<EntryOf<Types>>,
) -> io::Result<()> {
    append(store, entries).await?.await.expect("the callback is called")
}
