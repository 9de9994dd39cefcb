//! One flush of one file, measured.

use std::time::{Duration, Instant};

use crate::{
    error::Result,
    operation::Operation,
    pipeline::{
        core::Core,
        state::{in_flight::Lane, measures::FlushReport},
    },
    segments::SegmentFile,
    sync::Ordering,
};

/// Flushes a file, as a call of `lane`. The caller reports the result when no lock is held, because
/// a subscriber and a recorder are user code.
pub(super) fn flush_quietly(core: &Core, lane: Lane, file: &SegmentFile) -> Result<FlushReport> {
    let underway = core.begin(lane, Operation::Flush, file.sequence());
    let began = Instant::now();
    file.sync_data()?;
    let time = began.elapsed();
    drop(underway);
    Ok(measured(core, file, began, time))
}

/// Counts a flush of a file that began at `began` and took `time`.
pub(super) fn measured(
    core: &Core,
    file: &SegmentFile,
    began: Instant,
    time: Duration,
) -> FlushReport {
    core.measures().counters.syncs.fetch_add(1, Ordering::Relaxed);
    core.measures().flushed(time);
    let is_slow = time >= core.config().stall_after;
    FlushReport { began, time, slow_segment: is_slow.then(|| file.name().to_owned()) }
}

pub(super) fn report(core: &Core, FlushReport { time, slow_segment, .. }: &FlushReport) {
    core.measures().instruments.flushed(*time);
    if let Some(segment) = slow_segment {
        let log = core.storage().location();
        tracing::warn!(log, segment, ?time, "a slow flush: commits waited for it");
    }
}
