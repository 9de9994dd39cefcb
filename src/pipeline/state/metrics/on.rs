//! The handles of a log's metrics, registered when the log is opened.
//!
//! A counter exists once, in `Counters` or where `Stats` reads it. [`Total`] passes the increase
//! on to the recorder. So an append never touches a handle, and a log that is opened again under
//! the same name continues the counter.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit,
};

use super::{Flow, Holdings, SlotValues};
use crate::{
    health::Health,
    sync::{AtomicU64, LockAlways, Mutex, Ordering, add_alone},
};

/// The name of the log in its metrics: the value of the label `log`.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogName(Option<Arc<str>>);

impl LogName {
    pub(crate) fn new(name: String) -> Self {
        LogName(Some(name.into()))
    }
}

/// A sum of payload bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PayloadBytes(u64);

impl PayloadBytes {
    pub(crate) fn of<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> Self {
        PayloadBytes(payloads.map(|payload| payload.len() as u64).sum())
    }

    #[inline]
    pub(crate) fn add(&mut self, bytes: u64) {
        self.0 = self.0.saturating_add(bytes);
    }

    #[inline]
    pub(crate) fn join(&mut self, other: PayloadBytes) {
        self.add(other.0);
    }
}

/// The payload bytes that were written since the log was opened.
#[derive(Debug, Default)]
pub(crate) struct PayloadTotal(AtomicU64);

impl PayloadTotal {
    /// The caller holds the writer's lock.
    #[inline]
    pub(crate) fn add(&self, bytes: PayloadBytes) {
        add_alone(&self.0, bytes.0);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A call that waits until its records are durable. Counts only if it is [`done`](Commit::done).
pub(crate) struct Commit<'a> {
    began: Instant,
    histogram: &'a Histogram,
}

impl Commit<'_> {
    #[inline]
    pub(crate) fn done(self) {
        self.histogram.record(self.began.elapsed());
    }
}

/// A counter of the log, and the part of it that the recorder has.
#[derive(Debug)]
struct Total {
    counter: Counter,
    published: AtomicU64,
}

impl Total {
    /// Passes the increase since the last call on. Two threads never pass the same part on.
    fn raise_to(&self, total: u64) {
        let before = self.published.fetch_max(total, Ordering::Relaxed);
        if total > before {
            self.counter.increment(total - before);
        }
    }
}

/// The handles of a log's metrics.
#[derive(Debug)]
pub(crate) struct Instruments {
    records: Total,
    payload_bytes: Total,
    written_bytes: Total,
    writes: Total,
    flushes: Total,
    rotations: Total,
    removed_segments: Total,
    recycled_segments: Total,
    stalls: Total,
    refusals: Total,
    first: Gauge,
    synced: Gauge,
    written: Gauge,
    reserved: Gauge,
    ring_used_bytes: Gauge,
    ring_bytes: Gauge,
    segments: Gauge,
    disk_bytes: Gauge,
    leases: Gauge,
    leased_bytes: Gauge,
    health: Gauge,
    histograms: Histograms,
    log: String,
    /// The gauges of each slot that was published: its lag, and the bytes that it holds.
    slots: Mutex<BTreeMap<Arc<str>, [Gauge; 2]>>,
}

#[derive(Debug)]
struct Histograms {
    flush_seconds: Histogram,
    commit_seconds: Histogram,
    group_records: Histogram,
    room_wait_seconds: Histogram,
}

impl Histograms {
    fn at(at: &Registration<'_>) -> Self {
        let (count, seconds) = (Unit::Count, Unit::Seconds);
        Histograms {
            flush_seconds: at.histogram("highwater_flush_seconds", seconds, "Time of a flush"),
            commit_seconds: at.histogram(
                "highwater_commit_seconds",
                seconds,
                "Time that a caller waited until its records were durable",
            ),
            group_records: at.histogram(
                "highwater_group_records",
                count,
                "Records that one sync made durable",
            ),
            room_wait_seconds: at.histogram(
                "highwater_room_wait_seconds",
                seconds,
                "Time that an append waited for room",
            ),
        }
    }
}

impl Default for Instruments {
    fn default() -> Self {
        Self::in_recorder(&metrics::NoopRecorder, "")
    }
}

impl Instruments {
    /// Whether the log has metrics.
    pub(crate) const IS_ON: bool = true;

    /// Registers the metrics at the recorder of this thread or, usually, of the process.
    /// `location` returns the name of a log that was given none.
    pub(crate) fn new(name: &LogName, location: impl FnOnce() -> String) -> Self {
        let name = name.0.as_deref().map_or_else(location, str::to_owned);
        metrics::with_recorder(|recorder| Self::in_recorder(recorder, &name))
    }

