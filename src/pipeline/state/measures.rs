//! Measures of the log, taken by flushes, and by appends that wait anyway. An append that finds
//! room takes none.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::{
    pipeline::state::metrics::{Instruments, PayloadBytes, PayloadTotal},
    sync::{AtomicU64, LockAlways, Mutex, Ordering, add_alone},
};

/// Two digits: values are exact to within 1 %. A histogram takes at most about 30 KiB for times up
/// to a second.
const DIGITS: u8 = 2;

/// The distribution of a quantity: half of all values are at most `p50`, 99 % at most `p99`.
///
/// Values are rounded up, by less than 1 %; those below 256 (nanoseconds, records, bytes) are
/// exact. All are zero if nothing was measured yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Percentiles<T> {
    /// The number of values.
    pub count: u64,
    /// The median.
    pub p50: T,
    /// 90 % of the values are at most this.
    pub p90: T,
    /// 99 % of the values are at most this.
    pub p99: T,
    /// 99.9 % of the values are at most this.
    pub p999: T,
    /// The largest value.
    pub max: T,
}

impl<T> Percentiles<T> {
    fn map<U>(self, change: impl Fn(T) -> U) -> Percentiles<U> {
        Percentiles {
            count: self.count,
            p50: change(self.p50),
            p90: change(self.p90),
            p99: change(self.p99),
            p999: change(self.p999),
            max: change(self.max),
        }
    }
}

/// A histogram of one quantity. Its size grows with the largest value.
#[derive(Debug)]
struct Values(Option<Histogram<u64>>);

impl Default for Values {
    fn default() -> Self {
        // Fails only for more than five digits.
        Values(Histogram::new(DIGITS).ok())
    }
}

impl Values {
    fn record(&mut self, value: u64) {
        if let Some(histogram) = &mut self.0 {
            // Fails only if the histogram can't grow. Then this value is left out.
            let _ = histogram.record(value);
        }
    }

    fn percentiles(&self) -> Percentiles<u64> {
        self.0.as_ref().map_or_else(Percentiles::default, |histogram| Percentiles {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        })
    }
}

#[derive(Debug, Default)]
struct Flushes {
    time_ns: Values,
    record_count: Values,
    queue_bytes: Values,
    /// The records that earlier flushes covered.
    covered_count: u64,
}

/// Totals since the log was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) frames: AtomicU64,
    /// The control frames among them, counted when they are published.
    pub(crate) controls: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// The payloads of the records among them.
    pub(crate) payload: PayloadTotal,
    pub(crate) writes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) rotations: AtomicU64,
    /// The failed attempts to prepare the next segment.
    pub(crate) refusals: AtomicU64,
}

impl Counters {
    /// Counts `frame_count` written frames. The caller holds the writer's lock.
    pub(crate) fn wrote(&self, frame_count: u64, bytes: u64, payload: PayloadBytes) {
        add_alone(&self.frames, frame_count);
        add_alone(&self.bytes, bytes);
        self.payload.add(payload);
    }

    /// Counts a write call. The caller holds the writer's lock.
    pub(crate) fn called_write(&self) {
        add_alone(&self.writes, 1);
    }

    /// Returns the number of records written. While a control record is in flight it may be 1 too
    /// low.
    pub(crate) fn written_record_count(&self) -> u64 {
        let frame_count = self.frames.load(Ordering::Relaxed);
        frame_count.saturating_sub(self.controls.load(Ordering::Relaxed))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Measures {
    pub(crate) counters: Counters,
    pub(crate) instruments: Instruments,
    /// Locked by flushes and by reads of the statistics, never by an append.
    flushes: Mutex<Flushes>,
    room_wait_count: AtomicU64,
    room_wait_ns: AtomicU64,
}

/// A snapshot of [`Measures`].
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) sync_time: Percentiles<Duration>,
    pub(crate) records_per_sync: Percentiles<u64>,
    pub(crate) queue_bytes_at_sync: Percentiles<u64>,
    pub(crate) room_wait_count: u64,
    pub(crate) room_wait_time: Duration,
}

