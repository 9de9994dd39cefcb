//! The window in which operations count, and how long they take.
//!
//! Tasks and threads count on lanes of their own; a thread of the meter's opens and closes the
//! window. The same for what blocks and for what is async.

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
    /// One operation of so many is timed: the clock itself costs as much as some appends.
    timed_every: u64,
    operations_per_lane: u64,
    bytes_per_lane: u64,
    limits: Limits,
    ended: Mutex<usize>,
    all_ended: Condvar,
}

/// One task's or one thread's.
pub struct Lane {
    meter: Arc<Meter>,
    index: usize,
    operations: u64,
    bytes: u64,
}

/// So much payload ends any run: disks are finite.
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

    /// All operations so far, warm-up included, and their bytes.
    pub fn total(&self) -> (u64, u64) {
        let sum = |of: fn(&Count) -> &AtomicU64| {
            self.counts.iter().map(|count| of(count).load(Ordering::Relaxed)).sum()
        };
        (sum(|count| &count.operations), sum(|count| &count.bytes))
    }

    /// The operations of each lane.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.operations.load(Ordering::Relaxed)).collect()
    }

    /// Opens and closes the window; to be called by a thread of its own when the work begins.
    pub fn watch(self: &Arc<Self>) -> Outcome {
        let mut opened = (Instant::now(), Usage::now(), (0, 0));
        let fixed = self.limits.fixed;
        let warm_up = if fixed { Duration::ZERO } else { self.limits.warm_up };
        let ended = self.wait(warm_up);
        if ended {
            // So short that there is no warm-up; all of it counts.
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

    /// What is known only when everybody has ended.
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

    /// Whether all lanes ended before the time was over.
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

    /// Also for latencies whose beginning isn't that of a call.
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

/// Two digits; up to 100 s, in nanoseconds.
fn new_histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, 100_000_000_000, 2).unwrap()
}

/// Threads take shards in turn, so that few ever share one.
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
    /// Whether there is another operation to do.
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

    /// Before an operation.
    #[inline]
    pub fn begin(&self) -> Option<Instant> {
        (self.operations % self.meter.timed_every == 0).then(Instant::now)
    }

    /// After it; `operations` at once, `bytes` in all.
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
