//! Where a test's log is kept, and what tests say often.

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

/// Clones are the same place.
#[derive(Clone, Debug)]
pub(crate) enum Medium {
    Memory(MemoryStorage),
    Directory(PathBuf),
    Disk(Disk),
}

impl Medium {
    pub(crate) async fn open_log(&self, options: RaftOptions) -> highwater::Result<RaftLog> {
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

/// A log whose segments hold a handful of entries, and that reads all of them from its files.
pub(crate) fn tiny() -> RaftOptions {
    let wal = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10);
    Store::options().wal(wal).tail_cache_bytes(0)
}

pub(crate) fn log_id(term: u64, index: u64) -> LogIdOf<Types> {
    let leader = openraft::type_config::alias::LeaderIdOf::<Types>::new_committed(term, 1);
    LogIdOf::<Types>::new(leader, index)
}

/// An entry that tells by its value which one it is.
pub(crate) fn entry(term: u64, index: u64, value: impl ToString) -> EntryOf<Types> {
    let set = Set { key: format!("key {index}"), value: value.to_string() };
    EntryOf::<Types> { log_id: log_id(term, index), payload: EntryPayload::Normal(set) }
}

pub(crate) fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<EntryOf<Types>> {
    indexes.map(|index| entry(term, index, term)).collect()
}

/// Resolves with what the callback was called with; with an error if it never is.
pub(crate) type Called = tokio::sync::oneshot::Receiver<io::Result<()>>;

/// Appends, and gives what the callback will say.
pub(crate) async fn append<S: RaftLogStorage<Types>>(
    store: &mut S,
    entries: Vec<EntryOf<Types>>,
) -> io::Result<Called> {
    let (send, called) = Types::oneshot();
    store.append(entries, IOFlushed::signal(send)).await?;
    Ok(called)
}

/// Appends, and waits until it is durable.
pub(crate) async fn append_durably<S: RaftLogStorage<Types>>(
    store: &mut S,
    entries: Vec<EntryOf<Types>>,
) -> io::Result<()> {
    append(store, entries).await?.await.expect("the callback is called")
}
