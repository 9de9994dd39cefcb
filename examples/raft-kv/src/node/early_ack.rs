//! A log store with the most common mistake: it acknowledges entries before they are synced.
//!
//! `chaos --power-cuts --sabotage ack-early` must find it, which shows that the chaos test works.

use std::{fmt::Debug, io, ops::RangeBounds, time::Duration};

use highwater::raft::Entries;
use highwater_openraft::{Codec, Postcard};
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
    type_config::alias::EntryOf,
};

use crate::{
    node::medium::Store,
    types::{LogId, Types, Vote},
};

/// The interval of syncs. Many databases sync in the background like this by default.
const SYNC_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct AcknowledgesEarly {
    store: Store,
}

impl AcknowledgesEarly {
    pub(crate) fn new(store: Store) -> Self {
        let log = store.group().log().clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SYNC_EVERY).await;
                if log.sync().await.is_err() {
                    return;
                }
            }
        });
        AcknowledgesEarly { store }
    }
}

impl RaftLogReader<Types> for AcknowledgesEarly {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<EntryOf<Types>>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.store.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.store.read_vote().await
    }
}

impl RaftLogStorage<Types> for AcknowledgesEarly {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        self.store.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Store {
        self.store.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.store.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.store.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.store.read_committed().await
    }

    /// The mistake: drops the ticket and acknowledges the entries without a sync.
    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Entries::new();
        for entry in entries {
            let encode = |to: &mut Vec<u8>| <Postcard as Codec<Types>>::encode_entry(&entry, to);
            batch.try_push_with(entry.log_id.index, 0, encode).map_err(io::Error::other)?;
        }
        drop(self.store.group().append(batch).await?);
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.store.truncate_after(last).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.store.purge(upto).await
    }
}
