//! What users have the cache keep in place of entries' bytes.
//!
//! It can't be stale. It is cached by the LSN of the record that the entries stand in, and a read asks
//! the group, under the lock under which every change of it is ordered, at which LSNs the entries stand
//! that it holds now. No LSN is ever used twice: what was truncated, overwritten, purged or removed is
//! not asked for any more, and an append that was refused or dropped has none. What is copied to the
//! log's end, or cached no more, is read from the files.

use std::{any::Any, ops::Range, sync::Arc};

use crate::raft::{entry::Entries, group::RaftGroup};

/// Whatever the user makes of entries.
pub(super) type Value = Arc<dyn Any + Send + Sync>;

/// What [`RaftGroup::kept`] has found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeptEntries {
    /// Which of the indexes asked for the group held entries at, at that moment.
    pub indexes: Range<u64>,
    /// What is kept of them: from the first on and without a gap, as far as all of them are.
    pub parts: Vec<KeptPart>,
}

/// A part of what was appended in one call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeptPart {
    /// The entries for which it stands. The value may know others too: they were appended in the same
    /// call, and may be gone.
    pub indexes: Range<u64>,
    /// What [`Entries::keep`] was given.
    pub value: Arc<dyn Any + Send + Sync>,
}

impl Entries {
    /// Has the log's cache keep `value` in place of the bytes of all these entries, for
    /// [`RaftGroup::kept`]: the decoded entries, say, so that nobody has to decode them again. An
    /// entry counts as its bytes and `more_bytes` on top.
    ///
    /// What reads their bytes reads them from the files then. The value goes when the last of its
    /// records has no room in the cache any more: at the earliest at once.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// use std::sync::Arc;
    /// use highwater::{raft::{Entries, RaftLog}, storage::MemoryStorage};
    ///
    /// let group = RaftLog::options().open_with(MemoryStorage::new()).await?.group(1);
    /// let decoded: Arc<Vec<String>> = Arc::new(vec!["set x".into(), "set y".into()]);
    /// let mut entries = Entries::new();
    /// entries.push(1, 1, decoded[0].as_bytes());
    /// entries.push(2, 1, decoded[1].as_bytes());
    /// entries.keep(decoded, size_of::<String>() as u64);
    /// drop(group.append(entries).await?);
    ///
    /// // An entry is cut off: nothing has to be told to the cache.
    /// drop(group.truncate_after(Some(1)).await?);
    /// let kept = group.kept(0..u64::MAX, u64::MAX);
    /// assert_eq!((kept.indexes, &kept.parts[0].indexes), (1..2, &(1..2)));
    /// let decoded = kept.parts[0].value.downcast_ref::<Vec<String>>();
    /// assert_eq!(decoded.unwrap()[0], "set x");
    /// # Ok(()) }
    /// ```
    pub fn keep(&mut self, value: Arc<dyn Any + Send + Sync>, more_bytes: u64) {
        self.kept = Some((value, more_bytes));
    }
}

impl RaftGroup {
    /// What was kept of a range's entries, as [`Entries::keep`] tells: from the first that the group
    /// holds on, until the records have `bytes_max`, but one at least if the first is kept. It never
    /// waits, and what it gives stands there at one moment.
    ///
    /// Where it has nothing, [`read`](RaftGroup::read) has the entries.
    #[must_use]
    pub fn kept(&self, indexes: Range<u64>, bytes_max: u64) -> KeptEntries {
        let state = self.group.lock();
        let start = indexes.start.max(state.first);
        let indexes = start..indexes.end.min(state.next).max(start);
        let parts = match indexes.is_empty() {
            true => Vec::new(),
            false => self.store.cache.kept(state.index.places(indexes.clone()), bytes_max),
        };
        KeptEntries { indexes, parts }
    }
}
