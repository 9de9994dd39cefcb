//! A store that is reopened before every call, so that all its state comes from files.

use std::{fmt::Debug, ops::RangeBounds, path::PathBuf, sync::Arc};

use highwater::raft::RaftOptions;
use openraft::{
    Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::state_machine::{NodeId, Types};

type Store = highwater_openraft09::LogStore<Types>;
type Stored<T = ()> = Result<T, StorageError<NodeId>>;

#[derive(Clone)]
pub(crate) struct Reopening {
    path: PathBuf,
    options: fn() -> RaftOptions,
    store: Arc<Mutex<Store>>,
}

impl Reopening {
    pub(crate) async fn new(path: PathBuf, options: fn() -> RaftOptions) -> Self {
        let store = Store::of_log(options().open(&path).await.unwrap()).unwrap();
        Reopening { path, options, store: Arc::new(Mutex::new(store)) }
    }

    async fn again(&self) -> OwnedMutexGuard<Store> {
        let mut store = Arc::clone(&self.store).lock_owned().await;
        store.close().await.unwrap();
        *store = Store::of_log((self.options)().open(&self.path).await.unwrap()).unwrap();
        store
    }
}

impl RaftLogReader<Types> for Reopening {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Stored<Vec<Entry<Types>>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.again().await.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Stored<Vec<Entry<Types>>> {
        self.again().await.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<Types> for Reopening {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Stored<LogState<Types>> {
        self.again().await.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<NodeId>) -> Stored {
        self.again().await.save_vote(vote).await
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<NodeId>>> {
        self.again().await.read_vote().await
    }

    async fn save_committed(&mut self, committed: Option<LogId<NodeId>>) -> Stored {
        self.again().await.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Stored<Option<LogId<NodeId>>> {
        self.again().await.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Stored
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        self.again().await.append(entries, callback).await
    }

    async fn truncate(&mut self, from: LogId<NodeId>) -> Stored {
        self.again().await.truncate(from).await
    }

    async fn purge(&mut self, upto: LogId<NodeId>) -> Stored {
        self.again().await.purge(upto).await
    }
}
