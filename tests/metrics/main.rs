//! The metrics of a log, as a recorder of the facade `metrics` gets them, and their documents.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a mistake in a test must stop it"
)]

mod atomic_recorder;
mod dashboards;
mod events;
mod names;
mod recorder_calls;
#[path = "../support/mod.rs"]
mod support;
mod values;

use std::collections::BTreeMap;

use futures::executor::block_on;
use metrics_util::{
    MetricKind,
    debugging::{DebugValue, DebuggingRecorder, Snapshotter},
};

/// The value of a metric. That of a counter is its increase since the last look.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Counter(u64),
    Gauge(f64),
    Histogram(Vec<f64>),
}

/// The metrics that a recorder has stored.
struct Recorded(Snapshotter);

#[derive(Clone, Debug)]
struct Metric {
    kind: MetricKind,
    unit: String,
    description: String,
    value: Value,
}

impl Recorded {
    /// Returns the metrics of the log `log` by name. All metrics begin at zero again.
    fn take(&self, log: &str) -> BTreeMap<String, Metric> {
        self.take_labelled(&[("log", log)])
    }

    /// Returns the metrics of a slot by name.
    fn take_slot(&self, log: &str, slot: &str) -> BTreeMap<String, Metric> {
        self.take_labelled(&[("log", log), ("slot", slot)])
    }

    fn take_labelled(&self, wanted: &[(&str, &str)]) -> BTreeMap<String, Metric> {
        let metrics = self.0.snapshot().into_vec().into_iter();
        let of_log = metrics.filter(|(key, ..)| {
            let labels: Vec<_> = key.key().labels().map(|it| (it.key(), it.value())).collect();
            labels == wanted
        });
        let named = of_log.map(|(key, unit, description, value)| {
            let value = match value {
                DebugValue::Counter(count) => Value::Counter(count),
                DebugValue::Gauge(value) => Value::Gauge(value.into_inner()),
                DebugValue::Histogram(values) => {
                    Value::Histogram(values.into_iter().map(|it| it.into_inner()).collect())
                }
            };
            let unit = unit.expect("a unit").as_str().to_owned();
            let description = description.expect("a description").to_string();
            let metric = Metric { kind: key.kind(), unit, description, value };
            (key.key().name().to_owned(), metric)
        });
        named.collect()
    }

    fn gauge(&self, log: &str, name: &str) -> f64 {
        match self.take(log)[name].value {
            Value::Gauge(value) => value,
            ref other => panic!("{name} is {other:?}"),
        }
    }
}

/// Runs `work` with a recorder of this thread. In memory all work of the log is in this thread.
fn with_recorder<T>(work: impl AsyncFnOnce(Recorded) -> T) -> T {
    let recorder = DebuggingRecorder::new();
    let recorded = Recorded(recorder.snapshotter());
    metrics::with_local_recorder(&recorder, || block_on(work(recorded)))
}
