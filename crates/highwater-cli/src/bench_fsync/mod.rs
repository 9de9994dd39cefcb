//! `bench-fsync`: measures the flushes of a disk, and suggests settings.

mod disk;
mod measure;

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use serde::Serialize;

use crate::{
    output::{CommandResult, Out, Paint, json, open},
    text::{count, safe, size},
};
use disk::Disk;
use measure::{Case, Measured, measure};

pub(crate) const EXAMPLES: &str = "\
Writes repeatedly to two temporary files of 16 MiB in DIR, and deletes them. The cases take turns. \
Other load on the disk changes the figures. The first line is the flush of a log with default settings. \
No log on this disk has a shorter durable commit.

Examples:
  highwater bench-fsync data
  highwater bench-fsync --seconds 30 --json data > disk.json";

#[derive(Debug, Args)]
pub(crate) struct BenchOptions {
    /// A directory on the disk to measure
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    directory: String,
    disk: Disk,
    /// The rate at which zeros are written, in bytes per second.
    zero_fill_bytes_per_second: u64,
    cases: Vec<Measured>,
    warnings: Vec<String>,
    suggestions: Vec<String>,
}

pub(crate) fn run(options: &BenchOptions) -> CommandResult {
    let duration = Duration::from_secs(options.seconds);
    let (zero_fill_bytes_per_second, cases) = measure(&options.directory, duration)?;
    let disk = Disk::of(&options.directory);
    let report = Report {
        directory: options.directory.display().to_string(),
        warnings: warnings(&disk, &cases),
        suggestions: if is_in_memory(&disk) {
            Vec::new()
        } else {
            suggestions(zero_fill_bytes_per_second, &cases)
        },
        disk,
        zero_fill_bytes_per_second,
        cases,
    };
    if options.json {
        json(&report)?;
        return Ok(0);
    }
    let (mut out, paint) = open();
    print(&mut out, paint, &report)?;
    out.flush()?;
    Ok(0)
}

/// Returns the median of a case in nanoseconds, if it was measured.
fn median(cases: &[Measured], case: Case) -> Option<u64> {
    cases.iter().find(|measured| measured.case == case).map(|measured| measured.p50_ns)
}

/// A flush below this time did not reach a device.
const NOTHING_NS: u64 = 15_000;
/// A flush below this time needs a device with a protected cache.
const PROTECTED_NS: u64 = 60_000;

/// `Dsync` is suggested if its time is below this part of a flush. It costs concurrency, and a
/// smaller gain is within the noise of the measurement.
const DSYNC_GAIN_PERCENT: u64 = 95;

/// The ratio of the 90th percentile to the median that indicates other load.
const UNSTEADY: u64 = 5;

fn is_unsteady(cases: &[Measured]) -> bool {
    let floor = cases.iter().find(|measured| measured.case == Case::Floor);
    floor.is_some_and(|floor| floor.p90_ns > floor.p50_ns.saturating_mul(UNSTEADY))
}

fn is_in_memory(disk: &Disk) -> bool {
    disk.file_system.as_deref().is_some_and(|name| ["tmpfs", "ramfs"].contains(&name))
}

fn warnings(disk: &Disk, cases: &[Measured]) -> Vec<String> {
    let mut warnings = Vec::new();
    if is_in_memory(disk) {
        warnings.push("in memory: nothing on this file system survives a loss of power".to_owned());
    } else {
        match median(cases, Case::Floor) {
            Some(median) if median < NOTHING_NS => warnings.push(
                "a flush is faster than any device: it does not reach one (a file \
                 system in memory, a virtual disk that ignores flushes, or sync switched off)"
                    .to_owned(),
            ),
            Some(median) if median < PROTECTED_NS => warnings.push(
                "only a device with a cache that a loss of power can't empty flushes this fast; if \
                 this one has none, its cache is volatile and flushes don't reach the medium"
                    .to_owned(),
            ),
            _ => {}
        }
    }
    if disk.options.iter().any(|option| option == "nobarrier" || option == "barrier=0") {
        warnings
            .push("mounted without barriers: a flush does not empty the device's cache".to_owned());
    }
    if is_unsteady(cases) {
        warnings.push(
            "the figures vary much: something else uses the disk, or it is shared; measure again \
             without other load"
                .to_owned(),
        );
    }
    let network = ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"];
    if let Some(name) = disk.file_system.as_deref().filter(|name| network.contains(name)) {
        warnings.push(format!("{name}: the server decides whether flushes and locks work"));
    }
    warnings
}

