//! openraft's own suite: in memory, in files, with tiny segments, and reopened before every call.

use highwater::{raft::RaftOptions, storage::MemoryStorage};
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use crate::{
    medium::{Medium, Store, tiny},
    reopening::Reopening,
    state_machine::{Keys, Types},
};

/// Builds stores in memory, or each in its own directory.
struct Builder {
    is_in_files: bool,
    options: fn() -> RaftOptions,
}

impl Builder {
    fn medium(&self) -> (Medium, Option<TempDir>) {
        if self.is_in_files {
            let directory = tempfile::tempdir().unwrap();
            (Medium::Directory(directory.path().to_owned()), Some(directory))
        } else {
            (Medium::Memory(MemoryStorage::new()), None)
        }
    }
}

impl StoreBuilder<Types, Store, Keys, Option<TempDir>> for Builder {
    async fn build(&self) -> Result<(Option<TempDir>, Store, Keys), StorageError<Types>> {
        let (medium, directory) = self.medium();
        let store = medium.open((self.options)()).await.unwrap();
        Ok((directory, store, Keys::default()))
    }
}

impl StoreBuilder<Types, Reopening, Keys, Option<TempDir>> for Builder {
    async fn build(&self) -> Result<(Option<TempDir>, Reopening, Keys), StorageError<Types>> {
        let (medium, directory) = self.medium();
        let store = Reopening::new(medium, self.options).await.unwrap();
        Ok((directory, store, Keys::default()))
    }
}

// The suite sleeps after each purge. A paused clock skips the sleep, but not during file
// operations.

#[tokio::test(start_paused = true)]
async fn openrafts_suite_passes_in_memory() {
    let builder = Builder { is_in_files: false, options: Store::options };
    Suite::<Types, Store, _, _, _>::test_all(builder).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn openrafts_suite_passes_in_files() {
    let builder = Builder { is_in_files: true, options: Store::options };
    Suite::<Types, Store, _, _, _>::test_all(builder).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn openrafts_suite_passes_with_tiny_segments() {
    let builder = Builder { is_in_files: true, options: tiny };
    Suite::<Types, Store, _, _, _>::test_all(builder).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn openrafts_suite_passes_with_reopening() {
    let builder = Builder { is_in_files: true, options: tiny };
    Suite::<Types, Reopening, _, _, _>::test_all(builder).await.unwrap();
}
