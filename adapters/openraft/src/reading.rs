//! openraft's reader. Every clone of a store is one; what was appended is there for all of them.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use highwater::{Error, raft::Entry};
use openraft::{
    OptionalSend, RaftLogReader, RaftTypeConfig,
    errors::LeaderChanged,
    storage::LeaderBoundedStreamError,
    type_config::alias::{EntryOf, LeaderIdOf, VoteOf},
    vote::RaftVote,
};

use crate::{codec::Codec, error::StoreError, memory::InMemory, store::LogStore};

/// Entries of one moment, without a gap.
enum Chunk<E> {
    InMemory(InMemory<E>),
    /// From the log, up to that index.
    Read(Vec<E>, u64),
}

impl<E: Send + Sync + 'static> Chunk<E> {
    /// One past the last of them, if there are any.
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
    /// A range's entries that are in memory, from the first that isn't purged on; `None` if that one
    /// isn't, or if this codec's entries can't be copied.
    fn in_memory(&self, indexes: Range<u64>, bytes_max: u64) -> Option<InMemory<EntryOf<C>>> {
        InMemory::find(&self.group, indexes, bytes_max, K::copier()?)
    }

    /// So many entries as one message holds, from `start` on; none if there are none yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::Purged`] rather than a hole.
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

    /// As a chunk; but what is purged is left out.
    async fn first_chunk(&self, start: u64, end: u64) -> Result<Chunk<EntryOf<C>>, StoreError> {
        if let Some(found) = self.in_memory(start..end, self.read_bytes_max) {
            return Ok(Chunk::InMemory(found));
        }
        loop {
            match self.chunk(start.max(self.group.state().first), end).await {
                // Since it was looked at.
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

    /// Entries, a message's worth at a time, from the first that isn't purged on. `check` is asked
    /// after each read, before anything of it is given out. An error ends it.
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
        // Mostly there is nothing left to be read.
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

    /// From memory: it may be ahead of what is durable, while [`save_vote`] waits.
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
        // A log is only cut under another vote, and votes grow: if it is the same after a read as it
        // was before the first, all that was read is this leader's.
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