fn suggestions(zero_fill_bytes_per_second: u64, cases: &[Measured]) -> Vec<String> {
    let mut suggestions = Vec::new();
    let better = |one: u64, other: u64| one.saturating_mul(100) < other.saturating_mul(85);
    match (median(cases, Case::Floor), median(cases, Case::Reserved)) {
        // No suggestion, because other load determines these medians.
        _ if is_unsteady(cases) => {}
        (Some(zeroed), Some(reserved)) if better(zeroed, reserved) => suggestions.push(format!(
            "Options::preallocation(ZeroFill), as the default does for small commits: they go into prepared space in {} \
             instead of {}",
            time(zeroed),
            time(reserved)
        )),
        (Some(zeroed), Some(reserved)) => suggestions.push(format!(
            "Options::preallocation(Reserve): zeros written ahead gain nothing here ({} against {}) \
             and cost a second write of every byte",
            time(zeroed),
            time(reserved)
        )),
        _ => {}
    }
    suggestions.extend(sync_method(cases).filter(|_| !is_unsteady(cases)));
    // With segments of this size, rotations are rare, and the next file is ready in time.
    let quarter_second = zero_fill_bytes_per_second / 4;
    let mut segment_bytes = 4u64 << 20;
    while segment_bytes * 2 <= quarter_second && segment_bytes < 256 << 20 {
        segment_bytes *= 2;
    }
    suggestions.push(format!(
        "Options::segment_bytes({} << 20): the zeros that this disk writes in 250 ms",
        segment_bytes >> 20
    ));
    if let (Some(one), Some(many)) = (median(cases, Case::Floor), median(cases, Case::Group64)) {
        let rate = |ns: u64, records: u64| count(records.saturating_mul(1_000_000_000) / ns.max(1));
        suggestions.push(format!(
            "share flushes: one writer that waits for each record gets about {} durable records of \
             256 bytes a second, 256 writers at once about {}",
            rate(one, 1),
            rate(many, 256)
        ));
    }
    suggestions
}

/// Compares the two methods by which a log can make a small group durable.
fn sync_method(cases: &[Measured]) -> Option<String> {
    let (flushed, durable) = (median(cases, Case::Floor)?, median(cases, Case::Dsync)?);
    let times = format!("{} against {}", time(durable), time(flushed));
    let mut text = if durable.saturating_mul(100) < flushed.saturating_mul(DSYNC_GAIN_PERCENT) {
        format!(
            "Options::sync_method(Dsync), if all records are synced: a durable write takes {times}"
        )
    } else {
        format!("Options::sync_method(Fdatasync), the default: a durable write takes {times}")
    };
    if let Some(direct) = median(cases, Case::DirectDsync) {
        // The log has no such method: see docs/DURABILITY.md.
        text.push_str(&format!("; past the page cache it takes {}", time(direct)));
    }
    Some(text)
}

/// Formats a time: `12.3 µs`.
fn time(ns: u64) -> String {
    let (unit, name) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let tenths = ns.saturating_mul(10) / unit;
    format!("{}.{} {name}", count(tenths / 10), tenths % 10)
}