    fn in_recorder(recorder: &dyn Recorder, log: &str) -> Self {
        let at = Registration { recorder, labels: vec![Label::new("log", log.to_owned())] };
        let (count, bytes) = (Unit::Count, Unit::Bytes);
        Instruments {
            records: at.total("highwater_records_total", count, "Records written"),
            payload_bytes: at.total(
                "highwater_payload_bytes_total",
                bytes,
                "Bytes of the payloads of written records, as stored",
            ),
            written_bytes: at.total(
                "highwater_written_bytes_total",
                bytes,
                "Bytes of written frames, with headers and padding",
            ),
            writes: at.total("highwater_writes_total", count, "Write calls"),
            flushes: at.total("highwater_flushes_total", count, "Flushes of a file"),
            rotations: at.total("highwater_rotations_total", count, "Segments begun"),
            removed_segments: at.total(
                "highwater_removed_segments_total",
                count,
                "Segments removed after truncations",
            ),
            recycled_segments: at.total(
                "highwater_recycled_segments_total",
                count,
                "Segments prepared in the file of a removed one",
            ),
            stalls: at.total("highwater_stalls_total", count, "Stalls of an I/O call"),
            refusals: at.total(
                "highwater_refusals_total",
                count,
                "Failed attempts to prepare the next segment",
            ),
            first: at.gauge("highwater_first_lsn_bytes", bytes, "The first LSN of the log"),
            synced: at.gauge("highwater_synced_lsn_bytes", bytes, "All below is durable"),
            written: at.gauge("highwater_written_lsn_bytes", bytes, "All below is written"),
            reserved: at.gauge("highwater_reserved_lsn_bytes", bytes, "The end of the log"),
            ring_used_bytes: at.gauge(
                "highwater_ring_used_bytes",
                bytes,
                "Bytes of the ring that are reserved and not written",
            ),
            ring_bytes: at.gauge("highwater_ring_bytes", bytes, "The size of the ring"),
            segments: at.gauge("highwater_segments", count, "Segments of the log"),
            disk_bytes: at.gauge("highwater_disk_bytes", bytes, "Bytes of the segment files"),
            leases: at.gauge("highwater_leases", count, "Leases that keep segments"),
            leased_bytes: at.gauge(
                "highwater_leased_bytes",
                bytes,
                "Bytes on the disk that only leases keep",
            ),
            health: at.gauge(
                "highwater_health",
                count,
                "0 good, 1 slow, 2 refusing, 3 full, 4 stalled, 5 closed, 6 failed",
            ),
            histograms: Histograms::at(&at),
            log: log.to_owned(),
            slots: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn commit(&self) -> Commit<'_> {
        Commit { began: Instant::now(), histogram: &self.histograms.commit_seconds }
    }

    pub(crate) fn flushed(&self, time: Duration) {
        self.histograms.flush_seconds.record(time);
    }

    #[allow(clippy::cast_precision_loss, reason = "a group has far fewer than 2^53 records")]
    pub(crate) fn group(&self, record_count: u64) {
        self.histograms.group_records.record(record_count as f64);
    }

    pub(crate) fn room_waited(&self, time: Duration) {
        self.histograms.room_wait_seconds.record(time);
    }

    pub(crate) fn publish_flow(&self, look: impl FnOnce() -> Flow) {
        let flow = look();
        self.records.raise_to(flow.record_count);
        self.payload_bytes.raise_to(flow.payload_bytes);
        self.written_bytes.raise_to(flow.written_bytes);
        self.writes.raise_to(flow.write_count);
        self.flushes.raise_to(flow.flush_count);
        set(&self.first, flow.marks.first.as_u64());
        set(&self.synced, flow.marks.synced.as_u64());
        set(&self.written, flow.marks.written.as_u64());
        set(&self.reserved, flow.marks.reserved.as_u64());
        set(&self.ring_used_bytes, flow.ring_used_bytes);
    }

    pub(crate) fn publish_holdings(&self, look: impl FnOnce() -> Holdings) {
        let holdings = look();
        self.rotations.raise_to(holdings.rotation_count);
        self.removed_segments.raise_to(holdings.removed_count);
        self.recycled_segments.raise_to(holdings.recycled_count);
        self.stalls.raise_to(holdings.stall_count);
        self.refusals.raise_to(holdings.refusal_count);
        set(&self.segments, holdings.segment_count);
        set(&self.disk_bytes, holdings.disk_bytes);
        set(&self.ring_bytes, holdings.ring_bytes);
        set(&self.leases, holdings.lease_count);
        set(&self.leased_bytes, holdings.leased_bytes);
        set(&self.health, health_number(&holdings.health));
    }
}

impl Instruments {
    /// Publishes the slots, and zero for slots that are gone. A new slot's gauges are registered at
    /// the recorder of this thread or, usually, of the process.
    pub(crate) fn publish_slots(&self, look: impl FnOnce() -> Vec<SlotValues>) {
        let values = look();
        // The recorder is called without the lock.
        let mut known = self.slots.lock_always().clone();
        let added = values.iter().filter(|slot| !known.contains_key(&slot.name));
        let added: Vec<_> = added.map(|slot| (slot.name.clone(), self.slot_gauges(slot))).collect();
        known.extend(added);
        for (name, [lag, held]) in &known {
            let slot = values.iter().find(|slot| slot.name == *name);
            set(lag, slot.map_or(0, |slot| slot.lag_bytes));
            set(held, slot.map_or(0, |slot| slot.held_bytes));
        }
        known.retain(|name, _| values.iter().any(|slot| slot.name == *name));
        *self.slots.lock_always() = known;
    }

