//! A store that is reopened before every call, so that all its state comes from files.

use std::{fmt::Debug, io, ops::RangeBounds, sync::Arc};

use futures::{Stream, StreamExt, stream};
use highwater::raft::RaftOptions;
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, LeaderBoundedStreamError, RaftLogStorage},
    type_config::alias::{EntryOf, LeaderIdOf, LogIdOf, VoteOf},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    medium::{Medium, Store},
    state_machine::Types,
};

#[derive(Clone)]
pub(crate) struct Reopening {
    medium: Medium,
    options: fn() -> RaftOptions,
    store: Arc<Mutex<Store>>,
}

impl Reopening {
    pub(crate) async fn new(medium: Medium, options: fn() -> RaftOptions) -> io::Result<Self> {
        let store = Arc::new(Mutex::new(medium.open(options()).await?));
        Ok(Reopening { medium, options, store })
    }

    async fn again(&self) -> OwnedMutexGuard<Store> {
        let mut store = Arc::clone(&self.store).lock_owned().await;
        store.close().await.unwrap();
        *store = self.medium.open((self.options)()).await.unwrap();
        store
    }
}

impl RaftLogReader<Types> for Reopening {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<EntryOf<Types>>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.again().await.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<Types>>> {
        self.again().await.read_vote().await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<EntryOf<Types>>> {
        self.again().await.limited_get_log_entries(start, end).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<EntryOf<Types>>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let mut store = self.again().await;
        let all: Vec<_> = store.entries_stream(range).await.collect().await;
        stream::iter(all)
    }

    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderIdOf<Types>,
        range: RB,
    ) -> impl Stream<Item = Result<EntryOf<Types>, LeaderBoundedStreamError<Types>>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let mut store = self.again().await;
        let all: Vec<_> = store.leader_bounded_stream(leader, range).await.collect().await;
        stream::iter(all)
    }
}

impl RaftLogStorage<Types> for Reopening {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        self.again().await.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> io::Result<()> {
        self.again().await.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<Types>>) -> io::Result<()> {
        self.again().await.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<Types>>> {
        self.again().await.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        self.again().await.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> io::Result<()> {
        self.again().await.truncate_after(last).await
    }

    async fn purge(&mut self, upto: LogIdOf<Types>) -> io::Result<()> {
        self.again().await.purge(upto).await
    }
}
