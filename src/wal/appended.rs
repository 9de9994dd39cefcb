//! What an append is asked for, and what it tells.

use std::time::{Duration, Instant};

use crate::{
    error::{Error, Result},
    format::header::SEGMENT_HEADER_BYTES,
    lsn::Lsn,
    pipeline::Payload,
    segments::Sequence,
    wal::handle::Wal,
};

/// How far a record has come when [`Wal::append_with`] resolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// With the operating system: survives the end of the process, as [`Wal::append`].
    Written,
    /// On stable storage: survives a loss of power, as [`Wal::append_and_sync`].
    Synced,
}

/// Where a record is, and how far it has come: the answer of [`Wal::append_with`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The record's position in the log.
    pub lsn: Lsn,
    /// The number of the segment that holds it; its file is [`Appended::segment_name`].
    pub segment: u64,
    /// Where its frame begins in that file, in bytes from the file's start.
    pub offset: u64,
    /// Whether it was on stable storage when the call resolved. With [`Durability::Written`] it
    /// may be, if somebody else's flush has covered it.
    pub synced: bool,
    /// How long the call waited for the sync, the write on its way included; `None` if it asked
    /// for none. The wait for room, before the record was ordered, is no part of it.
    pub sync_time: Option<Duration>,
}

impl Appended {
    /// The name of the segment's file in the log's directory.
    #[must_use]
    pub fn segment_name(&self) -> String {
        Sequence(self.segment).file_name()
    }
}

impl Wal {
    /// Appends a record, resolves when it has come as far as `durability` says, and tells where it
    /// is: for those who choose by record, keep an index of files, or measure.
    ///
    /// # Errors
    ///
    /// As [`Wal::append`], and [`Error::OutOfRange`] if the log's beginning was truncated past the
    /// record before the call resolved.
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
        let span = core.reserve_record(payload.into()).await?;
        let sync_time = match durability {
            Durability::Written => {
                core.write_and_reach(span.goal).await?;
                None
            }
            Durability::Synced => {
                let began = Instant::now();
                core.wait_synced(span.goal).await?;
                Some(began.elapsed())
            }
        };
        // Its segment is in the set since before `written` passed the segment's base.
        let found = core.segments.find(span.lsn);
        core.epochs.check(span.goal)?;
        let Some((segment, _)) = found else {
            let (first, end) = (core.purge.readable_first(), core.records_end());
            return Err(Error::OutOfRange { lsn: span.lsn, first, end });
        };
        Ok(Appended {
            lsn: span.lsn,
            segment: segment.sequence.0,
            offset: span.lsn.since(segment.base) + SEGMENT_HEADER_BYTES,
            synced: core.synced.get() >= span.goal.end,
            sync_time,
        })
    }
}
