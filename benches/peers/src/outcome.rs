//! The results of a run, which a child process writes as JSON.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::usage::Usage;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Within the measured window.
    pub operations: u64,
    /// Payload within the measured window.
    pub bytes: u64,
    pub seconds: f64,
    /// The latencies of the timed operations.
    pub latency: Option<Latency>,
    pub usage: Usage,
    /// The peak, minus the memory that the process had before the run.
    pub peak_memory_kib: u64,
    /// Of the work `churn`.
    pub churned: Option<Churned>,
    /// A remark for the tables, such as a limited number of threads.
    pub note: Option<String>,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.seconds.max(1e-9)
    }

    /// Returns the processor time of an operation, in microseconds.
    pub fn cpu_us_each(&self) -> f64 {
        self.usage.cpu_seconds() * 1e6 / self.operations.max(1) as f64
    }

    pub fn mib_per_second(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / self.seconds.max(1e-9)
    }
}

/// Bytes that reached the device for each user byte.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Churned {
    /// Until the log first had as many bytes as it keeps.
    pub fresh: Option<f64>,
    /// Later, when the log drops a record for each record that it gets.
    pub steady: Option<f64>,
}

/// Percentiles of the latency, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latency {
    pub fn of(histogram: &Histogram<u32>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        let max = histogram.max() as f64 / 1e3;
        let some = Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999), max };
        (!histogram.is_empty()).then_some(some)
    }
}
