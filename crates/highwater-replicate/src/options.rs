//! The settings of both sides.

use std::time::Duration;

/// The action of a replica that has durable records that the leader does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDivergence {
    /// Ends the connection with [`Error::Diverged`](crate::Error::Diverged), and changes nothing.
    #[default]
    Refuse,
    /// Cuts them and follows the leader. The files stay under the names `….wal.cut`.
    SetAside,
}

/// The settings of a leader or a replica.
///
/// ```
/// use std::time::Duration;
/// use highwater_replicate::Options;
///
/// let options = Options::default().timeout(Duration::from_secs(10));
/// # drop(options);
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until they are used"]
pub struct Options {
    pub(crate) heartbeat: Duration,
    pub(crate) timeout: Duration,
    pub(crate) keep_bytes_max: Option<u64>,
    pub(crate) record_bytes_max: u64,
    pub(crate) on_divergence: OnDivergence,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            heartbeat: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
            keep_bytes_max: None,
            record_bytes_max: 64 << 20,
            on_divergence: OnDivergence::default(),
        }
    }
}

impl Options {
    /// Sets the time after which a side that has nothing to send sends a ping. 1 s by default.
    ///
    /// Both sides must use values well below the other side's [`timeout`](Options::timeout).
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval.max(Duration::from_millis(1));
        self
    }

    /// Sets the time without a message after which a side ends the connection. 5 s by default.
    ///
    /// A lower value ends half-open connections sooner. A value near the heartbeat ends sound ones.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }

    /// Sets how many bytes of the log a replica may keep back, for a leader. No limit by default.
    ///
    /// Beyond it, a truncation passes the replica's slot, and the replica needs a new copy. Without
    /// a limit, a replica that never returns fills the leader's disk.
    pub fn keep_at_most(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.keep_bytes_max = bytes.into();
        self
    }

    /// Sets the largest record that a replica accepts, in bytes. 64 MiB by default, as for a log.
    ///
    /// It limits the memory of a replica. Set it as in the options of the leader's log.
    pub fn record_bytes_max(mut self, bytes: u64) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// Sets what a replica does with durable records that the leader does not have.
    pub fn on_divergence(mut self, on_divergence: OnDivergence) -> Self {
        self.on_divergence = on_divergence;
        self
    }
}
