//! The metrics of a log: their label, and publishing them on demand.

use crate::{
    pipeline::LogName,
    wal::{handle::Wal, options::Options},
};

impl Options {
    /// Sets the value of the label `log` of the log's metrics; its directory by default.
    ///
    /// The default is the path as it was given to [`Options::open`]. Set a name if a process has
    /// several logs, or if dashboards shall not depend on paths. Two open logs need two names,
    /// because their values would be mixed. `docs/METRICS.md` lists the metrics.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # use highwater::{Wal, storage::MemoryStorage};
    /// // Install a recorder first, such as metrics-exporter-prometheus. Then:
    /// let options = Wal::options().metrics_label("orders");
    /// let wal = options.open_with(MemoryStorage::new()).await?;
    /// # wal.close().await }
    /// ```
    pub fn metrics_label(mut self, name: impl Into<String>) -> Self {
        self.log_name = LogName::new(name.into());
        self
    }
}

impl Wal {
    /// Publishes the counters and gauges of the log now.
    ///
    /// The log publishes them after each flush, and when it begins or removes a segment. Call this
    /// before each scrape if the log may have been idle since, or if it is written without being
    /// synced. Only this call publishes the gauges of slots. It does no I/O, and takes about a
    /// microsecond, and one more for each slot. Histograms need no call.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # use highwater::{Wal, storage::MemoryStorage};
    /// let wal = Wal::options().open_with(MemoryStorage::new()).await?;
    /// wal.append("written, not synced").await?;
    /// wal.publish_metrics();
    /// # wal.close().await }
    /// ```
    pub fn publish_metrics(&self) {
        self.core().publish_metrics();
        self.core().publish_slots();
    }
}
