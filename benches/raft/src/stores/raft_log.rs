//! raft-log, embedded as its own users do: behind a mutex, with openraft's callback as the callback
//! of a flush.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
    type_config::alias::{EntryOf, LogIdOf, VoteOf},
};
use raft_log::{Callback, Config, RaftLog, api::raft_log_writer::RaftLogWriter};
use tokio::sync::oneshot;

use crate::types::{Medium, Types, Written};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LogTypes;

impl raft_log::Types for LogTypes {
    /// The leader's term and node, and the index.
    type LogId = ((u64, u64), u64);
    type LogPayload = Vec<u8>;
    type Vote = ((u64, u64), u64);
    type Callback = Completion;
    type UserData = ();

    fn log_index(id: &Self::LogId) -> u64 {
        id.1
    }

    fn payload_size(payload: &Vec<u8>) -> u64 {
        payload.len() as u64
    }
}

enum Completion {
    Append(IOFlushed<Types>),
    Vote(oneshot::Sender<io::Result<()>>),
}

impl Callback for Completion {
    fn send(self, outcome: Result<(), io::Error>) {
        match self {
            Completion::Append(callback) => callback.io_completed(outcome),
            Completion::Vote(sender) => drop(sender.send(outcome)),
        }
    }
}

#[derive(Clone)]
pub(crate) struct RaftLogStore(Arc<Mutex<RaftLogState>>);

struct RaftLogState {
    log: RaftLog<LogTypes>,
    /// openraft's values, kept in memory because the bench never reopens a store.
    vote: Option<VoteOf<Types>>,
    last: Option<LogIdOf<Types>>,
    purged: Option<LogIdOf<Types>>,
}

impl RaftLogStore {
    fn state(&self) -> MutexGuard<'_, RaftLogState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct RaftLogMedium(RaftLogStore);

impl Medium for RaftLogMedium {
    type Store = RaftLogStore;
    /// The time that a flush waits for more entries; `None` is raft-log's default.
    type Options = Option<Duration>;

    async fn open(at: &Path, wait: &Option<Duration>) -> io::Result<Self> {
        std::fs::create_dir_all(at)?;
        let mut config = Config::new(at.display());
        config.wal.flush_batch_wait = *wait;
        let log = RaftLog::open(Arc::new(config))?;
        let state = RaftLogState { log, vote: None, last: None, purged: None };
        Ok(RaftLogMedium(RaftLogStore(Arc::new(Mutex::new(state)))))
    }

    fn store(&self) -> RaftLogStore {
        self.0.clone()
    }

    fn written(&self) -> Option<Written> {
        let metrics = self.0.state().log.stat().flush_metrics;
        Some(Written { sync_count: metrics.sync_batch_count, bytes: metrics.write_bytes })
    }
}

fn id(id: &LogIdOf<Types>) -> ((u64, u64), u64) {
    let leader = id.committed_leader_id();
    ((leader.term, leader.node_id), id.index)
}

impl RaftLogReader<Types> for RaftLogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<EntryOf<Types>>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let state = self.state();
        let entry = |read: io::Result<(_, Vec<u8>)>| {
            read.and_then(|(_, bytes)| postcard::from_bytes(&bytes).map_err(io::Error::other))
        };
        state.log.read(from, end).map(entry).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<Types>>> {
        Ok(self.state().vote)
    }
}

impl RaftLogStorage<Types> for RaftLogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let state = self.state();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> io::Result<()> {
        let (sender, saved) = oneshot::channel();
        {
            let mut state = self.state();
            let leader = vote.leader_id;
            let saved = ((leader.term, leader.node_id), u64::from(vote.committed));
            state.log.save_vote(saved)?;
            state.log.flush(true, Some(Completion::Vote(sender)))?;
            state.vote = Some(*vote);
        }
        saved.await.map_err(io::Error::other)?
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<Types>>) -> io::Result<()> {
        if let Some(committed) = committed {
            self.state().log.commit(id(&committed))?;
        }
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut state = self.state();
        let mut batch = Vec::new();
        for entry in entries {
            state.last = Some(entry.log_id);
            let bytes = postcard::to_stdvec(&entry).map_err(io::Error::other)?;
            batch.push((id(&entry.log_id), bytes));
        }
        state.log.append(batch)?;
        state.log.flush(true, Some(Completion::Append(callback)))
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> io::Result<()> {
        let mut state = self.state();
        state.log.truncate(last.map_or(0, |id| id.index + 1))?;
        state.last = last;
        Ok(())
    }

    async fn purge(&mut self, upto: LogIdOf<Types>) -> io::Result<()> {
        let mut state = self.state();
        state.log.purge(id(&upto))?;
        state.purged = Some(upto);
        state.last = state.last.max(Some(upto));
        Ok(())
    }
}
