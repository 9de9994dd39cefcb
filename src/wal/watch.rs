//! [`Watch`]: waits for changes of the marks.

use std::{fmt, sync::Arc};

use crate::{error::Result, pipeline::Watched, wal::handle::Wal, watermarks::Watermarks};

/// Returns the newest [`Watermarks`] of a log and waits for changes; made by [`Wal::watch`].
///
/// All methods return the marks by value, so a task that keeps them delays neither the log nor
/// other tasks. A watch is not a handle: it does not keep the log open.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// # use highwater::{Wal, storage::MemoryStorage};
/// let wal = Wal::options().open_with(MemoryStorage::new()).await?;
/// let mut watch = wal.watch();
/// let lsn = wal.append_and_sync("record").await?;
/// let marks = watch.wait_for(|marks| marks.synced > lsn).await?;
/// assert_eq!(marks, watch.get());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Watch {
    watched: Arc<Watched<Watermarks>>,
    /// The version of the marks that were last returned.
    seen: u64,
}

impl Wal {
    /// Returns a [`Watch`], which waits for changes of the log's marks.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let watched = Arc::clone(self.core().watched());
        let (_, seen) = watched.newest();
        Watch { watched, seen }
    }
}

impl Watch {
    /// Returns the newest marks.
    #[must_use]
    pub fn get(&self) -> Watermarks {
        self.watched.newest().0
    }

    /// Resolves with the newest marks when they differ from the last returned ones.
    ///
    /// Several changes between two calls count as one.
    ///
    /// # Errors
    ///
    /// When the log has stopped and its last marks were returned:
    ///
    /// - [`Error::Closed`](crate::Error::Closed) after [`Wal::close`], or when the last handle is
    ///   gone.
    /// - [`Error::Poisoned`](crate::Error::Poisoned) after a failure.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a change that was not returned is returned by the next call.
    pub async fn changed(&mut self) -> Result<Watermarks> {
        let (marks, version) = self.watched.changed(self.seen).await?;
        self.seen = version;
        Ok(marks)
    }

    /// Resolves with the first marks for which `is_met` returns true.
    ///
    /// Tests the current marks first.
    ///
    /// # Errors
    ///
    /// Those of [`Watch::changed`], if `is_met` returns false for the last marks.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the call only waits.
    pub async fn wait_for(
        &mut self,
        mut is_met: impl FnMut(&Watermarks) -> bool,
    ) -> Result<Watermarks> {
        let (mut marks, version) = self.watched.newest();
        self.seen = version;
        while !is_met(&marks) {
            marks = self.changed().await?;
        }
        Ok(marks)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("marks", &self.get()).finish_non_exhaustive()
    }
}
