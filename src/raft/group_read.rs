//! The calls that read a group.

use std::ops::{Bound, Range, RangeBounds};

use futures::{Stream, stream};

use crate::raft::{
    decoded::DecodedEntries,
    entry::Entry,
    error::{Error, Result},
    group::RaftGroup,
    read,
};

/// The size of one read of a stream.
const STREAM_BYTES: u64 = 1 << 20;

impl RaftGroup {
    /// Reads entries from memory, as [`read`](RaftGroup::read), without waiting.
    ///
    /// Returns `None` if the first entry is not in memory. Ends before a later entry that is not in
    /// memory, so the result may be a part of the range.
    ///
    /// # Errors
    ///
    /// [`Error::Purged`] if the range begins below the first entry.
    pub fn try_read(&self, indexes: Range<u64>, bytes_max: u64) -> Result<Option<Vec<Entry>>> {
        read::read_cached(&self.store, &self.group, indexes, bytes_max)
    }

    /// Reads the entries of a range of indexes, up to the last entry.
    ///
    /// Entries that are not durable yet are included. The read ends before the payloads exceed
    /// `bytes_max`, but returns at least one entry if there is one. The result is the group's
    /// entries at one moment; if the group is truncated in between, the result may end earlier.
    ///
    /// Cached entries are returned without waiting; the others are read from the files, with few
    /// reads.
    ///
    /// # Errors
    ///
    /// [`Error::Purged`] if the range begins below the first entry;
    /// [`Corrupt`](crate::Error::Corrupt), [`Io`](crate::Error::Io),
    /// [`Closed`](crate::Error::Closed); [`Error::BadRecord`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only reads.
    pub async fn read(&self, indexes: Range<u64>, bytes_max: u64) -> Result<Vec<Entry>> {
        read::read(&self.store, &self.group, indexes, bytes_max).await
    }

    /// Returns cached decoded values of the entries of a range, without waiting.
    ///
    /// [`Entries::cache_decoded`](crate::raft::Entries::cache_decoded) has set the values. They
    /// begin at the first entry of the range and have no gap. All are of one moment. The result
    /// ends when the payloads reach `bytes_max`, but has at least one value if the first entry has
    /// one. Use [`read`](RaftGroup::read) for the other entries.
    #[must_use]
    pub fn decoded(&self, indexes: Range<u64>, bytes_max: u64) -> DecodedEntries {
        let state = self.group.lock();
        let start = indexes.start.max(state.first);
        let indexes = start..indexes.end.min(state.next).max(start);
        let parts = match indexes.is_empty() {
            true => Vec::new(),
            false => self.store.cache.decoded(state.index.parts(indexes.clone()), bytes_max),
        };
        DecodedEntries { indexes, parts }
    }

    /// Reads all entries of a range of indexes that the group holds.
    ///
    /// Unlike [`read`](RaftGroup::read), this call accepts a range that begins below the first
    /// entry, and never ends early. It returns the entries of one moment: if the group is purged or
    /// truncated in between, the call reads again.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::Error::Corrupt), [`Io`](crate::Error::Io),
    /// [`Closed`](crate::Error::Closed); [`Error::BadRecord`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only reads.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::raft::Result<()> {
    /// use highwater::{raft::{Entries, RaftLog}, storage::MemoryStorage};
    /// let group = RaftLog::options().open_with(MemoryStorage::new()).await?.group(1);
    /// let mut entries = Entries::new();
    /// (1..=9).for_each(|index| entries.push(index, 1, b"set x"));
    /// group.append(entries).await?.synced().await?;
    /// group.purge(3, 1, "").await?.synced().await?;
    /// let indexes: Vec<u64> = group.read_all(..7).await?.iter().map(|entry| entry.index).collect();
    /// assert_eq!(indexes, [4, 5, 6]);
    /// # Ok(()) }
    /// ```
    pub async fn read_all(&self, indexes: impl RangeBounds<u64>) -> Result<Vec<Entry>> {
        let start = match indexes.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match indexes.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        loop {
            let first = self.group.lock().first.max(start);
            let entries = match self.read(first..end, u64::MAX).await {
                // Purged since `first` was read.
                Err(Error::Purged { .. }) => continue,
                read => read?,
            };
            // A purge or a truncation may have ended the read before the last entry.
            let next = entries.last().map_or(first, |last| last.index.saturating_add(1));
            if next >= end.min(self.group.lock().next) {
                return Ok(entries);
            }
        }
    }

    /// Reads the last entry, or `None` if there are no entries.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::Error::Corrupt), [`Io`](crate::Error::Io),
    /// [`Closed`](crate::Error::Closed); [`Error::BadRecord`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only reads.
    pub async fn last_entry(&self) -> Result<Option<Entry>> {
        loop {
            let next = self.group.lock().next;
            let Some(last) = next.checked_sub(1) else { return Ok(None) };
            match self.read(last..next, u64::MAX).await {
                // The entry was purged in between. Then another entry is the last, or there is
                // none.
                Err(Error::Purged { .. }) if self.group.lock().is_empty() => return Ok(None),
                Err(Error::Purged { .. }) => {}
                read => match read?.pop() {
                    Some(entry) => return Ok(Some(entry)),
                    None if self.group.lock().is_empty() => return Ok(None),
                    None => {}
                },
            }
        }
    }

    /// Streams the entries of a range of indexes, in reads of about 1 MiB.
    ///
    /// The stream ends after the last entry that the group holds at that time, or with an error.
    pub fn stream(
        &self,
        indexes: Range<u64>,
    ) -> impl Stream<Item = Result<Entry>> + Send + Unpin + use<> {
        let read = {
            let group = self.clone();
            move |indexes: Range<u64>| {
                let group = group.clone();
                async move { group.read(indexes, STREAM_BYTES).await }
            }
        };
        Box::pin(stream::unfold(
            (indexes, Vec::new().into_iter(), read),
            |(indexes, mut ready, read)| async move {
                if ready.len() == 0 && !indexes.is_empty() {
                    match read(indexes.clone()).await {
                        Ok(entries) => ready = entries.into_iter(),
                        Err(error) => return Some((Err(error), (0..0, ready, read))),
                    }
                }
                let entry: Entry = ready.next()?;
                let rest = entry.index + 1..indexes.end;
                Some((Ok(entry), (rest, ready, read)))
            },
        ))
    }
}
