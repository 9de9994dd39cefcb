//! Measures many Raft groups on one shared log, or on one log per group.
//!
//! Each group has one writer, which waits until an entry is durable before it appends the next.
//! openraft is left out, because a thousand instances of it would dominate the result.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use highwater::{
    Wal,
    raft::{Entry, RaftGroup, RaftLog},
};

use crate::{load::Measured, types::Written};

/// The segment size, small because each of up to 1,000 logs has several segments.
const SEGMENT_BYTES: u64 = 1 << 20;

pub(crate) async fn run(
    at: &Path,
    count: u64,
    shared: bool,
    payload: usize,
    duration: Duration,
) -> io::Result<Measured> {
    let mut logs = Vec::new();
    let log_count = if shared { 1 } else { count };
    for number in 0..log_count {
        let wal = Wal::options().segment_bytes(SEGMENT_BYTES);
        let options = RaftLog::options().wal(wal).tail_cache_bytes(1 << 20);
        logs.push(options.open(at.join(number.to_string())).await?);
    }
    let groups = (0..count).map(|id| logs[(id % log_count) as usize].group(id));
    let syncs = || logs.iter().map(|log| log.wal().stats().sync_count).sum::<u64>();
    let bytes = || logs.iter().map(|log| log.wal().stats().written_bytes).sum::<u64>();
    let (syncs_before, bytes_before) = (syncs(), bytes());
    let started = Instant::now();
    let tasks: Vec<_> =
        groups.map(|group| tokio::spawn(commit(group, payload, started + duration))).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let took = started.elapsed();
    let written = Written { sync_count: syncs() - syncs_before, bytes: bytes() - bytes_before };
    for log in &logs {
        log.close().await?;
    }
    Ok(Measured { took, latencies, written: Some(written) })
}

async fn commit(group: RaftGroup, bytes: usize, deadline: Instant) -> io::Result<Vec<u32>> {
    let mut latencies = Vec::new();
    let mut index = 1;
    while Instant::now() < deadline {
        let started = Instant::now();
        let entry = Entry { index, term: 1, payload: vec![7; bytes].into() };
        group.append(entry).await?.synced().await?;
        latencies.push(started.elapsed().as_micros() as u32);
        index += 1;
    }
    Ok(latencies)
}
