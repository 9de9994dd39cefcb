//! Stores with one deliberate mistake each, which openraft's suite does not detect.

use std::{collections::BTreeMap, fmt::Debug, io, ops::RangeBounds};

use highwater_openraft::{Codec, Postcard};
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
    type_config::alias::{EntryOf, LogIdOf, VoteOf},
};

use crate::{
    medium::{Store, append},
    state_machine::Types,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    CallsBackBeforeDurability,
    VoteIsNotSynced,
    /// A vote is written after the entries that follow it.
    VoteBehindItsEntries,
    /// Entries are cached by their index, and truncated entries stay in the cache.
    ReadsWhatWasTruncated,
}

pub(crate) struct Doctored {
    store: Store,
    mistake: Mistake,
    held: Option<VoteOf<Types>>,
    cache: BTreeMap<u64, EntryOf<Types>>,
}

impl Doctored {
    pub(crate) fn new(store: Store, mistake: Mistake) -> Self {
        Doctored { store, mistake, held: None, cache: BTreeMap::new() }
    }

    async fn vote_without_sync(&self, vote: &VoteOf<Types>) {
        let mut bytes = Vec::new();
        <Postcard as Codec<Types>>::encode_vote(vote, &mut bytes).unwrap();
        drop(self.store.group().set_vote(bytes).await.unwrap());
    }

    async fn let_go(&mut self) {
        if let Some(vote) = self.held.take() {
            self.vote_without_sync(&vote).await;
        }
    }
}

impl RaftLogReader<Types> for Doctored {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<EntryOf<Types>>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        let first = self.store.group().state().first;
        let live = self.cache.range(bounds).filter(|(index, _)| **index >= first);
        match self.mistake {
            Mistake::ReadsWhatWasTruncated => Ok(live.map(|(_, entry)| entry.clone()).collect()),
            _ => self.store.try_get_log_entries(range).await,
        }
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<Types>>> {
        self.store.read_vote().await
    }
}

impl RaftLogStorage<Types> for Doctored {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        self.store.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Store {
        self.store.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> io::Result<()> {
        self.let_go().await;
        match self.mistake {
            Mistake::VoteIsNotSynced => self.vote_without_sync(vote).await,
            Mistake::VoteBehindItsEntries => self.held = Some(*vote),
            _ => self.store.save_vote(vote).await?,
        }
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<Types>>) -> io::Result<()> {
        self.let_go().await;
        self.store.save_committed(committed).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        self.cache.extend(entries.iter().map(|entry| (entry.log_id.index, entry.clone())));
        match self.mistake {
            Mistake::CallsBackBeforeDurability => {
                self.store.append(entries, IOFlushed::noop()).await?;
                callback.io_completed(Ok(()));
            }
            Mistake::VoteBehindItsEntries => {
                let called = append(&mut self.store, entries).await?;
                callback.io_completed(called.await.expect("the callback is called"));
            }
            _ => self.store.append(entries, callback).await?,
        }
        self.let_go().await;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> io::Result<()> {
        self.let_go().await;
        self.store.truncate_after(last).await
    }

    async fn purge(&mut self, upto: LogIdOf<Types>) -> io::Result<()> {
        self.let_go().await;
        self.store.purge(upto).await
    }
}
