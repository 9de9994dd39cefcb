//! What a [`Wal`] does for archives and backups.

use std::{path::Path, sync::Arc};

use crate::{
    error::Result,
    lsn::Lsn,
    storage::Storage,
    wal::{
        copy::{Copied, copy, directory},
        handle::Wal,
        sealed::SealedSegments,
    },
};

impl Wal {
    /// Streams the segments that are sealed and durable and hold something at or after `from`:
    /// those there are, and then each as soon as it is. For archives that copy or link whole files.
    ///
    /// `from` is any position of the log, or where an earlier stream of the log
    /// [went on](SealedSegments::position). No file that it has yet to yield is removed meanwhile;
    /// an item holds its own for as long as it lives.
    ///
    /// # Errors
    ///
    /// As the stream's only item: [`Error::OutOfRange`](crate::Error::OutOfRange) if `from` can't be
    /// read any more, or lies above the end; [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// use futures::TryStreamExt;
    /// use highwater::Wal;
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let (path, archive) = (directory.path().join("log"), directory.path().join("archive"));
    /// # std::fs::create_dir(&archive).unwrap();
    /// let wal = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10).open(path).await?;
    /// let mut sealed = wal.sealed_segments(wal.watermarks().first);
    /// for _ in 0..20 {
    ///     wal.append_and_sync(vec![7; 500]).await?;
    /// }
    /// drop(wal);
    /// while let Some(segment) = sealed.try_next().await? {
    ///     let file = segment.path().expect("the log is in a directory");
    ///     std::fs::copy(file, archive.join(segment.name())).expect("space");
    ///     println!("{:?}: CRC-32C {:08x}", segment.lsns(), segment.checksum().await?);
    /// }
    /// assert!(std::fs::read_dir(archive).unwrap().count() > 1);
    /// # Ok(()) }
    /// ```
    pub fn sealed_segments(&self, from: Lsn) -> SealedSegments {
        SealedSegments::new(self.core(), from)
    }

    /// Copies the log to a directory that is empty or not there yet, beside appends and all else:
    /// what was durable at the call, as a log that opens. Resolves when the copy is durable.
    ///
    /// Sealed segments get a second name there, and take no space; where that can't be (another file
    /// system), they are copied, as the newest always is. Neither log ever writes to a file that it
    /// shares. While it copies, truncations of the log's beginning free no space.
    ///
    /// It goes in steps of 4 MiB at most on the log's pool, so it delays flushes hardly more than
    /// replays do. An interrupted copy is told apart: opening it fails with
    /// [`Error::UnfinishedCopy`](crate::Error::UnfinishedCopy).
    ///
    /// # Errors
    ///
    /// [`Error::NotEmpty`](crate::Error::NotEmpty) and [`Error::Locked`](crate::Error::Locked):
    /// nothing was copied. [`Error::NoSpace`](crate::Error::NoSpace),
    /// [`Error::Io`](crate::Error::Io), [`Error::Closed`](crate::Error::Closed) if the log is closed
    /// meanwhile: an unfinished copy is left, to be removed. The log itself is as it was.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves an unfinished copy; the step at hand ends by itself.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// use highwater::Wal;
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let (path, backup) = (directory.path().join("log"), directory.path().join("backup"));
    /// let wal = Wal::open(path).await?;
    /// let lsn = wal.append_and_sync("worth a backup").await?;
    /// wal.copy_to(&backup).await?;
    ///
    /// let copy = Wal::open(&backup).await?;
    /// assert_eq!(copy.read(lsn).await?.payload, "worth a backup");
    /// # Ok(()) }
    /// ```
    pub async fn copy_to(&self, to: impl AsRef<Path>) -> Result<Copied> {
        copy(self.core(), directory(to.as_ref())).await
    }

    /// As [`Wal::copy_to`], to any storage.
    ///
    /// # Errors
    ///
    /// As [`Wal::copy_to`].
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::copy_to`].
    pub async fn copy_to_storage(&self, to: impl Storage) -> Result<Copied> {
        let to: Arc<dyn Storage> = Arc::new(to);
        copy(self.core(), Box::new(move || Ok(to))).await
    }
}
