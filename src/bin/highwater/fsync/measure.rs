//! Writes and flushes, timed.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    files::{Scratch, Sync},
    output::Failure,
    progress::Progress,
};

/// What is written again and again, and flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Case {
    /// 4 KiB into zeros written ahead, `fdatasync`.
    Floor,
    /// The same with 512 bytes.
    Small,
    /// The same with `fsync`.
    Fsync,
    /// The same with each write flushed by itself (`O_DSYNC`).
    Dsync,
    /// 4 KiB into space that is reserved and was never written.
    Reserved,
    /// 4 KiB at the end of a file that grows.
    Growing,
    /// 64 KiB into zeros written ahead.
    Group64,
    /// 1 MiB into zeros written ahead.
    Group1024,
}

const ALL: [Case; 8] = [
    Case::Floor,
    Case::Small,
    Case::Fsync,
    Case::Dsync,
    Case::Reserved,
    Case::Growing,
    Case::Group64,
    Case::Group1024,
];

impl Case {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Case::Floor => "4 KiB into zeros written ahead, fdatasync",
            Case::Small => "512 B into zeros written ahead, fdatasync",
            Case::Fsync => "4 KiB into zeros written ahead, fsync",
            Case::Dsync => "4 KiB into zeros written ahead, O_DSYNC",
            Case::Reserved => "4 KiB into space only reserved, fdatasync",
            Case::Growing => "4 KiB onto a growing file, fdatasync",
            Case::Group64 => "64 KiB into zeros written ahead, fdatasync",
            Case::Group1024 => "1 MiB into zeros written ahead, fdatasync",
        }
    }

    fn write_bytes(self) -> usize {
        match self {
            Case::Small => 512,
            Case::Group64 => 64 << 10,
            Case::Group1024 => 1 << 20,
            _ => 4 << 10,
        }
    }

    fn sync(self) -> Sync {
        match self {
            Case::Fsync => Sync::All,
            Case::Dsync => Sync::EachWrite,
            _ => Sync::Data,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) case: Case,
    pub(crate) count: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p90_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) max_ns: u64,
    pub(crate) per_second: u64,
}

/// The file: wrapped around when it is full.
const FILE_BYTES: u64 = 16 << 20;

/// What takes longer counts as this.
const SLOWEST_NS: u64 = 600_000_000_000;

/// How fast zeros can be written, and each case that this system has.
pub(crate) fn measure(
    directory: &Path,
    duration: Duration,
) -> Result<(u64, Vec<Measured>), Failure> {
    let mut scratch = Scratch::create(directory)?;
    let begun = Instant::now();
    scratch.zero_fill(FILE_BYTES)?;
    let nanoseconds = begun.elapsed().as_nanos().max(1);
    let filled = u128::from(FILE_BYTES) * 1_000_000_000 / nanoseconds;
    let total_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut progress = Progress::of_time(total_ms);
    let share = duration / u32::try_from(ALL.len()).unwrap_or(1);
    let mut measured = Vec::new();
    for case in ALL {
        measured.extend(run(&mut scratch, case, share, &mut progress)?);
    }
    Ok((u64::try_from(filled).unwrap_or(u64::MAX), measured))
}

/// Makes the file what the case begins with; `false` if this system can't.
fn prepare(scratch: &mut Scratch, case: Case) -> Result<bool, Failure> {
    match case {
        Case::Reserved => scratch.reserve(FILE_BYTES),
        Case::Growing => scratch.empty().map(|()| true),
        _ => scratch.open_for(case.sync(), FILE_BYTES),
    }
}

fn run(
    scratch: &mut Scratch,
    case: Case,
    share: Duration,
    progress: &mut Progress,
) -> Result<Option<Measured>, Failure> {
    if !prepare(scratch, case)? {
        return Ok(None);
    }
    // No two writes alike: a device that compresses or leaves equal blocks out has no advantage.
    let mut bytes: Vec<u8> = (0..case.write_bytes()).map(|at| (at % 251) as u8).collect();
    let mut latency = Histogram::<u64>::new_with_bounds(1, SLOWEST_NS, 3).map_err(|error| {
        crate::output::told(crate::check::UNREADABLE, format!("measuring: {error}"))
    })?;
    let (begun, mut told_ms, mut at, mut count) = (Instant::now(), 0, 0, 0u64);
    let mut flushing = Duration::ZERO;
    while count == 0 || begun.elapsed() < share {
        if at + bytes.len() as u64 > FILE_BYTES {
            at = 0;
            // Space that was written once is no longer what is measured.
            if matches!(case, Case::Reserved | Case::Growing) {
                prepare(scratch, case)?;
            }
        }
        bytes.iter_mut().zip(count.to_le_bytes()).for_each(|(byte, new)| *byte = new);
        let started = Instant::now();
        scratch.write_and_sync(at, &bytes, case.sync())?;
        let took = started.elapsed();
        flushing += took;
        latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        at += bytes.len() as u64;
        count += 1;
        let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        progress.add(elapsed_ms - told_ms);
        told_ms = elapsed_ms;
    }
    let per_second = u128::from(count) * 1_000_000_000 / flushing.as_nanos().max(1);
    Ok(Some(Measured {
        case,
        count,
        p50_ns: latency.value_at_quantile(0.5),
        p90_ns: latency.value_at_quantile(0.9),
        p99_ns: latency.value_at_quantile(0.99),
        max_ns: latency.max(),
        per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
    }))
}
