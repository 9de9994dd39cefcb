//! Measures writes and flushes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    exit::UNREADABLE,
    files::{Scratch, Sync, aligned},
    output::{Failure, failure, note},
    progress::Progress,
};

/// A kind of write and flush that is measured.
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
    /// The same past the page cache (`O_DIRECT` and `O_DSYNC`). No log writes so; it shows the gain
    /// of a device with FUA.
    DirectDsync,
    /// 4 KiB into space that is reserved and was never written.
    Reserved,
    /// 4 KiB at the end of a file that grows.
    Growing,
    /// 64 KiB into zeros written ahead.
    Group64,
    /// 1 MiB into zeros written ahead.
    Group1024,
}

const ALL: [Case; 9] = [
    Case::Floor,
    Case::Small,
    Case::Fsync,
    Case::Dsync,
    Case::DirectDsync,
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
            Case::DirectDsync => "4 KiB into zeros written ahead, O_DIRECT",
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

    fn wants_fresh_space(self) -> bool {
        matches!(self, Case::Reserved | Case::Growing)
    }

    fn sync(self) -> Sync {
        match self {
            Case::Fsync => Sync::All,
            Case::Dsync => Sync::EachWrite,
            Case::DirectDsync => Sync::EachDirectWrite,
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

/// The size of the file. At its end, the writes start again at 0.
const FILE_BYTES: u64 = 16 << 20;

/// The longest time that is recorded. Longer times count as this one.
const SLOWEST_NS: u64 = 600_000_000_000;

/// The number of turns of each case, so that other load affects all cases.
const ROUNDS: u32 = 16;

/// Measures the rate of zero filling, and each case that this system supports.
pub(crate) fn measure(
    directory: &Path,
    duration: Duration,
) -> Result<(u64, Vec<Measured>), Failure> {
    for name in Scratch::leftovers(directory)? {
        note(format_args!("{name}: left by a run that was killed; delete it"));
    }
    let (mut zeroed, mut fresh) = (Scratch::create(directory)?, Scratch::create(directory)?);
    let begun = Instant::now();
    zeroed.zero_fill(FILE_BYTES)?;
    let filled = per_second(FILE_BYTES, begun.elapsed());
    let mut progress = Progress::of_time(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    let mut runs = Vec::new();
    for case in ALL {
        let latency = Histogram::new_with_bounds(1, SLOWEST_NS, 3);
        let latency =
            latency.map_err(|error| failure(UNREADABLE, format!("measuring: {error}")))?;
        runs.push(Run { case, latency, spent: Duration::ZERO });
    }
    let turn = duration / ROUNDS / u32::try_from(ALL.len()).unwrap_or(1);
    for _ in 0..ROUNDS {
        for run in &mut runs {
            let scratch = if run.case.wants_fresh_space() { &mut fresh } else { &mut zeroed };
            run.take_turn(scratch, turn, &mut progress)?;
        }
    }
    Ok((filled, runs.iter().filter_map(Run::measured).collect()))
}

fn per_second(count: u64, time: Duration) -> u64 {
    let per_second = u128::from(count) * 1_000_000_000 / time.as_nanos().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

struct Run {
    case: Case,
    latency: Histogram<u64>,
    spent: Duration,
}

impl Run {
    /// Prepares the file for the case. Returns `false` if this system does not support the case.
    fn prepare(&self, scratch: &mut Scratch) -> Result<bool, Failure> {
        match self.case {
            Case::Reserved => scratch.reserve(FILE_BYTES),
            Case::Growing => scratch.empty().map(|()| true),
            _ => scratch.open_for(self.case.sync(), FILE_BYTES),
        }
    }

    fn take_turn(
        &mut self,
        scratch: &mut Scratch,
        turn: Duration,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        if !self.prepare(scratch)? {
            return Ok(());
        }
        let case = self.case;
        // A direct write needs aligned memory.
        let mut memory = Vec::new();
        let bytes = aligned(&mut memory, case.write_bytes());
        bytes.iter_mut().zip((0..=250).cycle()).for_each(|(byte, value)| *byte = value);
        let (begun, mut reported_ms, mut at, mut is_first) = (Instant::now(), 0, 0, true);
        while is_first || begun.elapsed() < turn {
            is_first = false;
            if at + bytes.len() as u64 > FILE_BYTES {
                at = 0;
                // Prepared again, because the case measures space that was never written.
                if case.wants_fresh_space() {
                    self.prepare(scratch)?;
                }
            }
            // All writes differ, because a device may skip equal blocks.
            let number = self.latency.len().to_le_bytes();
            bytes.iter_mut().zip(number).for_each(|(byte, new)| *byte = new);
            let started = Instant::now();
            scratch.write_and_sync(at, bytes, case.sync())?;
            let took = started.elapsed();
            self.spent += took;
            self.latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            at += bytes.len() as u64;
            let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            progress.add(elapsed_ms - reported_ms);
            reported_ms = elapsed_ms;
        }
        Ok(())
    }

    fn measured(&self) -> Option<Measured> {
        let Run { case, latency, spent } = self;
        (!latency.is_empty()).then(|| Measured {
            case: *case,
            count: latency.len(),
            p50_ns: latency.value_at_quantile(0.5),
            p90_ns: latency.value_at_quantile(0.9),
            p99_ns: latency.value_at_quantile(0.99),
            max_ns: latency.max(),
            per_second: per_second(latency.len(), *spent),
        })
    }
}
