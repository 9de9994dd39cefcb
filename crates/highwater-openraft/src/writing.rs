//! openraft's store. Every change is a record of the one log.

use std::io;

use highwater::raft::Entries;
use openraft::{
    LogState, OptionalSend, RaftTypeConfig,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
    type_config::alias::{LogIdOf, VoteOf},
};

use crate::{
    codec::Codec, completion::Completion, error::StoreError, memory::Batch, store::LogStore,
};

/// The size at which the entries of one call are split into batches. Far below the log's maximum.
const BATCH_BYTES: u64 = 8 << 20;

/// The maximum capacity reserved for entries that the iterator announces.
const COUNT_EXPECTED_MAX: usize = 4096;

/// The term passed to the log. The log does not need it, because the payload contains the log id.
const NO_TERM: u64 = 0;

impl<C: RaftTypeConfig, K: Codec<C>> LogStore<C, K> {
    /// Encodes entries until a batch is full, and caches them decoded. Returns an empty batch at
    /// the end.
    fn encode_batch(
        &self,
        entries: &mut impl Iterator<Item = C::Entry>,
    ) -> Result<Entries, StoreError> {
        let (mut batch, mut bytes) = (Entries::new(), 0u64);
        let mut cached = None;
        while bytes < BATCH_BYTES {
            let Some(entry) = entries.next() else { break };
            let (_, index) = entry.log_id_parts();
            let mut entry_bytes = 0;
            let encode = |to: &mut Vec<u8>| {
                K::encode_entry(&entry, to)?;
                entry_bytes = to.len() as u64;
                Ok(())
            };
            let added = batch.try_push_with(index, NO_TERM, encode);
            added.map_err(self.unencodable("append"))?;
            bytes = bytes.saturating_add(entry_bytes);
            if K::copier().is_some() {
                let more = entries.size_hint().0.saturating_add(1).min(COUNT_EXPECTED_MAX);
                cached.get_or_insert_with(|| Batch::new(index, more)).push(entry, entry_bytes);
            }
        }
        if let Some(cached) = cached {
            cached.cache_in(&mut batch);
        }
        Ok(batch)
    }
}

impl<C: RaftTypeConfig, K: Codec<C>> RaftLogStorage<C> for LogStore<C, K> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<C>> {
        let last = self.group.last_entry().await.map_err(self.failed("reading the last entry"))?;
        let purged = self.group.state().purged;
        let last_purged_log_id = purged.map(|purged| self.log_id(&purged.id)).transpose()?;
        let last_log_id = match last {
            Some(last) => Some(self.entry(last)?.log_id()),
            None => last_purged_log_id.clone(),
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    /// Saves the vote. It is durable when this returns. The flush is shared with all waiting tasks.
    async fn save_vote(&mut self, vote: &VoteOf<C>) -> io::Result<()> {
        let vote = self.encoded("save_vote", |to| K::encode_vote(vote, to))?;
        let ticket = self.group.set_vote(vote).await.map_err(self.failed("save_vote"))?;
        let synced = ticket.synced().await;
        Ok(synced.map_err(self.failed("save_vote: waiting until it is durable"))?)
    }

    /// Saves the committed id without waiting for the disk.
    ///
    /// The id is written and synced with the next change. If it survives a crash, all earlier
    /// entries have survived too.
    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> io::Result<()> {
        let committed = match committed {
            Some(id) => self.encoded("save_committed", |to| K::encode_log_id(&id, to))?,
            None => Vec::new(),
        };
        let set = self.group.set_committed(committed).await;
        Ok(set.map_err(self.failed("save_committed"))?)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<C>>> {
        let committed = self.group.state().committed.filter(|committed| !committed.is_empty());
        Ok(committed.map(|committed| self.log_id(&committed)).transpose()?)
    }

    /// Appends entries. They can be read when this returns.
    ///
    /// The callback is called when the entries are durable, in the order of the appends, or with an
    /// error. The call waits for room in memory, never for the disk.
    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> io::Result<()>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let completion = Completion::new(callback, self.group.id());
        let mut entries = entries.into_iter();
        let mut last = None;
        loop {
            let batch = match self.encode_batch(&mut entries) {
                Ok(batch) => batch,
                Err(error) => return completion.refuse(error),
            };
            if batch.is_empty() && last.is_some() {
                break;
            }
            match self.group.append(batch).await {
                Ok(ticket) => last = Some(ticket),
                Err(error) => return completion.refuse(self.failed("append")(error)),
            }
        }
        if let Some(ticket) = last {
            completion.on_durable(ticket);
        }
        Ok(())
    }

    /// Drops the entries after `last`. There is no need to wait, because every later append becomes
    /// durable only together with the truncation.
    async fn truncate_after(&mut self, last: Option<LogIdOf<C>>) -> io::Result<()> {
        let last = last.map(|id| id.index);
        drop(self.group.truncate_after(last).await.map_err(self.failed("truncate_after"))?);
        Ok(())
    }

    /// Purges entries. The files are removed in the background, after the purge is durable.
    async fn purge(&mut self, upto: LogIdOf<C>) -> io::Result<()> {
        let id = self.encoded("purge", |to| K::encode_log_id(&upto, to))?;
        let purged = self.group.purge(upto.index, NO_TERM, id).await;
        drop(purged.map_err(self.failed("purge"))?);
        Ok(())
    }
}
