//! Truncation of both ends of the log, and leases that delay it.

use std::sync::Arc;

use crate::{
    error::{ClosedBy, Error, Result},
    executor::start,
    format::frame::is_aligned,
    lsn::{Lsn, Start},
    pipeline::{
        Goal, OpenLog, dispatch, job::request_write, retention::retained_from,
        slot_changes::make_all_durable, truncate_end::truncate_end, truncate_start::truncate_start,
        wait::reach_written,
    },
    replay::{end_of_unit, is_boundary, no_record_between, start_of_unit},
    sabotage::{self, Sabotage},
    wal::{handle::Wal, lease::Lease},
};

/// Checks that a unit begins at `lsn`, or that the log ends there. A position below the log's
/// beginning passes.
pub(super) async fn check_boundary(core: &Arc<OpenLog>, lsn: Lsn, epoch: u64) -> Result<()> {
    let (first, end) = (core.beginning().first(), core.records_end());
    // The synced mark may have passed a mark frame at the end, before that frame was left out.
    if lsn > end && lsn != core.tail() {
        return Err(Error::outside(lsn, first, end));
    }
    if !is_aligned(lsn) {
        return Err(Error::NotABoundary { lsn });
    }
    if first >= lsn || lsn >= end {
        return Ok(());
    }
    if core.written().get() <= lsn {
        // As in `read`.
        request_write(core);
    }
    reach_written(core, Goal { end: lsn.plus(1), epoch }).await?;
    let live = Arc::clone(core);
    let checked = start(core.executor().as_ref(), move || is_boundary(&live, lsn, epoch));
    match checked.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })? {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::NotABoundary { lsn }),
        // A concurrent truncation went further.
        Err(Error::BelowFirst { .. }) if lsn <= core.beginning().first() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns the position up to which a truncation may go for a slot at `lsn`: the beginning of the
/// record or batch that holds it.
///
/// A consumer may move its slot to a record within a batch, and nothing checks the position when it
/// does. Neither may keep the log from being truncated.
async fn unit_of_slot(core: &Arc<OpenLog>, lsn: Lsn, epoch: u64) -> Result<Lsn> {
    match check_boundary(core, lsn, epoch).await {
        Ok(()) => return Ok(lsn),
        Err(Error::NotABoundary { .. }) => {}
        Err(error) => return Err(error),
    }
    let live = Arc::clone(core);
    let found = start(core.executor().as_ref(), move || start_of_unit(&live, lsn, epoch));
    match found.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })? {
        // A concurrent truncation went further.
        Err(Error::BelowFirst { .. }) if lsn <= core.beginning().first() => Ok(lsn),
        unit => unit,
    }
}

/// Returns whether only control records follow `end`, which is the beginning of the log if it is
/// `None`.
///
/// Returns false if a frame can't be read, because a truncation may be meant to drop it.
async fn no_record_follows(core: &Arc<OpenLog>, end: Option<Lsn>, epoch: u64) -> bool {
    let goal = Goal { end: core.tail(), epoch };
    // The frames up to the tail may belong to futures that are not polled.
    request_write(core);
    if reach_written(core, goal).await.is_err() {
        return false;
    }
    let (live, end) = (Arc::clone(core), end.unwrap_or_else(|| core.beginning().first()));
    let read =
        start(core.executor().as_ref(), move || no_record_between(&live, Start::At(end), goal));
    matches!(read.await, Ok(Ok(true)))
}

impl Wal {
    /// Drops the records before `lsn`, and resolves when the truncation is durable.
    ///
    /// `lsn` is the LSN of the record with which the log then begins, or the end of the log, which
    /// drops all records. A position at or below the current beginning changes nothing. Files
    /// without a remaining record are removed in the background, oldest first.
    ///
    /// Returns the position at which the log begins then. That is below `lsn` if a [`Slot`] is: a
    /// truncation passes no slot, except one that is too far behind
    /// ([`Slot::keep_at_most`]). It keeps the whole batch that holds a slot. Slots that have
    /// advanced are made durable first.
    ///
    /// [`Slot`]: crate::Slot
    /// [`Slot::keep_at_most`]: crate::Slot::keep_at_most
    ///
    /// Appends, syncs and reads may run at the same time. The call waits only for a flush, which it
    /// shares with others. A replay of dropped records may yield records that it has read ahead,
    /// and then gets [`Error::BelowFirst`]. [`Wal::retain`] keeps records for a reader. A log on a
    /// full device can be truncated, too, to get space.
    ///
    /// # Errors
    ///
    /// - [`Error::AboveEnd`] if `lsn` is above the end: nothing is changed.
    /// - [`Error::NotABoundary`] if no record or batch begins at `lsn`: nothing is changed.
    /// - [`Error::NoSpace`], [`Error::OverBudget`] if the truncation before this one freed no
    ///   space.
    /// - [`Error::Truncated`] if the end of the log was truncated below `lsn` during the call.
    /// - [`Error::Poisoned`], [`Error::Closed`], [`Error::Io`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the log is unchanged or will be truncated by a later flush. Call
    /// `truncate_before` again to be sure.
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
    pub async fn truncate_before(&self, lsn: Lsn) -> Result<Lsn> {
        let core = self.core();
        core.status().check_new()?;
        let epoch = core.epoch();
        check_boundary(core, lsn, epoch).await?;
        if !sabotage::is_on(Sabotage::TruncatePastSlot) {
            make_all_durable(core).await?;
        }
        loop {
            let held = core.beginning().oldest_slot(core.synced().get());
            let mut to = held.map_or(lsn, |(_, position)| position.min(lsn));
            if to < lsn && to > core.beginning().first() {
                to = unit_of_slot(core, to, epoch).await?;
            }
            if truncate_start(core, to, epoch).await? {
                return Ok(core.beginning().first());
            }
        }
    }

