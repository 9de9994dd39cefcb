//! openraft's reader. Every clone of a store is one; what was appended is there for all of them.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use highwater::{Error, raft::Entry};
use openraft::{
    OptionalSend, RaftLogReader, RaftTypeConfig,
    entry::RaftEntry,
    errors::LeaderChanged,
    storage::LeaderBoundedStreamError,
    type_config::alias::{EntryOf, LeaderIdOf, VoteOf},
    vote::RaftVote,
};

use crate::{codec::Codec, error::StoreError, store::LogStore};

impl<C: RaftTypeConfig, K: Codec<C>> LogStore<C, K> {
    /// So many entries as one message holds, from `start` on; none if there are none yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::Purged`] rather than a hole.
    async fn chunk(&self, start: u64, end: u64) -> Result<Vec<EntryOf<C>>, StoreError> {
        let read = match self.group.read(start..end, self.read_bytes_max).await {
            Err(Error::Purged { group, index, first }) => {
                return Err(StoreError::Purged { group, index, first });
            }
            read => read.map_err(self.failed("reading entries"))?,
        };
        self.entries(read)
    }

    /// As a chunk; but what is purged is left out.
    async fn first_chunk(&self, start: u64, end: u64) -> Result<Vec<EntryOf<C>>, StoreError> {
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
    fn chunks<E: From<io::Error> + Send + 'static>(
        &self,
        (start, end): (u64, u64),
        check: impl Fn(&Self) -> Result<(), E> + Send + 'static,
    ) -> impl Stream<Item = Result<EntryOf<C>, E>> + Send + 'static {
        let begin = (self.clone(), None, check);
        let chunks = stream::try_unfold(begin, move |(store, next, check)| async move {
            let read = match next {
                Some(next) => store.chunk(next, end).await,
                None => store.first_chunk(start, end).await,
            };
            let entries = read.map_err(io::Error::from)?;
            check(&store)?;
            let Some(last) = entries.last() else { return Ok(None) };
            let next = last.log_id_parts().1.saturating_add(1);
            let chunk = stream::iter(entries.into_iter().map(Ok));
            Ok::<_, E>(Some((chunk, (store, Some(next), check))))
        });
        chunks.try_flatten().boxed()
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
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        let entries = self.group.read_all(bounds).await;
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
        Ok(self.chunk(start, end).await?)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<EntryOf<C>>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.chunks(half_open(&range), |_| Ok(()))
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
            Ok(()) => self.chunks(half_open(&range), check).left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        }
    }
}
