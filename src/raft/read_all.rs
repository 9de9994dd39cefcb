//! Reading all that a range holds, while others change the group.

use std::ops::{Bound, RangeBounds};

use crate::{
    error::{Error, Result},
    raft::{entry::Entry, group::RaftGroup},
};

impl RaftGroup {
    /// Every entry of a range of indexes that the group holds: from the first that isn't purged on,
    /// and up to the last there is. Unlike [`read`](RaftGroup::read) it takes a range that begins
    /// below the first entry, and never ends early.
    ///
    /// What it gives stood there at one moment, also if the group is purged or truncated meanwhile:
    /// then it reads again.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Io`]; [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only reads.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
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
                // Purged since it was looked at.
                Err(Error::Purged { .. }) => continue,
                read => read?,
            };
            // A purge or a truncation may have ended it early, with entries behind that are there.
            let next = entries.last().map_or(first, |last| last.index.saturating_add(1));
            if next >= end.min(self.group.lock().next) {
                return Ok(entries);
            }
        }
    }
}
