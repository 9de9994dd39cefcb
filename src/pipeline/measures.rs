//! What the log measures of itself: by the jobs that flush, and by appends that wait anyway. An
//! append that finds room touches nothing of this.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{
    error::Result,
    pipeline::core::Core,
    segments::SegmentFile,
    sync::{AtomicU64, Mutex, Ordering},
};

/// A flush that takes this long is worth a line in the operator's log: a healthy device, however
/// slow, is far below.
const SLOW_FLUSH: Duration = Duration::from_secs(1);

/// Two digits: a value is told to within 1 %, and a histogram takes some 30 KiB at most for times
/// up to a second.
const DIGITS: u8 = 2;

/// How a quantity was distributed: half of all values were at most `p50`, 99 % at most `p99`.
///
/// Values are rounded up, by less than 1 %; those below 256 (nanoseconds, records, bytes) are
/// exact. All are zero if nothing was measured yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Percentiles<T> {
    /// How many values there were.
    pub count: u64,
    /// The median.
    pub p50: T,
    /// What 90 % of the values don't exceed.
    pub p90: T,
    /// What 99 % of the values don't exceed.
    pub p99: T,
    /// What 99.9 % of the values don't exceed.
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

/// Values of one quantity. It grows with the largest of them.
#[derive(Debug)]
struct Values(Option<Histogram<u64>>);

impl Default for Values {
    fn default() -> Self {
        // Refused for more than five digits only.
        Values(Histogram::new(DIGITS).ok())
    }
}

impl Values {
    fn record(&mut self, value: u64) {
        if let Some(histogram) = &mut self.0 {
            // Fails only where there is no memory to grow: one value less.
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
    /// Records that were covered before.
    covered_count: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Measures {
    /// Locked by those who flush and those who look: never by an append.
    flushes: Mutex<Flushes>,
    room_wait_count: AtomicU64,
    room_wait_ns: AtomicU64,
}

/// What [`Measures`] holds, for those who look.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) sync_time: Percentiles<Duration>,
    pub(crate) records_per_sync: Percentiles<u64>,
    pub(crate) queue_bytes_at_sync: Percentiles<u64>,
    pub(crate) room_wait_count: u64,
    pub(crate) room_wait_time: Duration,
}

impl Measures {
    /// A group was synced: all of the first `record_count` records are. `queue_bytes` stood in the
    /// ring when its sync began.
    pub(super) fn synced(&self, record_count: u64, queue_bytes: u64) {
        let mut flushes = self.flushes.lock().unwrap_or_else(PoisonError::into_inner);
        let group_count = record_count.saturating_sub(flushes.covered_count);
        // A control frame alone is no group: nobody waited for it.
        if group_count > 0 {
            flushes.covered_count = record_count;
            flushes.record_count.record(group_count);
            flushes.queue_bytes.record(queue_bytes);
        }
    }

    fn flushed(&self, time: Duration) {
        let mut flushes = self.flushes.lock().unwrap_or_else(PoisonError::into_inner);
        flushes.time_ns.record(nanoseconds(time));
    }

    /// An append has to wait for room, for as long as the guard lives.
    pub(super) fn room_wait(&self) -> RoomWait<'_> {
        self.room_wait_count.fetch_add(1, Ordering::Relaxed);
        RoomWait { measures: self, began: Instant::now() }
    }

    pub(crate) fn look(&self) -> Measured {
        let flushes = self.flushes.lock().unwrap_or_else(PoisonError::into_inner);
        Measured {
            sync_time: flushes.time_ns.percentiles().map(Duration::from_nanos),
            records_per_sync: flushes.record_count.percentiles(),
            queue_bytes_at_sync: flushes.queue_bytes.percentiles(),
            room_wait_count: self.room_wait_count.load(Ordering::Relaxed),
            room_wait_time: Duration::from_nanos(self.room_wait_ns.load(Ordering::Relaxed)),
        }
    }
}

/// Counts the time of a wait however it ends: a dropped append has waited too.
pub(super) struct RoomWait<'a> {
    measures: &'a Measures,
    began: Instant,
}

impl Drop for RoomWait<'_> {
    fn drop(&mut self) {
        let waited_ns = nanoseconds(self.began.elapsed());
        self.measures.room_wait_ns.fetch_add(waited_ns, Ordering::Relaxed);
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Core {
    /// Flushes a file, and says so if that was slow.
    pub(super) fn flush(&self, file: &SegmentFile) -> Result<()> {
        let began = Instant::now();
        file.sync_data()?;
        let time = began.elapsed();
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.measures.flushed(time);
        if time >= SLOW_FLUSH {
            let log = self.storage.location();
            tracing::warn!(
                log,
                segment = file.name(),
                ?time,
                "a slow flush: commits waited for it"
            );
        }
        Ok(())
    }

    /// Records written so far. While a control record is on its way it may be one too few.
    pub(super) fn written_record_count(&self) -> u64 {
        let counters = &self.counters;
        let frame_count = counters.frames.load(Ordering::Relaxed);
        frame_count.saturating_sub(counters.controls.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
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
        assert!(values.percentiles().count >= 102, "what can't be told exactly stops nobody");
    }

    #[test]
    fn a_group_without_records_is_none() {
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
    fn a_wait_that_is_given_up_counts() {
        let measures = Measures::default();
        let wait = measures.room_wait();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(measures.look().room_wait_count, 1, "from its beginning on");
        drop(wait);
        assert!(measures.look().room_wait_time >= Duration::from_millis(2));
    }
}
