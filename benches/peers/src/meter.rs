//! Counts and times the operations of a measured window.
//!
//! Each task or thread counts on its own lane, and one further thread opens and closes the window.
//! Blocking and async contenders use the same meter.

use std::{
    cell::Cell,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{
    outcome::{Latency, Outcome},
    usage::{Usage, peak_memory_kib},
    work::{Assignment, Kind, Limits},
};

const WARM_UP: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

const SHARDS: usize = 64;

#[repr(align(128))]
#[derive(Default)]
struct Count {
    operations: AtomicU64,
    bytes: AtomicU64,
}

pub struct Meter {
    phase: AtomicU8,
    counts: Vec<Count>,
    histograms: Vec<Mutex<Option<Histogram<u32>>>>,
    /// One of this many operations is timed, because the clock costs as much as a fast append.
    timed_every: u64,
    operations_per_lane: u64,
    bytes_per_lane: u64,
    limits: Limits,
    ended: Mutex<usize>,
    all_ended: Condvar,
}

/// The counters of one task or thread. Dropping the lane ends it.
pub struct Lane {
    meter: Arc<Meter>,
    index: usize,
    operations: u64,
    bytes: u64,
}

/// The most payload bytes of a run without a fixed amount, because disks are finite.
const BYTES_MAX: u64 = 1 << 29;

impl Meter {
    pub fn new(assignment: &Assignment, lanes: usize) -> Arc<Self> {
        let work = &assignment.work;
        let timed_every = match work.kind {
            Kind::Append if work.tasks < 64 => 8,
            Kind::Enqueue => u64::MAX,
            _ => 1,
        };
        let bytes = if work.bytes == 0 { BYTES_MAX } else { work.bytes };
        let lanes_wide = lanes as u64;
        let operations = assignment.limits.operations;
        Arc::new(Meter {
            phase: AtomicU8::new(WARM_UP),
            counts: (0..lanes).map(|_| Count::default()).collect(),
            histograms: (0..SHARDS).map(|_| Mutex::new(None)).collect(),
            timed_every,
            operations_per_lane: operations.map_or(u64::MAX, |all| all.div_ceil(lanes_wide)),
            bytes_per_lane: bytes.div_ceil(lanes_wide),
            limits: assignment.limits,
            ended: Mutex::new(0),
            all_ended: Condvar::new(),
        })
    }

    pub fn lane(self: &Arc<Self>, index: usize) -> Lane {
        Lane { meter: self.clone(), index, operations: 0, bytes: 0 }
    }

    /// Returns the number of operations, warm-up included, and their bytes.
    pub fn total(&self) -> (u64, u64) {
        let sum = |of: fn(&Count) -> &AtomicU64| {
            self.counts.iter().map(|count| of(count).load(Ordering::Relaxed)).sum()
        };
        (sum(|count| &count.operations), sum(|count| &count.bytes))
    }

    /// Returns the number of operations of each lane.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.operations.load(Ordering::Relaxed)).collect()
    }

    /// Opens and closes the window, and returns its counts. Blocks.
    ///
    /// A thread that does nothing else calls it when the work begins.
    pub fn watch(self: &Arc<Self>) -> Outcome {
        let mut opened = (Instant::now(), Usage::now(), (0, 0));
        let fixed = self.limits.fixed;
        let warm_up = if fixed { Duration::ZERO } else { self.limits.warm_up };
        let ended = self.wait(warm_up);
        if ended {
            // The work ended during the warm-up, so all of it counts.
        } else if fixed {
            self.phase.store(MEASURE, Ordering::Relaxed);
            self.wait(self.limits.measure);
        } else {
            opened = (Instant::now(), Usage::now(), self.total());
            self.phase.store(MEASURE, Ordering::Relaxed);
            self.wait(self.limits.measure);
        }
        let (seconds, usage, total) =
            (opened.0.elapsed().as_secs_f64(), Usage::now(), self.total());
        self.phase.store(STOP, Ordering::Relaxed);
        Outcome {
            operations: total.0 - opened.2.0,
            bytes: total.1 - opened.2.1,
            seconds,
            usage: usage.since(&opened.1),
            ..Outcome::default()
        }
    }

    /// Adds the values that are known only after all lanes have ended.
    pub fn complete(&self, outcome: &mut Outcome) {
        let mut all: Option<Histogram<u32>> = None;
        for shard in &self.histograms {
            let shard = shard.lock().unwrap();
            match (&mut all, shard.as_ref()) {
                (Some(all), Some(shard)) => all.add(shard).unwrap(),
                (None, Some(shard)) => all = Some(shard.clone()),
                (_, None) => {}
            }
        }
        outcome.latency = all.as_ref().and_then(Latency::of);
        outcome.peak_memory_kib = peak_memory_kib();
    }

    /// Waits until all lanes have ended, at most for `time`. Returns whether they have.
    fn wait(&self, time: Duration) -> bool {
        let ended = self.ended.lock().unwrap();
        let lanes = self.counts.len();
        let (ended, _) =
            self.all_ended.wait_timeout_while(ended, time, |ended| *ended < lanes).unwrap();
        *ended >= lanes
    }

    pub fn stopped(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == STOP
    }

    /// Records a latency. Callers that do not measure from the start of a call use it directly.
    pub fn record(&self, latency: Duration) {
        if self.phase.load(Ordering::Relaxed) == WARM_UP && !self.limits.warm_up.is_zero() {
            return;
        }
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let mut shard = self.histograms[shard()].lock().unwrap();
        let histogram = shard.get_or_insert_with(new_histogram);
        histogram.saturating_record(nanoseconds);
    }
}

/// Returns a histogram of nanoseconds up to 100 s, with 2 significant digits.
fn new_histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, 100_000_000_000, 2).unwrap()
}

/// Returns this thread's shard. Threads get shards in turn, so that few threads share one.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<Option<usize>> = const { Cell::new(None) };
    }
    MINE.with(|mine| match mine.get() {
        Some(shard) => shard,
        None => {
            let shard = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            mine.set(Some(shard));
            shard
        }
    })
}

impl Lane {
    /// Returns whether the lane has another operation to do.
    #[inline]
    pub fn more(&self) -> bool {
        !self.meter.stopped()
            && self.operations < self.meter.operations_per_lane
            && self.bytes < self.meter.bytes_per_lane
    }

    #[inline]
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Starts an operation. Returns the time if this operation is timed.
    #[inline]
    pub fn begin(&self) -> Option<Instant> {
        self.operations.is_multiple_of(self.meter.timed_every).then(Instant::now)
    }

    /// Ends a call that did `operations` operations with `bytes` payload bytes in total.
    #[inline]
    pub fn done(&mut self, begun: Option<Instant>, operations: u64, bytes: usize) {
        if let Some(begun) = begun {
            self.meter.record(begun.elapsed());
        }
        self.operations += operations;
        self.bytes += bytes as u64;
        let count = &self.meter.counts[self.index];
        count.operations.store(self.operations, Ordering::Relaxed);
        count.bytes.store(self.bytes, Ordering::Relaxed);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        *self.meter.ended.lock().unwrap() += 1;
        self.meter.all_ended.notify_all();
    }
}
