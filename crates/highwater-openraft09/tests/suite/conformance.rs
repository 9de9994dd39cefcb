//! openraft's own suite: in memory, in files, with tiny segments, and reopened before every call.

use highwater::{Wal, raft::RaftOptions, storage::MemoryStorage};
use highwater_openraft09::LogStore;
use openraft::{
    StorageError,
    testing::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use crate::{
    reopening::Reopening,
    state_machine::{Applied, NodeId, Types},
};

type Store = LogStore<Types>;
type Built<S> = Result<(Option<TempDir>, S, Applied), StorageError<NodeId>>;

fn tiny() -> RaftOptions {
    let wal = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10);
    Store::options().wal(wal).tail_cache_bytes(0)
}

struct InMemory;

impl StoreBuilder<Types, Store, Applied, Option<TempDir>> for InMemory {
    async fn build(&self) -> Built<Store> {
        let log = Store::options().open_with(MemoryStorage::new()).await.unwrap();
        Ok((None, Store::of_log(log).unwrap(), Applied::default()))
    }
}

/// Builds each store in its own directory.
struct InFiles(fn() -> RaftOptions);

impl StoreBuilder<Types, Store, Applied, Option<TempDir>> for InFiles {
    async fn build(&self) -> Built<Store> {
        let directory = tempfile::tempdir().unwrap();
        let log = (self.0)().open(directory.path()).await.unwrap();
        Ok((Some(directory), Store::of_log(log).unwrap(), Applied::default()))
    }
}

impl StoreBuilder<Types, Reopening, Applied, Option<TempDir>> for InFiles {
    async fn build(&self) -> Built<Reopening> {
        let directory = tempfile::tempdir().unwrap();
        let store = Reopening::new(directory.path().to_owned(), self.0).await;
        Ok((Some(directory), store, Applied::default()))
    }
}

#[test]
fn openrafts_suite_passes_in_memory() {
    Suite::<Types, Store, _, _, _>::test_all(InMemory).unwrap();
}

#[test]
fn openrafts_suite_passes_in_files() {
    Suite::<Types, Store, _, _, _>::test_all(InFiles(Store::options)).unwrap();
}

#[test]
fn openrafts_suite_passes_with_tiny_segments() {
    Suite::<Types, Store, _, _, _>::test_all(InFiles(tiny)).unwrap();
}

#[test]
fn openrafts_suite_passes_with_reopening() {
    Suite::<Types, Reopening, _, _, _>::test_all(InFiles(tiny)).unwrap();
}
