//! openraft's traits. Every change is a record of the one log.

#![allow(clippy::result_large_err, reason = "openraft's own error")]

use std::{error::Error, fmt::Debug, io, ops::RangeBounds};

use highwater::raft::{AppendTicket, Entries, Entry};
use openraft::{
    AnyError, LogId, LogState, OptionalSend, RaftLogId, RaftLogReader, RaftTypeConfig,
    StorageError, StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};

use crate::{
    codec::{Codec, CodecError},
    store::LogStore,
};

/// The size at which the entries of one call are split into batches. Far below the log's maximum.
const BATCH_BYTES: usize = 8 << 20;

/// The term passed to the log. The log does not need it, because the payload contains the log id.
const NO_TERM: u64 = 0;

type Stored<C, T = ()> = Result<T, StorageError<<C as RaftTypeConfig>::NodeId>>;

fn write_failed<C: RaftTypeConfig>(error: impl Error + 'static) -> StorageError<C::NodeId> {
    StorageIOError::write_logs(AnyError::new(&error)).into()
}

fn read_failed<C: RaftTypeConfig>(error: impl Error + 'static) -> StorageError<C::NodeId> {
    StorageIOError::read_logs(AnyError::new(&error)).into()
}

fn vote_failed<C: RaftTypeConfig>(error: impl Error + 'static) -> StorageError<C::NodeId> {
    StorageIOError::write_vote(AnyError::new(&error)).into()
}

/// Marks an error of the codec or of the application's types.
fn codec_error(error: CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<C: RaftTypeConfig, K: Codec> LogStore<C, K> {
    fn entries(&self, entries: Vec<Entry>) -> Stored<C, Vec<C::Entry>> {
        entries.into_iter().map(|entry| self.entry(&entry)).collect()
    }

    /// Decodes an entry. Checks that the entry contains its own index, because bytes of another
    /// codec may decode by chance.
    fn entry(&self, entry: &Entry) -> Stored<C, C::Entry> {
        let decoded: C::Entry =
            K::decode(&entry.payload).map_err(|error| read_failed::<C>(codec_error(error)))?;
        let index = decoded.get_log_id().index;
        if index != entry.index {
            let message = format!("entry {} contains index {index}", entry.index);
            return Err(read_failed::<C>(codec_error(message.into())));
        }
        Ok(decoded)
    }

    fn log_id(&self, bytes: &[u8]) -> Stored<C, LogId<C::NodeId>> {
        K::decode(bytes).map_err(|error| read_failed::<C>(codec_error(error)))
    }

    fn encoded<T: serde::Serialize>(&self, value: &T) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        K::encode(value, &mut bytes).map_err(codec_error)?;
        Ok(bytes)
    }

    /// Appends the entries in batches and returns the ticket of the last batch.
    ///
    /// openraft may append entries that a snapshot has purged. Such entries are skipped, because
    /// they are never read again.
    async fn append_batches(
        &self,
        mut entries: impl Iterator<Item = C::Entry>,
    ) -> io::Result<AppendTicket> {
        let lowest = self.group.state().purged.map_or(0, |purged| purged.index.saturating_add(1));
        let mut last = None;
        loop {
            let (mut batch, mut bytes) = (Entries::new(), 0);
            while bytes < BATCH_BYTES {
                let Some(entry) = entries.next() else { break };
                let index = entry.get_log_id().index;
                if index < lowest {
                    continue;
                }
                let encode = |to: &mut Vec<u8>| {
                    K::encode(&entry, to)?;
                    bytes += to.len();
                    Ok(())
                };
                batch.try_push_with(index, NO_TERM, encode).map_err(codec_error)?;
            }
            match last {
                Some(ticket) if batch.is_empty() => return Ok(ticket),
                _ => last = Some(self.group.append(batch).await?),
            }
        }
    }
}

impl<C: RaftTypeConfig, K: Codec> RaftLogReader<C> for LogStore<C, K> {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Stored<C, Vec<C::Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        self.entries(self.group.read_all(bounds).await.map_err(read_failed::<C>)?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Stored<C, Vec<C::Entry>> {
        let read = self.group.read(start..end, self.read_bytes_max).await;
        self.entries(read.map_err(read_failed::<C>)?)
    }
}

impl<C: RaftTypeConfig, K: Codec> RaftLogStorage<C> for LogStore<C, K> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Stored<C, LogState<C>> {
        let last = self.group.last_entry().await.map_err(read_failed::<C>)?;
        let purged = self.group.state().purged;
        let last_purged_log_id = purged.map(|purged| self.log_id(&purged.id)).transpose()?;
        let last_log_id = match last {
            Some(last) => Some(self.entry(&last)?.get_log_id().clone()),
            None => last_purged_log_id.clone(),
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    /// Saves the vote. It is durable when this returns.
    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Stored<C> {
        let vote = self.encoded(vote).map_err(vote_failed::<C>)?;
        let ticket = self.group.set_vote(vote).await.map_err(vote_failed::<C>)?;
        ticket.synced().await.map_err(vote_failed::<C>)
    }

    async fn read_vote(&mut self) -> Stored<C, Option<Vote<C::NodeId>>> {
        let decoded = self.group.state().vote.map(|vote| K::decode(&vote)).transpose();
        decoded
            .map_err(|error| StorageIOError::read_vote(AnyError::new(&codec_error(error))).into())
    }

    /// Saves the committed id without waiting for the disk. The id is written and synced with the
    /// next change.
    async fn save_committed(&mut self, committed: Option<LogId<C::NodeId>>) -> Stored<C> {
        let encoded = committed.map(|id| self.encoded(&id)).transpose();
        let committed = encoded.map_err(write_failed::<C>)?.unwrap_or_default();
        self.group.set_committed(committed).await.map_err(write_failed::<C>)
    }

    async fn read_committed(&mut self) -> Stored<C, Option<LogId<C::NodeId>>> {
        let committed = self.group.state().committed.filter(|committed| !committed.is_empty());
        committed.map(|committed| self.log_id(&committed)).transpose()
    }

    /// Appends entries. They can be read when this returns.
    ///
    /// The callback is called once, when the entries are durable or with an error. openraft 0.9
    /// waits for the callback before its next step.
    async fn append<I>(&mut self, entries: I, callback: LogFlushed<C>) -> Stored<C>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        match self.append_batches(entries.into_iter()).await {
            Ok(ticket) => {
                ticket.on_durable(|outcome| {
                    callback.log_io_completed(outcome.map_err(io::Error::from));
                });
                Ok(())
            }
            Err(error) => {
                let failure = write_failed::<C>(io::Error::new(error.kind(), format!("{error:#}")));
                callback.log_io_completed(Err(error));
                Err(failure)
            }
        }
    }

    /// Drops the entries from `from` on. There is no need to wait, because every later append
    /// becomes durable only together with the truncation.
    async fn truncate(&mut self, from: LogId<C::NodeId>) -> Stored<C> {
        let truncated = self.group.truncate_after(from.index.checked_sub(1)).await;
        drop(truncated.map_err(write_failed::<C>)?);
        Ok(())
    }

    /// Purges entries. The files are removed in the background, after the purge is durable.
    async fn purge(&mut self, upto: LogId<C::NodeId>) -> Stored<C> {
        let id = self.encoded(&upto).map_err(write_failed::<C>)?;
        let purged = self.group.purge(upto.index, NO_TERM, id).await;
        drop(purged.map_err(write_failed::<C>)?);
        Ok(())
    }
}
