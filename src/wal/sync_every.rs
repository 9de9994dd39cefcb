//! [`Wal::sync_every`]: syncs the log periodically in the background.

use std::{
    sync::{
        Arc, Weak,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    error::{Error, Result},
    pipeline::{Core, OpenLog, dispatch, job::demand_sync},
    wal::{handle::Wal, pool::has_clock},
};

const INTERVAL_MIN: Duration = Duration::from_millis(1);
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Determines when [`Wal::sync_every`] begins a flush.
///
/// ```
/// # use std::time::Duration;
/// use highwater::SyncEvery;
/// let policy = SyncEvery::interval(Duration::from_millis(100)).or_records(1000);
/// # let _ = policy;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a policy has no effect before it is passed to `sync_every`"]
pub struct SyncEvery {
    interval: Option<Duration>,
    record_count: Option<u64>,
    uses_runtime_clock: bool,
}

impl SyncEvery {
    /// Syncs at each end of `interval` if there are unsynced records. From 1 ms to a day.
    pub fn interval(interval: Duration) -> Self {
        SyncEvery { interval: Some(interval), record_count: None, uses_runtime_clock: false }
    }

    /// Syncs when `record_count` records were written since the last requested flush. From 1.
    pub fn records(record_count: u64) -> Self {
        SyncEvery { interval: None, record_count: Some(record_count), uses_runtime_clock: false }
    }

    /// Also syncs when `record_count` records were written, whichever comes first. From 1.
    pub fn or_records(mut self, record_count: u64) -> Self {
        self.record_count = Some(record_count);
        self
    }

    /// Sets whether tokio's timer measures the interval instead of a thread; `false` by default.
    ///
    /// Set it in tests that pause tokio's clock, because the thread measures real time. A flush
    /// then begins when the paused clock passes the end of the interval.
    ///
    /// The cost: a task of the runtime that calls [`Wal::sync_every`]. Flushes are late while all
    /// workers of the runtime are busy. The runtime must have its time driver enabled, otherwise
    /// tokio panics.
    pub fn runtime_clock(mut self, uses_runtime_clock: bool) -> Self {
        self.uses_runtime_clock = uses_runtime_clock;
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
                    reason: "a simulation has no clock; use a record count instead",
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

/// An active policy of [`Wal::sync_every`]. Dropping it ends the policy immediately.
///
/// The drop makes no last flush; call [`Wal::sync`] for that. A `PeriodicSync` is not a handle: it
/// does not keep the log open.
#[derive(Debug)]
#[must_use = "dropping it ends the policy"]
pub struct PeriodicSync {
    core: Weak<Core>,
    record_count: Option<u64>,
    _clock: Option<IntervalClock>,
}

/// Measures the interval until it is dropped.
#[derive(Debug)]
enum IntervalClock {
    Thread(#[expect(dead_code, reason = "dropping it ends the thread")] mpsc::Sender<()>),
    Task(AbortHandle),
}

impl Drop for IntervalClock {
    fn drop(&mut self) {
        if let IntervalClock::Task(task) = self {
            task.abort();
        }
    }
}

impl Wal {
    /// Syncs the log periodically in the background, until the returned value is dropped.
    ///
    /// A policy bounds how many records a power loss may take from callers that only
    /// [`append`](Wal::append) or [`enqueue`](Wal::enqueue). It **promises nothing for a single
    /// record**: all records since the last flush *began* may be lost, as a suffix of the log.
    /// Those are:
    ///
    /// - with [`SyncEvery::interval`], the records of one interval and of one flush, or of two
    ///   flushes if a flush was running when the interval ended;
    /// - with [`SyncEvery::records`], that number of records, and those written during flushes.
    ///
    /// If you need to know that a record is durable, use [`Wal::append_and_sync`], [`Wal::sync`] or
    /// [`Wal::watermarks`]. If a flush fails, the log is poisoned, and the next call returns the
    /// error. Several policies may be active, and each applies. An idle log is not flushed.
    ///
    /// A thread measures the interval. It needs no time driver, and flushes on time while all
    /// workers of the runtime are busy. The thread is started for the policy and ends with it. A
    /// record count needs no thread. The thread measures real time, also while tokio's clock is
    /// paused (`tokio::time::pause`): use [`SyncEvery::runtime_clock`] in that case.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidOption`] if a value is out of its range, or for an interval in a
    ///   simulation, which has no clock.
    /// - [`Error::Io`] if the thread cannot be started, or if the runtime's clock is requested
    ///   outside of a runtime.
    /// - [`Error::Poisoned`], [`Error::Closed`].
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
        core.status().check_new()?;
        let start = if policy.uses_runtime_clock { start_task } else { start_thread };
        let clock = policy.interval.map(|interval| start(core, interval)).transpose()?;
        if let Some(record_count) = policy.record_count {
            dispatch::add_order(core, record_count);
        }
        let record_count = policy.record_count;
        Ok(PeriodicSync { core: Arc::downgrade(&**core), record_count, _clock: clock })
    }
}

impl Drop for PeriodicSync {
    fn drop(&mut self) {
        if let (Some(core), Some(record_count)) = (self.core.upgrade(), self.record_count) {
            dispatch::remove_order(&core, record_count);
        }
    }
}

/// Requests a sync of all records that have an LSN. Returns `None` if the log has ended.
fn demand(core: &Weak<Core>) -> Option<()> {
    // A running job keeps the log open, too.
    let core = OpenLog::enter(&core.upgrade()?)?;
    core.status().check_new().ok()?;
    demand_sync(&core, core.records_end());
    Some(())
}

/// Starts a task that requests a sync after each `interval` of the runtime's clock.
fn start_task(core: &Arc<OpenLog>, interval: Duration) -> Result<IntervalClock> {
    let no_runtime = |error| {
        let error = std::io::Error::other(error);
        let place = core.storage().location();
        Error::io("finding the runtime's clock for sync_every of", place, None, error)
    };
    let runtime = Handle::try_current().map_err(no_runtime)?;
    let core = Arc::downgrade(&**core);
    let task = runtime.spawn(async move {
        let mut end = tokio::time::Instant::now() + interval;
        loop {
            tokio::time::sleep_until(end).await;
            if demand(&core).is_none() {
                return;
            }
            // Missed ends of intervals are skipped.
            end = (end + interval).max(tokio::time::Instant::now());
        }
    });
    Ok(IntervalClock::Task(task.abort_handle()))
}

/// Starts a thread that requests a sync after each `interval`.
///
/// The thread ends when the clock is dropped or the log has ended.
fn start_thread(core: &Arc<OpenLog>, interval: Duration) -> Result<IntervalClock> {
    let (clock, ended) = mpsc::channel();
    let location = core.storage().location();
    // Weak, because the thread must not keep the log open between two flushes.
    let core = Arc::downgrade(&**core);
    let keep_time = move || {
        while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            if demand(&core).is_none() {
                return;
            }
        }
    };
    thread::Builder::new().name("highwater-sync".to_owned()).spawn(keep_time).map_err(|error| {
        Error::io("starting the thread of sync_every for", location, None, error)
    })?;
    Ok(IntervalClock::Thread(clock))
}
