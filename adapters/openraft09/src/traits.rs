//! openraft's traits: every change is one record of the log's one stream.

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

/// Entries of one call are ordered together up to so many bytes: far below what a batch of the log
/// may have.
const BATCH_BYTES: usize = 8 << 20;

/// For an entry's term, which is in its log id and that in its payload.
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

/// Neither the log nor the device is at fault, but the codec or the application's types.
fn by_codec(error: CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<C: RaftTypeConfig, K: Codec> LogStore<C, K> {
    fn entries(&self, entries: Vec<Entry>) -> Stored<C, Vec<C::Entry>> {
        entries.into_iter().map(|entry| self.entry(&entry)).collect()
    }

    /// That an entry says itself where it stands is checked: another codec's bytes may happen to
    /// decode.
    fn entry(&self, entry: &Entry) -> Stored<C, C::Entry> {
        let decoded: C::Entry =
            K::decode(&entry.payload).map_err(|error| read_failed::<C>(by_codec(error)))?;
        let index = decoded.get_log_id().index;
        if index != entry.index {
            let message = format!("entry {} says that it is {index}", entry.index);
            return Err(read_failed::<C>(by_codec(message.into())));
        }
        Ok(decoded)
    }

    fn log_id(&self, bytes: &[u8]) -> Stored<C, LogId<C::NodeId>> {
        K::decode(bytes).map_err(|error| read_failed::<C>(by_codec(error)))
    }

    fn encoded<T: serde::Serialize>(&self, value: &T) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        K::encode(value, &mut bytes).map_err(by_codec)?;
        Ok(bytes)
    }

    /// Orders the entries, in batches; the ticket is that of the last. openraft may give entries below
    /// what is purged by a snapshot: nobody asks for them again.
    async fn order(&self, mut entries: impl Iterator<Item = C::Entry>) -> io::Result<AppendTicket> {
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
                batch.try_push_with(index, NO_TERM, encode).map_err(by_codec)?;
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

    /// Durable when this returns.
    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Stored<C> {
        let vote = self.encoded(vote).map_err(vote_failed::<C>)?;
        let ticket = self.group.set_vote(vote).await.map_err(vote_failed::<C>)?;
        ticket.synced().await.map_err(vote_failed::<C>)
    }

    async fn read_vote(&mut self) -> Stored<C, Option<Vote<C::NodeId>>> {
        let decoded = self.group.state().vote.map(|vote| K::decode(&vote)).transpose();
        decoded.map_err(|error| StorageIOError::read_vote(AnyError::new(&by_codec(error))).into())
    }

    /// Never waits for the disk: it is written and synced with what comes next.
    async fn save_committed(&mut self, committed: Option<LogId<C::NodeId>>) -> Stored<C> {
        let encoded = committed.map(|id| self.encoded(&id)).transpose();
        let committed = encoded.map_err(write_failed::<C>)?.unwrap_or_default();
        self.group.set_committed(committed).await.map_err(write_failed::<C>)
    }

    async fn read_committed(&mut self) -> Stored<C, Option<LogId<C::NodeId>>> {
        let committed = self.group.state().committed.filter(|committed| !committed.is_empty());
        committed.map(|committed| self.log_id(&committed)).transpose()
    }

    /// The entries can be read when this returns; the callback is called once, when they are durable
    /// or with an error. openraft 0.9 waits for it before it does anything else.
    async fn append<I>(&mut self, entries: I, callback: LogFlushed<C>) -> Stored<C>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        match self.order(entries.into_iter()).await {
            Ok(ticket) => {
                ticket.on_durable(|outcome| {
                    callback.log_io_completed(outcome.map_err(io::Error::from));
                });
                Ok(())
            }
            Err(error) => {
                let told = write_failed::<C>(io::Error::new(error.kind(), error.to_string()));
                callback.log_io_completed(Err(error));
                Err(told)
            }
        }
    }

    /// A record that overrides the entries from `from` on. Nobody waits: what is appended next is
    /// durable only with it.
    async fn truncate(&mut self, from: LogId<C::NodeId>) -> Stored<C> {
        let truncated = self.group.truncate_after(from.index.checked_sub(1)).await;
        drop(truncated.map_err(write_failed::<C>)?);
        Ok(())
    }

    /// A record; the files go in the background, when it is durable.
    async fn purge(&mut self, upto: LogId<C::NodeId>) -> Stored<C> {
        let id = self.encoded(&upto).map_err(write_failed::<C>)?;
        let purged = self.group.purge(upto.index, NO_TERM, id).await;
        drop(purged.map_err(write_failed::<C>)?);
        Ok(())
    }
}
