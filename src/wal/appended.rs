//! [`Wal::append_with`]: an append with a chosen durability that returns the place of the record.

use std::time::{Duration, Instant};

use crate::{
    error::{Error, Result},
    format::header::file_offset,
    lsn::Lsn,
    pipeline::{
        Payload,
        append::{Placed, place, place_now},
        dispatch,
    },
    segments::Sequence,
    wal::handle::Wal,
};

/// When [`Wal::append_with`] resolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// When the record survives the end of the process, as with [`Wal::append`].
    Written,
    /// When the record survives a power loss, as with [`Wal::append_and_sync`].
    Synced,
}

/// The place and the state of a record; returned by [`Wal::append_with`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The position of the record in the log.
    pub lsn: Lsn,
    /// The number of the segment that holds the record. [`Appended::segment_name`] is its file.
    pub segment: u64,
    /// The offset of the record's frame in that file, in bytes.
    pub offset: u64,
    /// True if the record was on stable storage when the call resolved.
    ///
    /// It may be `true` with [`Durability::Written`] if another task's flush covered the record.
    pub synced: bool,
    /// How long the call waited for the write and the sync; `None` with [`Durability::Written`].
    ///
    /// The wait for room, before the record got its LSN, does not count.
    pub sync_time: Option<Duration>,
}

impl Appended {
    /// Returns the name of the segment's file in the log's directory.
    #[must_use]
    pub fn segment_name(&self) -> String {
        Sequence(self.segment).file_name()
    }
}

impl Wal {
    /// Appends a record with the given durability, and returns where the record is.
    ///
    /// Use it to choose the durability per record, to keep an index of files, or to measure syncs.
    ///
    /// # Errors
    ///
    /// Those of [`Wal::append`], and [`Error::BelowFirst`] if the record was truncated from the
    /// beginning of the log before the call resolved.
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::append`].
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// use highwater::{Durability, Wal};
    /// # let wal = Wal::options().open_with(highwater::storage::MemoryStorage::new()).await?;
    /// let appended = wal.append_with(b"change", Durability::Synced).await?;
    /// assert!(appended.synced);
    /// println!(
    ///     "{} at {} of {}, after {:?}",
    ///     appended.lsn, appended.offset, appended.segment_name(), appended.sync_time,
    /// );
    /// # Ok(()) }
    /// ```
    pub async fn append_with<'a>(
        &self,
        payload: impl Into<Payload<'a>>,
        durability: Durability,
    ) -> Result<Appended> {
        let core = self.core();
        let commit = core.measures().instruments.commit();
        let span = match place_now(core, payload.into())? {
            Placed::Now(span) => span,
            Placed::Waits(record) => place(core, record).await?,
        };
        let sync_time = match durability {
            Durability::Written => {
                dispatch::write(core, span).await?;
                None
            }
            Durability::Synced => {
                let began = Instant::now();
                dispatch::sync(core, span).await?;
                commit.done();
                Some(began.elapsed())
            }
        };
        // The segment was added to the set before `written` passed its base.
        let found = core.segments().find(span.lsn);
        core.epochs().check(span.goal)?;
        let Some((segment, _)) = found else {
            let (first, end) = (core.beginning().readable_first(), core.records_end());
            return Err(Error::outside(span.lsn, first, end));
        };
        Ok(Appended {
            lsn: span.lsn,
            segment: segment.sequence.0,
            offset: file_offset(segment.base, span.lsn),
            synced: core.synced().get() >= span.goal.end,
            sync_time,
        })
    }
}
