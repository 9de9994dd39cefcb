//! Syncing by a policy, for those who don't wait for each record.

use std::{
    sync::{
        Arc, Weak,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    pipeline::OpenLog,
    wal::{handle::Wal, pool::has_clock},
};

/// From what keeps the device from doing nothing else, to what nobody would call a policy.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// When [`Wal::sync_every`] begins a flush.
///
/// ```
/// # use std::time::Duration;
/// use highwater::SyncEvery;
/// let policy = SyncEvery::interval(Duration::from_millis(100)).or_records(1000);
/// # let _ = policy;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it is only the description of a policy"]
pub struct SyncEvery {
    interval: Option<Duration>,
    record_count: Option<u64>,
}

impl SyncEvery {
    /// At each end of `interval`, if there is something to sync. From 1 ms to a day.
    pub fn interval(interval: Duration) -> Self {
        SyncEvery { interval: Some(interval), record_count: None }
    }

    /// Whenever `record_count` records were written since a flush was last asked for. From 1.
    pub fn records(record_count: u64) -> Self {
        SyncEvery { interval: None, record_count: Some(record_count) }
    }

    /// Also whenever `record_count` records were written: whichever comes first. From 1.
    pub fn or_records(mut self, record_count: u64) -> Self {
        self.record_count = Some(record_count);
        self
    }

    fn check(self) -> Result<Self> {
        if let Some(interval) = self.interval {
            if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
                return Err(Error::InvalidOption {
                    option: "sync_every interval (ms)",
                    value: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
                    reason: "from 1 ms to a day",
                });
            }
            if !has_clock() {
                return Err(Error::InvalidOption {
                    option: "sync_every interval (ms)",
                    value: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
                    reason: "a simulation has no clock; go by records there",
                });
            }
        }
        match self.record_count {
            Some(0) => Err(Error::InvalidOption {
                option: "sync_every records",
                value: 0,
                reason: "from 1",
            }),
            _ => Ok(self),
        }
    }
}

/// A policy of [`Wal::sync_every`] that is in force. Dropping it ends the policy, at once and
/// without a last flush: call [`Wal::sync`] for that.
///
/// It is no handle of the log: the log ends with its last handle, whether this is there or not.
#[derive(Debug)]
#[must_use = "dropping it ends the policy"]
pub struct PeriodicSync {
    core: Weak<OpenLog>,
    record_count: Option<u64>,
    /// Dropped, it ends the thread that keeps the time.
    _clock: Option<mpsc::Sender<()>>,
}

impl Wal {
    /// Has the log synced in the background, over and over, for as long as the answer lives.
    ///
    /// It bounds what a loss of power may take from those who only [`append`](Wal::append) or
    /// [`enqueue`](Wal::enqueue), and **promises nothing for any one record**: what was appended
    /// since the last flush *began* may be lost, as always as a suffix of the log. That is, by
    ///
    /// - [`SyncEvery::interval`]: what was appended within the interval and the time of a flush;
    ///   twice that time where one was running when the interval ended;
    /// - [`SyncEvery::records`]: so many records, and those that are written while flushes run.
    ///
    /// Who has to know uses [`Wal::append_and_sync`] or [`Wal::sync`], or looks at
    /// [`Wal::watermarks`]. If a flush fails, the log is poisoned, which the next call tells.
    /// Several policies may be in force; each is followed. An idle log isn't flushed.
    ///
    /// The interval is kept by a small thread and not by the runtime: it needs no time driver, and
    /// goes on where all of the runtime's workers are busy. It is made for this policy and ends
    /// with it. Going by records costs no thread.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] if a value is out of its range, or for an interval in a
    /// simulation, which has no clock; [`Error::Io`] if the thread can't be started;
    /// [`Error::Poisoned`], [`Error::Closed`].
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// use std::time::Duration;
    /// use highwater::SyncEvery;
    /// # let wal = highwater::Wal::options()
    /// #     .open_with(highwater::storage::MemoryStorage::new()).await?;
    /// let policy = wal.sync_every(SyncEvery::interval(Duration::from_millis(50)))?;
    /// wal.append(b"on stable storage within a tenth of a second, or so").await?;
    /// # drop(policy);
    /// # Ok(()) }
    /// ```
    pub fn sync_every(&self, policy: SyncEvery) -> Result<PeriodicSync> {
        let policy = policy.check()?;
        let core = self.core();
        core.status.check_new()?;
        let clock = policy.interval.map(|interval| start_clock(core, interval)).transpose()?;
        if let Some(record_count) = policy.record_count {
            core.add_order(record_count);
        }
        let record_count = policy.record_count;
        Ok(PeriodicSync { core: Arc::downgrade(core), record_count, _clock: clock })
    }
}

impl Drop for PeriodicSync {
    fn drop(&mut self) {
        if let (Some(core), Some(record_count)) = (self.core.upgrade(), self.record_count) {
            core.remove_order(record_count);
        }
    }
}

/// Starts the thread that asks for a sync after each `interval`, until what is answered is dropped
/// or the log has ended.
fn start_clock(core: &Arc<OpenLog>, interval: Duration) -> Result<mpsc::Sender<()>> {
    let (clock, ended) = mpsc::channel();
    let location = core.storage.location();
    // Between two flushes it keeps no log open.
    let core = Arc::downgrade(core);
    let keep_time = move || {
        while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            let Some(core) = core.upgrade() else { return };
            if core.status.check_new().is_err() {
                return;
            }
            core.demand_sync(core.records_end());
        }
    };
    thread::Builder::new().name("highwater-sync".to_owned()).spawn(keep_time).map_err(|error| {
        Error::io("starting the thread of sync_every for", location, None, error)
    })?;
    Ok(clock)
}
