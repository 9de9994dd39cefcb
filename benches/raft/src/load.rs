//! Measures clients that write one entry after the other, and their latencies.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{
    cluster::Cluster,
    types::{Payload, Written},
};

pub(crate) struct Measured {
    pub(crate) took: Duration,
    /// The latency of each operation, in microseconds.
    pub(crate) latencies: Vec<u32>,
    /// The leader's writes during the measurement; `None` if it has no log.
    pub(crate) written: Option<Written>,
}

impl Measured {
    /// Returns the rate of completed operations.
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = |part: f64| {
            let index = (sorted.len() as f64 * part) as usize;
            sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
        };
        write!(f, "{:>10.0} {:>9} {:>9}", self.per_second(), at(0.5), at(0.99))?;
        let entries = sorted.len().max(1) as f64;
        if let Some(Written { sync_count, bytes }) = &self.written {
            write!(f, " {:>12.4} {:>12.1}", *sync_count as f64 / entries, *bytes as f64 / entries)?;
        }
        Ok(())
    }
}

pub(crate) async fn run(
    cluster: &Cluster,
    clients: usize,
    payload: usize,
    duration: Duration,
) -> Measured {
    // A warm-up, so that connections, caches and segments exist when the measurement begins.
    writes(cluster, clients, payload, duration / 10).await;
    let before = cluster.leader_written();
    let started = Instant::now();
    let latencies = writes(cluster, clients, payload, duration).await;
    let took = started.elapsed();
    let written = cluster.leader_written().zip(before).map(|(after, before)| Written {
        sync_count: after.sync_count - before.sync_count,
        bytes: after.bytes - before.bytes,
    });
    Measured { took, latencies, written }
}

async fn writes(cluster: &Cluster, clients: usize, payload: usize, duration: Duration) -> Vec<u32> {
    let deadline = Instant::now() + duration;
    let client = |_| {
        let raft = cluster.leader().clone();
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while Instant::now() < deadline {
                let started = Instant::now();
                let written = raft.client_write(Payload(vec![7; payload])).await;
                written.expect("the leader stays the leader during the measurement");
                latencies.push(started.elapsed().as_micros() as u32);
            }
            latencies
        })
    };
    let tasks: Vec<_> = (0..clients).map(client).collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("no client panics"));
    }
    all
}
