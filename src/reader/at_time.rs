//! [`Reader::at_time`]: finds a position by its time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{error::Result, lsn::Lsn, reader::handle::Reader, recovery::unix_ms_of};

impl Reader {
    /// Returns a position from which on all shown records are that were appended at `time` or
    /// later.
    ///
    /// The position is at or below [`end`](Reader::end). Older records come first: those of up to
    /// two intervals of [`Options::time_marks`](crate::Options::time_marks), or more if the log was
    /// idle. Without time marks, the position is the first one of the log;
    /// [`newest_time_mark`](Reader::newest_time_mark) reports whether there are some.
    /// [`Wal::at_time`](crate::Wal::at_time) describes how the log keeps time.
    ///
    /// Reads a few headers, and one or two segments, and takes no lock. If the writer has removed
    /// segments since the last look, the call judges the log again and returns a position above
    /// them. It does not change what the reader shows.
    ///
    /// # Errors
    ///
    /// Those of [`Reader::refresh`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the call only reads.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// use std::time::{Duration, SystemTime};
    /// use highwater::{Reader, Wal};
    ///
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("log");
    /// let wal = Wal::options().time_marks(Duration::from_secs(1)).open(&path).await?;
    /// let since = SystemTime::now();
    /// let lsn = wal.append_and_sync("after that").await?;
    /// wal.close().await?;
    ///
    /// // Here or in another process.
    /// let reader = Reader::open(&path).await?;
    /// assert!(reader.at_time(since).await? <= lsn);
    /// # Ok(()) }
    /// ```
    pub async fn at_time(&self, time: SystemTime) -> Result<Lsn> {
        let unix_ms = unix_ms_of(time);
        self.read(move |open_view, shows_written| {
            open_view.position_at_time(unix_ms, shows_written)
        })
        .await
    }

    /// Returns the time of the newest time mark; `None` if the log has no time marks.
    ///
    /// The time is that of the log at one of its last flushes. The mark need not be known to be
    /// synced yet. A writer with [`Options::time_marks`](crate::Options::time_marks) writes the
    /// first mark with one of its first flushes.
    ///
    /// Reads the newest segment, and takes no lock.
    ///
    /// # Errors
    ///
    /// Those of [`Reader::refresh`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the call only reads.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// use highwater::{Reader, Wal};
    ///
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("log");
    /// let wal = Wal::open(&path).await?;
    /// wal.append_and_sync("time marks are off by default").await?;
    /// let reader = Reader::open(&path).await?;
    /// assert_eq!(reader.newest_time_mark().await?, None);
    /// # Ok(()) }
    /// ```
    pub async fn newest_time_mark(&self) -> Result<Option<SystemTime>> {
        let newest = self.read(|open_view, _| open_view.newest_time_mark()).await?;
        Ok(newest.and_then(|mark| UNIX_EPOCH.checked_add(Duration::from_millis(mark.unix_ms))))
    }
}