impl Measures {
    pub(crate) fn new(instruments: Instruments) -> Self {
        Measures { instruments, ..Measures::default() }
    }

    /// Notes that a group was synced. It ends with record number `record_count` since the log was
    /// opened. The ring held `queue_bytes` when the sync began.
    pub(crate) fn synced(&self, record_count: u64, queue_bytes: u64) {
        let mut flushes = self.flushes.lock_always();
        let group_count = record_count.saturating_sub(flushes.covered_count);
        // A control frame alone is no group, because no task waited for it.
        if group_count > 0 {
            flushes.covered_count = record_count;
            flushes.record_count.record(group_count);
            flushes.queue_bytes.record(queue_bytes);
            drop(flushes);
            self.instruments.group(group_count);
        }
    }

    pub(crate) fn flushed(&self, time: Duration) {
        let mut flushes = self.flushes.lock_always();
        flushes.time_ns.record(nanoseconds(time));
    }

    /// Counts a wait for room, which lasts while the guard lives.
    pub(crate) fn room_wait(&self) -> RoomWait<'_> {
        self.room_wait_count.fetch_add(1, Ordering::Relaxed);
        RoomWait { measures: self, began: Instant::now() }
    }

    pub(crate) fn look(&self) -> Measured {
        let flushes = self.flushes.lock_always();
        Measured {
            sync_time: flushes.time_ns.percentiles().map(Duration::from_nanos),
            records_per_sync: flushes.record_count.percentiles(),
            queue_bytes_at_sync: flushes.queue_bytes.percentiles(),
            room_wait_count: self.room_wait_count.load(Ordering::Relaxed),
            room_wait_time: Duration::from_nanos(self.room_wait_ns.load(Ordering::Relaxed)),
        }
    }
}

/// Counts the time of a wait when it is dropped: a cancelled append has waited, too.
pub(crate) struct RoomWait<'a> {
    measures: &'a Measures,
    began: Instant,
}

impl Drop for RoomWait<'_> {
    fn drop(&mut self) {
        let waited = self.began.elapsed();
        self.measures.room_wait_ns.fetch_add(nanoseconds(waited), Ordering::Relaxed);
        self.measures.instruments.room_waited(waited);
    }
}

/// A flush that was made, to be reported without a lock.
pub(crate) struct FlushReport {
    pub(crate) began: Instant,
    pub(crate) time: Duration,
    /// The file, if its flush took longer than an operator should accept.
    pub(crate) slow_segment: Option<String>,
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn percentiles_match_recorded_values() {
        let mut values = Values::default();
        assert_eq!(values.percentiles(), Percentiles::default());
        (1..=100).for_each(|value| values.record(value));
        let found = values.percentiles();
        assert_eq!((found.count, found.p50, found.p90, found.p99), (100, 50, 90, 99));
        assert_eq!((found.p999, found.max), (100, 100));
        // It grows, and stays within 1 %.
        for value in [1_000_000, u64::MAX / 4] {
            values.record(value);
            let max = values.percentiles().max;
            assert!(max >= value && max - value <= value / 100, "{value}: {max}");
        }
        values.record(u64::MAX);
        assert!(values.percentiles().count >= 102, "a value out of range is ignored");
    }

    #[test]
    fn flush_without_records_is_no_group() {
        let measures = Measures::default();
        measures.synced(0, 24);
        measures.synced(3, 100);
        measures.synced(3, 24);
        // A count that was read too early doesn't go back.
        measures.synced(2, 24);
        measures.synced(4, 50);
        let measured = measures.look();
        let records = measured.records_per_sync;
        assert_eq!((records.count, records.p50, records.max), (2, 1, 3));
        assert_eq!(measured.queue_bytes_at_sync.max, 100);
    }

    #[test]
    fn cancelled_wait_counts() {
        let measures = Measures::default();
        let wait = measures.room_wait();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(measures.look().room_wait_count, 1, "counted when it begins");
        drop(wait);
        assert!(measures.look().room_wait_time >= Duration::from_millis(2));
    }
}
