//! [`Wal::at_time`]: finds a position by its time.

use std::{sync::Arc, time::SystemTime};

use crate::{
    error::{ClosedBy, Error, Result},
    executor::start,
    lsn::Lsn,
    recovery::{position_at_time, unix_ms_of},
    wal::handle::Wal,
};

impl Wal {
    /// Returns a position from which on all records are that were appended at `time` or later.
    ///
    /// Every record whose append began at `time` or later is at or above the position. Older
    /// records come first: those of up to two intervals of
    /// [`Options::time_marks`](crate::Options::time_marks), or more if the log was idle. Without
    /// time marks, the position is the first one of the log.
    ///
    /// The log's time never goes back. If the system's clock does, the log's time stays the same
    /// until the clock has caught up, and all records of that period count as appended then.
    ///
    /// The log reads the clock only for a flush or a new segment. If the clock jumps ahead and back
    /// between two reads, the log does not notice: records that were appended meanwhile count as
    /// appended between the times of these two reads. So a `time` within the jump can give a
    /// position above these records.
    ///
    /// Reads a few headers, and one or two segments.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`], [`Error::Io`] if a segment can't be read.
    /// - [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the call only reads.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # use highwater::{Wal, storage::MemoryStorage};
    /// use std::time::{Duration, SystemTime};
    ///
    /// let options = Wal::options().time_marks(Duration::from_secs(1));
    /// let wal = options.open_with(MemoryStorage::new()).await?;
    /// let since = SystemTime::now();
    /// let lsn = wal.append_and_sync("after that").await?;
    /// assert!(wal.at_time(since).await? <= lsn);
    /// # Ok(()) }
    /// ```
    pub async fn at_time(&self, time: SystemTime) -> Result<Lsn> {
        let core = self.core();
        core.status().check_read()?;
        let unix_ms = unix_ms_of(time);
        let live = Arc::clone(core);
        let found = start(core.executor().as_ref(), move || {
            let (first, written) = (live.beginning().first(), live.written().get());
            position_at_time(live.segments(), first, written, unix_ms)
        });
        found.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })?
    }
}