fn print(out: &mut Out, paint: Paint, report: &Report) -> io::Result<()> {
    let Paint { odd, dim, strong, .. } = paint;
    writeln!(out, "{strong}{}{strong:#}", safe(&report.directory))?;
    writeln!(out, "{}", safe(&report.disk))?;
    writeln!(out)?;
    let head = ["p50", "p90", "p99", "max", "per s"].map(|name| format!("{name:>10}")).concat();
    writeln!(out, "{dim}{:<44}{head}{dim:#}", "")?;
    for measured in &report.cases {
        write!(out, "{:<44}", measured.case.describe())?;
        for ns in [measured.p50_ns, measured.p90_ns, measured.p99_ns, measured.max_ns] {
            write!(out, "{:>10}", time(ns))?;
        }
        writeln!(out, "{:>10}", count(measured.per_second))?;
    }
    let filled = size(report.zero_fill_bytes_per_second);
    writeln!(out, "\nzeros are written ahead at {filled} a second")?;
    for warning in &report.warnings {
        writeln!(out, "{odd}warning{odd:#}: {warning}")?;
    }
    for suggestion in &report.suggestions {
        writeln!(out, "- {suggestion}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(case: Case, p50_ns: u64) -> Measured {
        Measured { case, count: 1, p50_ns, p90_ns: 0, p99_ns: 0, max_ns: 0, per_second: 0 }
    }

    #[test]
    fn too_fast_flush_gets_a_warning() {
        let disk = Disk { file_system: Some("ext4".to_owned()), ..Disk::default() };
        for (ns, warned) in [(2_000, 1), (30_000, 1), (200_000, 0)] {
            assert_eq!(warnings(&disk, &[measured(Case::Floor, ns)]).len(), warned, "{ns}");
        }
        let memory = Disk { file_system: Some("tmpfs".to_owned()), ..Disk::default() };
        assert!(warnings(&memory, &[measured(Case::Floor, 900_000)])[0].contains("in memory"));
        let floor = Measured { p90_ns: 900_000, ..measured(Case::Floor, 100_000) };
        let busy = [floor, measured(Case::Reserved, 300_000)];
        assert!(warnings(&disk, &busy)[0].contains("vary much"));
        assert!(!suggestions(1 << 20, &busy).concat().contains("preallocation"));
        let barrier =
            Disk { options: vec!["rw".to_owned(), "nobarrier".to_owned()], ..Disk::default() };
        assert!(warnings(&barrier, &[])[0].contains("barriers"));
    }

    #[test]
    fn suggestions_follow_from_measurements() {
        let cases = [measured(Case::Floor, 100_000), measured(Case::Reserved, 300_000)];
        let suggested = suggestions(400 << 20, &cases);
        assert!(suggested[0].contains("ZeroFill"), "{suggested:?}");
        assert!(suggested[1].contains("64 << 20"), "{suggested:?}");
        let cases = [measured(Case::Floor, 100_000), measured(Case::Reserved, 101_000)];
        assert!(suggestions(1 << 20, &cases)[0].contains("Reserve"));
        assert!(suggestions(1 << 20, &cases)[1].contains("4 << 20"));
    }

    #[test]
    fn sync_method_follows_from_measurements() {
        let cases = |dsync| [measured(Case::Floor, 100_000), measured(Case::Dsync, dsync)];
        let suggested = |dsync| suggestions(1 << 20, &cases(dsync)).concat();
        assert!(suggested(60_000).contains("sync_method(Dsync)"));
        assert!(suggested(97_000).contains("sync_method(Fdatasync)"), "within the noise");
        assert!(suggested(120_000).contains("sync_method(Fdatasync)"));
        assert!(!suggestions(1 << 20, &cases(1)[..1]).concat().contains("sync_method"));
        let [floor, dsync] = cases(60_000);
        let unsteady = [Measured { p90_ns: 900_000, ..floor }, dsync];
        assert!(!suggestions(1 << 20, &unsteady).concat().contains("sync_method"));
        let [floor, dsync] = cases(60_000);
        let direct = suggestions(1 << 20, &[floor, dsync, measured(Case::DirectDsync, 20_000)]);
        assert!(direct.concat().contains("past the page cache it takes 20.0 µs"), "{direct:?}");
    }

    #[test]
    fn times_have_readable_units() {
        let times = [7, 1_250, 999_999, 12_345_678, 3_000_000_000].map(time);
        assert_eq!(times, ["7 ns", "1.2 µs", "999.9 µs", "12.3 ms", "3.0 s"]);
    }
}
