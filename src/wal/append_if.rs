//! Conditional appends: [`Wal::append_if`] appends only if the log has not grown.
//!
//! A conditional append takes its place by an exchange of the tail: from the position that was
//! checked to the end of its unit. So no other unit comes in between. The log's own control records
//! don't count as growth. If some are behind the expected end, the append reads them first.

use std::{ops::Range, sync::Arc};

use crate::{
    error::{ClosedBy, Error, Result},
    executor::start,
    lsn::{Lsn, Start},
    pipeline::{
        Goal, OpenLog, Payload, Span,
        append::{Unit, publish_at, room_for},
        dispatch,
        job::request_write,
        wait::reach_written,
    },
    replay::no_record_between,
    wal::{handle::Wal, ticket::Ticket},
};

impl Wal {
    /// Appends a record if the log ends at `expected_end`, and resolves when the operating system
    /// has it.
    ///
    /// `expected_end` is the end of the last record that the caller knows: its
    /// [`Record::end`](crate::Record::end), the position of a stream, or the mark
    /// [`reserved`](crate::Watermarks::reserved). Control records of the log behind that position
    /// don't count. Of several appends that expect the same end, exactly one succeeds. Event stores
    /// use this as a fence against concurrent writers that have read the same state.
    ///
    /// # Errors
    ///
    /// - [`Error::Conflict`] with the end of the log if another record is at or behind
    ///   `expected_end`, or if the log ends before it. Nothing was appended. Read the records from
    ///   `expected_end` on, decide again, and append with the new end.
    /// - [`Error::Corrupt`] or [`Error::Io`] with the place if a control record behind
    ///   `expected_end` can't be read. It may be a record, so nothing was appended.
    /// - Those of [`Wal::append`].
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::append`].
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # use highwater::{Wal, storage::MemoryStorage};
    /// use highwater::Error;
    ///
    /// # let wal = Wal::options().open_with(MemoryStorage::new()).await?;
    /// let end = wal.watermarks().reserved;
    /// wal.append_if(end, "reserve seat 7 for Ada").await?;
    /// let late = wal.append_if(end, "reserve seat 7 for Bob").await;
    /// assert!(matches!(late, Err(Error::Conflict { .. })));
    /// # Ok(()) }
    /// ```
    pub async fn append_if<'a>(
        &self,
        expected_end: Lsn,
        payload: impl Into<Payload<'a>>,
    ) -> Result<Lsn> {
        let span = place_if(self.core(), expected_end, vec![payload.into()]).await?;
        dispatch::write(self.core(), span).await?;
        Ok(span.lsn)
    }

    /// Appends records as a batch if the log ends at `expected_end`, as [`Wal::append_if`] and
    /// [`Wal::append_batch`].
    ///
    /// An empty batch appends nothing. It checks the end, too.
    ///
    /// # Errors
    ///
    /// Those of [`Wal::append_if`] and [`Wal::append_batch`].
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::append_batch`].
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # use highwater::{Wal, storage::MemoryStorage};
    /// # let wal = Wal::options().open_with(MemoryStorage::new()).await?;
    /// let end = wal.watermarks().reserved;
    /// let first = wal.append_batch_if(end, ["opened", "paid"]).await?;
    /// wal.append_batch_if(first.end, ["shipped"]).await?;
    /// # Ok(()) }
    /// ```
    pub async fn append_batch_if<'a, P>(
        &self,
        expected_end: Lsn,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<Range<Lsn>>
    where
        P: Into<Payload<'a>>,
    {
        // Collected first, because no user code may run after the reservation.
        let payloads = payloads.into_iter().map(Into::into).collect();
        let span = place_if(self.core(), expected_end, payloads).await?;
        dispatch::write(self.core(), span).await?;
        Ok(span.lsn..span.goal.end)
    }

    /// Appends a record if the log ends at `expected_end`, and resolves as soon as it has an LSN.
    ///
    /// # Errors
    ///
    /// As [`Wal::append_if`].
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::enqueue`].
    pub async fn enqueue_if<'a>(
        &self,
        expected_end: Lsn,
        payload: impl Into<Payload<'a>>,
    ) -> Result<Ticket> {
        let span = place_if(self.core(), expected_end, vec![payload.into()]).await?;
        request_write(self.core());
        Ok(Ticket::new(Arc::clone(self.core()), span))
    }
}

/// Places a unit behind `expected`, if no record is there.
async fn place_if(core: &Arc<OpenLog>, expected: Lsn, payloads: Vec<Payload<'_>>) -> Result<Span> {
    core.status().check_new()?;
    let unit = Unit::new(core.config(), payloads)?;
    // No record is in `expected..checked` in this epoch.
    let (mut checked, mut epoch) = (expected, core.epoch());
    loop {
        let room = room_for(core, &unit).await?;
        // No epoch begins while this task holds room.
        if core.epochs().current() != epoch {
            (checked, epoch) = (expected, core.epochs().current());
        }
        let tail = core.tail();
        if checked == tail || checked == core.records_end_at(tail) {
            if unit.is_empty() {
                return Ok(Span { lsn: tail, goal: Goal { end: tail, epoch } });
            }
            match publish_at(core, room, &unit, tail) {
                Some(span) => return Ok(span),
                None => continue,
            }
        }
        // A waiting future holds nothing, because it may never be polled again.
        drop(room);
        let conflict = || Error::Conflict { expected, end: core.records_end() };
        if checked > tail {
            return Err(conflict());
        }
        let goal = Goal { end: tail, epoch };
        // The frames up to the tail may belong to futures that are not polled.
        request_write(core);
        match reach_written(core, goal).await {
            Ok(()) => {}
            Err(Error::Truncated { .. }) => continue,
            Err(error) => return Err(error),
        }
        let live = Arc::clone(core);
        let read = start(core.executor().as_ref(), move || {
            no_record_between(&live, Start::At(checked), goal)
        });
        match read.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })? {
            Ok(true) => checked = tail,
            Ok(false) => return Err(conflict()),
            Err(Error::Truncated { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}
