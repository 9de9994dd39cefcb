//! A recorder whose handles call a function for each value, and allocate nothing.

use std::sync::Arc;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

/// Calls `called` for each value of each metric.
pub(crate) struct Calling<F>(pub(crate) Arc<F>);

struct Handle<F>(Arc<F>);

impl<F: Fn()> CounterFn for Handle<F> {
    fn increment(&self, _: u64) {
        self.0();
    }
    fn absolute(&self, _: u64) {
        self.0();
    }
}

impl<F: Fn()> GaugeFn for Handle<F> {
    fn increment(&self, _: f64) {
        self.0();
    }
    fn decrement(&self, _: f64) {
        self.0();
    }
    fn set(&self, _: f64) {
        self.0();
    }
}

impl<F: Fn()> HistogramFn for Handle<F> {
    fn record(&self, _: f64) {
        self.0();
    }
}

impl<F: Fn() + Send + Sync + 'static> Recorder for Calling<F> {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Handle(Arc::clone(&self.0))))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(Handle(Arc::clone(&self.0))))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Handle(Arc::clone(&self.0))))
    }
}