    /// Applies the option [`retention`](crate::Options::retention) now, and resolves when that is
    /// durable. Returns the position at which the log begins then.
    ///
    /// A log in use applies it by itself. Call this by a timer for a log that may be idle.
    ///
    /// # Errors
    ///
    /// Those of [`truncate_before`](Wal::truncate_before).
    ///
    /// # Cancel safety
    ///
    /// As [`truncate_before`](Wal::truncate_before).
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// use std::time::Duration;
    /// use highwater::{Retention, Wal, storage::MemoryStorage};
    ///
    /// let day = Retention::default().age(Duration::from_secs(24 * 60 * 60));
    /// let wal = Wal::options().retention(day).open_with(MemoryStorage::new()).await?;
    /// let first = wal.apply_retention().await?;
    /// assert_eq!(first, wal.watermarks().first, "nothing is older than a day");
    /// # wal.close().await }
    /// ```
    pub async fn apply_retention(&self) -> Result<Lsn> {
        let core = self.core();
        core.status().check_new()?;
        make_all_durable(core).await?;
        loop {
            let epoch = core.epoch();
            let Some(to) = retained_from(core) else { return Ok(core.beginning().first()) };
            if truncate_start(core, to, epoch).await? {
                return Ok(core.beginning().first());
            }
        }
    }

    /// Keeps the records from `lsn` on readable until the returned lease is dropped.
    ///
    /// Truncations of the log's beginning neither hide these records nor remove their files. Use it
    /// for a slow reader or an archive. A lease is effective only while the log is open, and does
    /// not prevent [`truncate_after`](Wal::truncate_after). It keeps segments on the disk.
    ///
    /// # Errors
    ///
    /// - [`Error::BelowFirst`] if the record at `lsn` was truncated.
    /// - [`Error::AboveEnd`] if `lsn` is above the end.
    /// - [`Error::Closed`].
    ///
    /// # Example
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

    /// Drops the records after the record at `last`, or all records if `last` is `None`.
    ///
    /// Resolves when the truncation is durable. Returns the new end, which is the LSN of the next
    /// record; control records of the log may come before that. If no record follows `last`,
    /// nothing is changed. Otherwise positions of slots above the new end move back to it.
    ///
    /// Appends, syncs and reads may run at the same time. Appends wait for one small write and one
    /// flush, whatever the size of the log. The files of the dropped records are removed in the
    /// background.
    ///
    /// Later appends reuse these positions. Waiters and readers of dropped records get
    /// [`Error::Truncated`]: tickets, running appends, syncs, reads and replays. A replay may yield
    /// records that it has read ahead. A follower that has yielded a dropped record gets the error,
    /// too, and then continues with the new records. A lease does not prevent this truncation.
    ///
    /// # Errors
    ///
    /// - [`Error::BelowFirst`], [`Error::AboveEnd`] if `last` is not within the log.
    /// - [`Error::NotABoundary`] if no record begins at `last`, or the record is in a batch and not
    ///   its last one. A batch is dropped or kept as a whole.
    /// - [`Error::NoSpace`], [`Error::OverBudget`] if there is no space for the segment that begins
    ///   at the new end.
    ///   Nothing is changed.
    /// - [`Error::Truncated`] if another truncation has dropped `last`. Nothing is changed.
    /// - [`Error::Corrupt`], [`Error::Io`] if the record at `last` cannot be read.
    /// - [`Error::Poisoned`], [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the log is unchanged or truncated, because a truncation that has
    /// begun completes by itself. Call `truncate_after` again to be sure.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # use highwater::{Wal, storage::MemoryStorage};
    /// # let wal = Wal::options().open_with(MemoryStorage::new()).await?;
    /// let agreed = wal.append(b"record of the leader").await?;
    /// let ticket = wal.enqueue(b"record of a follower only").await?;
    /// let end = wal.truncate_after(agreed).await?;
    /// assert!(ticket.synced().await.is_err());
    /// assert_eq!(wal.append(b"next record of the leader").await?, end);
    /// # Ok(()) }
    /// ```
    pub async fn truncate_after(&self, last: impl Into<Option<Lsn>>) -> Result<Lsn> {
        let core = self.core();
        core.status().check_new()?;
        let epoch = core.epoch();
        let Some(lsn) = last.into() else {
            let first = core.beginning().first();
            if no_record_follows(core, None, epoch).await {
                return Ok(first);
            }
            return truncate_end(core, None, epoch).await;
        };
        let (first, end) = (core.beginning().first(), core.records_end());
        if lsn < first || lsn >= end {
            return Err(Error::outside(lsn, first, end));
        }
        if !is_aligned(lsn) {
            return Err(Error::NotABoundary { lsn });
        }
        if core.written().get() <= lsn {
            // As in `read`.
            request_write(core);
        }
        reach_written(core, Goal { end: lsn.plus(1), epoch }).await?;
        let live = Arc::clone(core);
        let looked = start(core.executor().as_ref(), move || end_of_unit(&live, lsn, epoch));
        let cut = looked.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })??;
        // A cut of control records alone would cost a segment, and an epoch.
        if no_record_follows(core, Some(cut), epoch).await {
            dispatch::sync(core, Goal { end: cut, epoch }.into()).await?;
            return Ok(cut);
        }
        truncate_end(core, Some(cut), epoch).await
    }
}
