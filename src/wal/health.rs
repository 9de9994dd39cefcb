//! [`HealthWatch`]: the log's health, and its changes.

use std::{fmt, sync::Arc};

use crate::{error::Result, health::Health, pipeline::Watched, wal::handle::Wal};

/// Returns the [`Health`] of a log and waits for changes; made by [`Wal::health`].
///
/// All methods return the health by value, so a task that keeps it delays neither the log nor
/// other tasks. The health is known while the disk hangs, because no method waits for it. A
/// watch is not a handle: it does not keep the log open.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// # use highwater::{Health, Wal, storage::MemoryStorage};
/// let wal = Wal::options().open_with(MemoryStorage::new()).await?;
/// let mut health = wal.health();
/// assert!(health.get().is_good());
/// wal.close().await?;
/// assert!(matches!(health.get(), Health::Stopped { .. }));
/// assert!(health.changed().await.is_err());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct HealthWatch {
    watched: Arc<Watched<Health>>,
    /// The version of the health that was last returned.
    seen: u64,
}

impl Wal {
    /// Returns a [`HealthWatch`], which returns the log's health and waits for changes.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # let wal = highwater::Wal::options()
    /// #     .open_with(highwater::storage::MemoryStorage::new()).await?;
    /// let mut health = wal.health();
    /// tokio::spawn(async move {
    ///     while let Ok(health) = health.changed().await {
    ///         println!("the log is {health}");
    ///     }
    /// });
    /// # wal.close().await }
    /// ```
    #[must_use]
    pub fn health(&self) -> HealthWatch {
        let watched = Arc::clone(self.core().vitals().watched());
        let (_, seen) = watched.newest();
        HealthWatch { watched, seen }
    }
}

impl HealthWatch {
    /// Returns the newest health.
    #[must_use]
    pub fn get(&self) -> Health {
        match self.watched.ended() {
            Some(error) => Health::Stopped { error },
            None => self.watched.newest().0,
        }
    }

    /// Resolves with the newest health when it is another state than the last returned one.
    ///
    /// Another operation or file is another state; a longer time is not. Several changes between
    /// two calls count as one.
    ///
    /// # Errors
    ///
    /// When the log has stopped, which [`HealthWatch::get`] returns as
    /// [`Health::Stopped`]:
    ///
    /// - [`Error::Closed`](crate::Error::Closed) after [`Wal::close`], or when the last handle is
    ///   gone.
    /// - [`Error::Poisoned`](crate::Error::Poisoned) after a failure.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a change that was not returned is returned by the next call.
    pub async fn changed(&mut self) -> Result<Health> {
        let (health, version) = self.watched.changed(self.seen).await?;
        self.seen = version;
        Ok(health)
    }

    /// Resolves with the first health for which `is_met` returns true.
    ///
    /// Tests the current health first, and then each change.
    ///
    /// # Errors
    ///
    /// Those of [`HealthWatch::changed`], if `is_met` returns false for
    /// [`Health::Stopped`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the call only waits.
    pub async fn wait_for(&mut self, mut is_met: impl FnMut(&Health) -> bool) -> Result<Health> {
        let (_, version) = self.watched.newest();
        self.seen = version;
        let mut health = self.get();
        while !is_met(&health) {
            health = match self.changed().await {
                Ok(health) => health,
                Err(error) => {
                    let stopped = Health::Stopped { error: error.clone() };
                    return if is_met(&stopped) { Ok(stopped) } else { Err(error) };
                }
            }
        }
        Ok(health)
    }
}

impl fmt::Debug for HealthWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthWatch").field("health", &self.get()).finish_non_exhaustive()
    }
}
