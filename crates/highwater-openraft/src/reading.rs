//! openraft's reader. Every clone of a store is a reader and reads all appended entries.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use highwater::raft::{Entry, Error};
use openraft::{
    OptionalSend, RaftLogReader, RaftTypeConfig,
    errors::LeaderChanged,
    storage::LeaderBoundedStreamError,
    type_config::alias::{EntryOf, LeaderIdOf, VoteOf},
    vote::RaftVote,
};

use crate::{codec::Codec, error::StoreError, memory::InMemory, store::LogStore};

/// Entries that the log held at one moment, without a gap.
enum Chunk<E> {
    InMemory(InMemory<E>),
    /// Entries read from the log, and the index after them.
    Read(Vec<E>, u64),
}

impl<E: Send + Sync + 'static> Chunk<E> {
    /// Returns the index after the last entry, if there are entries.
    fn next(&self) -> Option<u64> {
        match self {
            Chunk::InMemory(entries) => {
                let indexes = entries.indexes();
                (!indexes.is_empty()).then_some(indexes.end)
            }
            Chunk::Read(entries, next) => (!entries.is_empty()).then_some(*next),
        }
    }

    fn into_vec(self) -> Vec<E> {
        match self {
            Chunk::InMemory(entries) => entries.to_vec(),
            Chunk::Read(entries, _) => entries,
        }
    }

    fn into_stream(self) -> impl Stream<Item = E> + Send {
        match self {
            Chunk::InMemory(entries) => stream::iter(entries.into_copies()).left_stream(),
            Chunk::Read(entries, _) => stream::iter(entries).right_stream(),
        }
    }
}

impl<C: RaftTypeConfig, K: Codec<C>> LogStore<C, K> {
    /// Finds the unpurged entries of a range that are in memory.
    ///
    /// Returns `None` if the first of them is not in memory, or if the codec cannot copy entries.
    fn in_memory(&self, indexes: Range<u64>, bytes_max: u64) -> Option<InMemory<EntryOf<C>>> {
        InMemory::find(&self.group, indexes, bytes_max, K::copier()?)
    }

    /// Reads the entries of one message, from `start` on. Returns none if there are none yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::Purged`] if `start` is purged.
    async fn chunk(&self, start: u64, end: u64) -> Result<Chunk<EntryOf<C>>, StoreError> {
        let found = self.in_memory(start..end, self.read_bytes_max);
        if let Some(found) = found.filter(|found| found.indexes().start == start) {
            return Ok(Chunk::InMemory(found));
        }
        let read = match self.group.read(start..end, self.read_bytes_max).await {
            Err(Error::Purged { group, index, first }) => {
                return Err(StoreError::Purged { group, index, first });
            }
            read => read.map_err(self.failed("reading entries"))?,
        };
        let next = read.last().map_or(start, |last| last.index.saturating_add(1));
        Ok(Chunk::Read(self.entries(read)?, next))
    }

    /// Reads a chunk as [`chunk`](Self::chunk), from the first entry that is not purged.
    async fn first_chunk(&self, start: u64, end: u64) -> Result<Chunk<EntryOf<C>>, StoreError> {
        if let Some(found) = self.in_memory(start..end, self.read_bytes_max) {
            return Ok(Chunk::InMemory(found));
        }
        loop {
            match self.chunk(start.max(self.group.state().first), end).await {
                // Purged since `first` was read.
                Err(StoreError::Purged { .. }) => {}
                chunk => return chunk,
            }
        }
    }

    fn entries(&self, entries: Vec<Entry>) -> Result<Vec<EntryOf<C>>, StoreError> {
        entries.into_iter().map(|entry| self.entry(entry)).collect()
    }

    fn vote(&self) -> Result<Option<VoteOf<C>>, StoreError> {
        let vote = self.group.state().vote;
        vote.map(|vote| self.decoded("reading the vote", K::decode_vote(&vote))).transpose()
    }

    /// Streams entries in chunks, from the first that is not purged.
    ///
    /// `check` runs after each read, before its entries are yielded. An error ends the stream.
    async fn chunks<E: From<io::Error> + Send + 'static>(
        &self,
        (start, end): (u64, u64),
        check: impl Fn(&Self) -> Result<(), E> + Send + 'static,
    ) -> impl Stream<Item = Result<EntryOf<C>, E>> + Send + 'static {
        let read =
            self.first_chunk(start, end).await.map_err(|error| io::Error::from(error).into());
        let first = match read.and_then(|chunk| check(self).map(|()| chunk)) {
            Ok(first) => first,
            Err(error) => return stream::iter([Err(error)]).left_stream(),
        };
        // Mostly the first chunk has all entries.
        let next = first.next().filter(|next| *next < end);
        let rest = next.map(|next| self.clone().chunks_from((next, end), check));
        first.into_stream().map(Ok).chain(stream::iter(rest).flatten()).right_stream()
    }

    fn chunks_from<E: From<io::Error> + Send + 'static>(
        self,
        (next, end): (u64, u64),
        check: impl Fn(&Self) -> Result<(), E> + Send + 'static,
    ) -> impl Stream<Item = Result<EntryOf<C>, E>> + Send + 'static {
        let begin = (self, Some(next), check);
        let chunks = stream::try_unfold(begin, move |(store, next, check)| async move {
            let Some(next) = next.filter(|next| *next < end) else { return Ok(None) };
            let chunk = store.chunk(next, end).await.map_err(io::Error::from)?;
            check(&store)?;
            let next = chunk.next();
            Ok::<_, E>(Some((chunk.into_stream().map(Ok), (store, next, check))))
        });
        chunks.try_flatten()
    }
}

fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl<C: RaftTypeConfig, K: Codec<C>> RaftLogReader<C> for LogStore<C, K> {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<EntryOf<C>>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = half_open(&range);
        if let Some(found) = self.in_memory(start..end, u64::MAX).filter(|found| found.is_all) {
            return Ok(found.to_vec());
        }
        let entries = self.group.read_all(start..end).await;
        Ok(self.entries(entries.map_err(self.failed("reading entries"))?)?)
    }

    /// Returns the vote from memory. It may not be durable yet while [`save_vote`] waits.
    ///
    /// [`save_vote`]: openraft::storage::RaftLogStorage::save_vote
    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<C>>> {
        Ok(self.vote()?)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<EntryOf<C>>> {
        Ok(self.chunk(start, end).await?.into_vec())
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<EntryOf<C>>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.chunks(half_open(&range), |_| Ok(())).await
    }

    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderIdOf<C>,
        range: RB,
    ) -> impl Stream<Item = Result<EntryOf<C>, LeaderBoundedStreamError<C>>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // The log is truncated only under another vote, and votes only increase. So if the vote
        // after a read equals the vote before the first read, all entries read are this leader's.
        let check = move |store: &Self| match store.vote().map_err(io::Error::from)? {
            Some(vote) if *vote.leader_id() == leader && vote.is_committed() => Ok(()),
            vote => Err(LeaderBoundedStreamError::from(LeaderChanged::new(leader.clone(), vote))),
        };
        match check(self) {
            Ok(()) => self.chunks(half_open(&range), check).await.left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        }
    }
}
