//! Archives and backups of a log: [`Wal::sealed_segments`] and [`Wal::copy_to`].

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
    /// Streams the sealed and durable segments from `from` on, and then each new one.
    ///
    /// Use it for archives that copy or link whole files. `from` is any position of the log, or the
    /// [`position`](SealedSegments::position) of an earlier stream. The files that the stream has
    /// not yielded yet are not removed. Each item keeps its own file while the item lives.
    ///
    /// # Errors
    ///
    /// As the only item of the stream:
    ///
    /// - [`Error::BelowFirst`](crate::Error::BelowFirst) if `from` was truncated,
    ///   [`Error::AboveEnd`](crate::Error::AboveEnd) if it is above the
    ///   end.
    /// - [`Error::Closed`](crate::Error::Closed).
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

    /// Copies the durable part of the log to another directory.
    ///
    /// Resolves when the copy is durable.
    ///
    /// The directory must be empty or not exist. The copy holds all records that are durable at the
    /// call and opens as a log. Appends and all other calls may run during the copy.
    ///
    /// Sealed segments are linked and take no space. If they cannot be linked (another file
    /// system), they are copied. The newest segment is always copied. Neither log ever writes to a
    /// shared file. During the copy, truncations of the log's beginning free no space.
    ///
    /// The copy is made in steps of at most 4 MiB on the log's pool, so it delays flushes about as
    /// much as a replay. Opening an interrupted copy fails with
    /// [`Error::UnfinishedCopy`](crate::Error::UnfinishedCopy).
    ///
    /// # Errors
    ///
    /// The log itself is unchanged after each of them.
    ///
    /// - [`Error::NotEmpty`](crate::Error::NotEmpty), [`Error::Locked`](crate::Error::Locked):
    ///   nothing was copied.
    /// - [`Error::NoSpace`](crate::Error::NoSpace), [`Error::Io`](crate::Error::Io), or
    ///   [`Error::Closed`](crate::Error::Closed) if the log is closed during the copy: an
    ///   unfinished copy stays and must be removed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves an unfinished copy. The running step ends by itself.
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
        let core = self.core();
        copy(core, directory(to.as_ref(), core.config().file_mode)).await
    }

    /// As [`Wal::copy_to`], to a storage.
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