    fn slot_gauges(&self, slot: &SlotValues) -> [Gauge; 2] {
        let label = |name: &'static str, value: &str| Label::new(name, value.to_owned());
        let labels = vec![label("log", &self.log), label("slot", &slot.name)];
        metrics::with_recorder(|recorder| {
            let at = Registration { recorder, labels };
            let lag = "Bytes of durable records that the consumer has not passed";
            let held = "Bytes from the segment that the slot needs up to the durable end";
            [
                at.gauge("highwater_slot_lag_bytes", Unit::Bytes, lag),
                at.gauge("highwater_slot_held_bytes", Unit::Bytes, held),
            ]
        })
    }
}

/// The recorder at which metrics are registered, and their labels. A metric of a part of the log,
/// such as a consumer, is registered with one more label.
struct Registration<'a> {
    recorder: &'a dyn Recorder,
    labels: Vec<Label>,
}

const METADATA: Metadata<'static> = Metadata::new("highwater", Level::INFO, Some("highwater"));

impl Registration<'_> {
    fn key(&self, name: &'static str) -> Key {
        Key::from_parts(name, self.labels.clone())
    }

    fn total(&self, name: &'static str, unit: Unit, description: &'static str) -> Total {
        let (key, description) = (KeyName::from(name), SharedString::from(description));
        self.recorder.describe_counter(key, Some(unit), description);
        let counter = self.recorder.register_counter(&self.key(name), &METADATA);
        Total { counter, published: AtomicU64::new(0) }
    }

    fn gauge(&self, name: &'static str, unit: Unit, description: &'static str) -> Gauge {
        let (key, description) = (KeyName::from(name), SharedString::from(description));
        self.recorder.describe_gauge(key, Some(unit), description);
        self.recorder.register_gauge(&self.key(name), &METADATA)
    }

    fn histogram(&self, name: &'static str, unit: Unit, description: &'static str) -> Histogram {
        let (key, description) = (KeyName::from(name), SharedString::from(description));
        self.recorder.describe_histogram(key, Some(unit), description);
        self.recorder.register_histogram(&self.key(name), &METADATA)
    }
}

#[allow(clippy::cast_precision_loss, reason = "positions above 2^53 are rounded")]
fn set(gauge: &Gauge, value: u64) {
    gauge.set(value as f64);
}

/// Returns the value of the gauge `highwater_health`. Higher is worse, except that a closed log is
/// no failure.
fn health_number(health: &Health) -> u64 {
    match health {
        Health::Good => 0,
        Health::Slow => 1,
        Health::Refusing { .. } => 2,
        Health::Full { .. } => 3,
        Health::Stalled { .. } => 4,
        Health::Stopped { error } if error.is_closed() => 5,
        Health::Stopped { .. } => 6,
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::thread;

    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    #[test]
    fn concurrent_publishers_count_each_part_once() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let instruments = Instruments::in_recorder(&recorder, "log");
        let total = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        total.fetch_add(1, Ordering::Relaxed);
                        instruments.records.raise_to(total.load(Ordering::Relaxed));
                    }
                });
            }
        });
        let counted = snapshotter.snapshot().into_vec().into_iter().find_map(|metric| {
            let (key, _, _, value) = metric;
            (key.key().name() == "highwater_records_total").then_some(value)
        });
        assert_eq!(counted, Some(DebugValue::Counter(40_000)));
    }
}
