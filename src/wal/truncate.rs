//! The two ends of the log, and what holds the first of them back.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    executor::start,
    lsn::Lsn,
    pipeline::Goal,
    replay::{end_of_unit, is_boundary},
    wal::{handle::Wal, lease::Lease, options::RUNTIME_GONE},
};

impl Wal {
    /// Has the log begin at `lsn`: what stands before it is dropped. Resolves when that is durable;
    /// the files that hold nothing else are removed in the background, oldest first. `lsn` is the
    /// LSN of a record, which is kept, or the end of the log, which drops all. A position at which
    /// the log has begun already, or before, changes nothing.
    ///
    /// Safe beside appends, syncs and readers; it waits for nobody but the flush that it shares
    /// with all others. What is being read from below `lsn` may still give what it had read ahead,
    /// then [`Error::OutOfRange`]; [`Wal::retain`] holds what a reader still needs. A log on a full
    /// device can be truncated too, which is how it gets space again.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] above the end, [`Error::NotABoundary`] where no record or batch
    /// begins: nothing is changed. [`Error::NoSpace`] if the last truncation gave no space either.
    /// [`Error::Truncated`] if the end was truncated to less than `lsn` meanwhile.
    /// [`Error::Poisoned`], [`Error::Closed`], [`Error::Io`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the log as it was, or truncated as soon as a later flush makes it
    /// so; call it again to know.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # use highwater::{Wal, storage::MemoryStorage};
    /// # let wal = Wal::options().open_with(MemoryStorage::new()).await?;
    /// wal.append(b"covered by a checkpoint").await?;
    /// let kept = wal.append(b"not yet").await?;
    /// wal.truncate_before(kept).await?;
    /// assert_eq!(wal.watermarks().first, kept);
    /// # Ok(()) }
    /// ```
    pub async fn truncate_before(&self, lsn: Lsn) -> Result<()> {
        let core = self.core();
        core.status.check_new()?;
        let epoch = core.epoch();
        let (first, end) = (core.purge.first(), core.records_end());
        if lsn > end {
            return Err(Error::OutOfRange { lsn, first, end });
        }
        if lsn.as_u64() % 8 != 0 {
            return Err(Error::NotABoundary { lsn });
        }
        if first < lsn && lsn < end {
            if core.written.get() <= lsn {
                // As in `read`.
                core.kick_writer();
            }
            core.reach_written(Goal { end: lsn.plus(1), epoch }).await?;
            let live = Arc::clone(core);
            let checked = start(core.executor.as_ref(), move || is_boundary(&live, lsn, epoch));
            match checked.await.map_err(|_| Error::Closed { reason: RUNTIME_GONE })? {
                Ok(true) => {}
                Ok(false) => return Err(Error::NotABoundary { lsn }),
                // Somebody else's truncation went further while this looked.
                Err(Error::OutOfRange { .. }) if lsn <= core.purge.first() => {}
                Err(error) => return Err(error),
            }
        }
        core.begin_at(lsn, epoch).await
    }

    /// Keeps what stands from `lsn` on readable, and its files in place, until the lease is dropped,
    /// whatever is truncated meanwhile: for a slow reader, or an archive. It holds as long as the
    /// log is open, not longer.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] if `lsn` can't be read any more, or lies above the end;
    /// [`Error::Closed`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # use highwater::{Wal, storage::MemoryStorage};
    /// # let wal = Wal::options().open_with(MemoryStorage::new()).await?;
    /// let old = wal.append(b"still to be archived").await?;
    /// let lease = wal.retain(old)?;
    /// wal.truncate_before(wal.append(b"new").await?).await?;
    /// assert_eq!(wal.read(old).await?.payload, "still to be archived");
    /// drop(lease);
    /// assert!(wal.read(old).await.is_err());
    /// # Ok(()) }
    /// ```
    pub fn retain(&self, lsn: Lsn) -> Result<Lease> {
        Lease::new(self.core(), lsn)
    }

    /// Drops the newest records: the log ends behind the record at `last`, or, with `None`, where it
    /// begins. Resolves when that is durable, with the new end, where the next record will stand.
    /// If nothing stands behind `last`, nothing is changed.
    ///
    /// Safe beside appends, syncs and readers. Appends wait for one small write and one flush,
    /// however large the log is; the files of what is dropped are removed in the background. Who
    /// comes later appends behind the cut, at positions that are used again. So whoever still waits
    /// for, or reads, what was dropped is told [`Error::Truncated`]: tickets, appends under way,
    /// syncs, reads and replays. A follower that had yielded some of it is told so too, before it
    /// goes on with what stands there now. A replay may still give what it had read ahead.
    ///
    /// What a lease holds is kept from a truncation of the beginning, and not from this one.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] if no record of the log stands at `last`; [`Error::NotABoundary`] if no
    /// record begins there, or one within a batch that isn't its last: a batch is kept whole.
    /// [`Error::NoSpace`] if there is none for the segment that begins at the cut. Nothing is
    /// changed then, nor after [`Error::Truncated`]: another truncation has dropped `last` itself.
    /// [`Error::Corrupt`], [`Error::Io`] if the record at `last` can't be read.
    /// [`Error::Poisoned`], [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the log as it was, or truncated: it goes on by itself once it has
    /// begun. Call it again to know.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # use highwater::{Wal, storage::MemoryStorage};
    /// # let wal = Wal::options().open_with(MemoryStorage::new()).await?;
    /// let agreed = wal.append(b"what the leader has too").await?;
    /// let ticket = wal.enqueue(b"what it hasn't").await?;
    /// let end = wal.truncate_after(agreed).await?;
    /// assert!(ticket.synced().await.is_err());
    /// assert_eq!(wal.append(b"what it has instead").await?, end);
    /// # Ok(()) }
    /// ```
    pub async fn truncate_after(&self, last: impl Into<Option<Lsn>>) -> Result<Lsn> {
        let core = self.core();
        core.status.check_new()?;
        let epoch = core.epoch();
        let Some(lsn) = last.into() else {
            return core.cut(None, epoch).await;
        };
        let (first, end) = (core.purge.first(), core.records_end());
        if lsn < first || lsn >= end {
            return Err(Error::OutOfRange { lsn, first, end });
        }
        if lsn.as_u64() % 8 != 0 {
            return Err(Error::NotABoundary { lsn });
        }
        core.reach_written(Goal { end: lsn.plus(1), epoch }).await?;
        let live = Arc::clone(core);
        let looked = start(core.executor.as_ref(), move || end_of_unit(&live, lsn, epoch));
        let cut = looked.await.map_err(|_| Error::Closed { reason: RUNTIME_GONE })??;
        core.cut(Some(cut), epoch).await
    }
}
