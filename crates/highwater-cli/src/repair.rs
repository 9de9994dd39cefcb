//! `repair`: plans the repair of a damaged log, or repairs it.

use std::{
    io::{self, Write},
    path::Path,
};

use clap::Args;
use highwater::{Cut, DurableCut, Error, OnDamage, RecoveryReport, Wal, inspect::Problem};
use serde::Serialize;

use crate::{
    describe::{self, LINES_MAX, more},
    exit::{CORRUPT, TORN, UNSUPPORTED, WHOLE, status_of},
    options::LogOptions,
    output::{CommandResult, Failure, Out, Paint, json, note, note_owner, open, snapshot},
    text::{counted, safe, size},
};

pub(crate) const EXAMPLES: &str = "\
Keeps the log before the first damaged place, byte for byte. Moves the rest, intact records included,
to files that end in .wal.cut, with a manifest that lists the files and the reason. Nothing is removed
without a copy. A torn tail needs no repair, because opening cuts and keeps it. If there is a replica or
a backup, restore from it instead.

Exit status, which is that of verify for the resulting log:
  0  nothing to repair, or repaired
  1  torn tail, which opening cuts
  2  corrupt: --apply would cut durable data
  3  unsupported: intact, and written by a newer release; never cut
  4  could not be read or written, or is in use
Wrong arguments are 64.

Examples:
  highwater repair data/log
  highwater repair --apply data/log && highwater verify data/log";

#[derive(Debug, Args)]
pub(crate) struct RepairOptions {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// Prints the plan only, which is the default
    #[arg(long, conflicts_with = "apply")]
    pub(crate) dry_run: bool,
    /// Repairs the log
    #[arg(long)]
    pub(crate) apply: bool,
}

/// The largest record of any log. A record above the default limit is intact, too.
const RECORD_BYTES_MAX: u64 = 1 << 30;
/// The size of the new segment. It is small, because the device may be nearly full.
const SEGMENT_BYTES: u64 = 1 << 20;

#[derive(Serialize)]
struct Report<'a> {
    status: u8,
    is_applied: bool,
    /// Records that are stored as they were written but can't be read. A repair leaves them.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    damage: &'a [Problem],
    #[serde(flatten)]
    report: &'a RecoveryReport,
}

pub(crate) fn run(options: &RepairOptions) -> CommandResult {
    let directory = &options.log.directory;
    let snapshot = snapshot(directory)?;
    let planned = match snapshot.plan_repair() {
        Err(
            error @ (Error::UnsupportedVersion { .. }
            | Error::UnsupportedFrame { .. }
            | Error::UnsupportedExtension { .. }),
        ) => {
            note(format_args!("{error:#}"));
            return Ok(UNSUPPORTED);
        }
        planned => planned?,
    };
    let is_damaged = durable(&planned).is_some();
    let is_applied = options.apply && is_damaged;
    // A log that opening accepts may hold unreadable records, which no cut repairs.
    let found = (!is_damaged).then(|| snapshot.read_all(&mut |_| {}));
    let damage = found.as_ref().map_or(&[][..], |found| &found.damage);
    let report = if is_applied { apply(directory)? } else { planned };
    let status = match &report.cut {
        _ if is_applied => WHOLE,
        Some(_) if is_damaged => CORRUPT,
        Some(_) => TORN,
        None => WHOLE,
    };
    let status = damage.iter().map(status_of).fold(status, u8::max);
    if options.log.json {
        json(&Report { status, is_applied, damage, report: &report })?;
        return Ok(status);
    }
    let (mut out, paint) = open();
    note_owner(&mut out, paint, snapshot.outline().owner_pid)?;
    if damage.is_empty() || report.cut.is_some() {
        print(&mut out, paint, &report, is_applied)?;
    }
    unreadable(&mut out, paint, damage)?;
    out.flush()?;
    Ok(status)
}

/// Prints the unreadable records that no cut repairs.
fn unreadable(out: &mut Out, paint: Paint, damage: &[Problem]) -> io::Result<()> {
    if damage.is_empty() {
        return Ok(());
    }
    describe::damage(out, paint, damage)?;
    let odd = paint.odd;
    writeln!(
        out,
        "{odd}nothing to cut{odd:#}: opening accepts the log, and these records are stored as they were \
         written; `dump --skip-damaged` prints all other records"
    )
}

fn durable(report: &RecoveryReport) -> Option<(&Cut, &DurableCut)> {
    let cut = report.cut.as_ref()?;
    Some((cut, cut.durable.as_ref()?))
}

/// Repairs the log by opening it with `OnDamage::TruncateAtDamage`.
fn apply(directory: &Path) -> Result<RecoveryReport, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let options = Wal::options()
            .record_bytes_max(RECORD_BYTES_MAX)
            .segment_bytes(SEGMENT_BYTES)
            .on_damage(OnDamage::TruncateAtDamage);
        let wal = options.open(directory).await?;
        let report = wal.recovery().clone();
        wal.close().await?;
        Ok(report)
    })
}

fn print(out: &mut Out, paint: Paint, report: &RecoveryReport, is_applied: bool) -> io::Result<()> {
    let Paint { good, odd, bad, .. } = paint;
    let Some((cut, durable)) = durable(report) else {
        return match &report.cut {
            Some(cut) => writeln!(
                out,
                "{odd}torn tail{odd:#} at LSN {}: nothing to repair, opening cuts and keeps it",
                cut.lsn
            ),
            None => writeln!(out, "{good}whole{good:#}: nothing to repair"),
        };
    };
    let word = |done: &'static str, planned: &'static str| if is_applied { done } else { planned };
    writeln!(out, "{bad}corrupt{bad:#}: {}", safe(&durable.refusal))?;
    write!(out, "{}cut at LSN {}", word("", "would "), cut.lsn)?;
    if !cut.segment.is_empty() {
        write!(out, " ({}, offset {})", cut.segment, cut.offset)?;
    }
    writeln!(out, ": {}", cut.reason)?;
    writeln!(out, "  keeps    LSN {} to {}, byte for byte", report.first, cut.lsn)?;
    writeln!(
        out,
        "  removes  {} in use, durable up to LSN {}: {} in {}, and damaged bytes",
        size(cut.bytes),
        durable.synced,
        counted(durable.record_count, "intact record", "intact records"),
        counted(cut.valid_frame_count, "intact frame", "intact frames"),
    )?;
    for copy in durable.copies.iter().take(LINES_MAX) {
        let verb = if copy.is_still_there { "copies" } else { "moves" };
        writeln!(out, "  {verb:<8} {} to {}", copy.segment, copy.kept_as)?;
    }
    more(out, durable.copies.len(), "copy", "copies")?;
    writeln!(out, "  manifest {}", durable.manifest)?;
    writeln!(out, "  new file {}", durable.new_segment)?;
    let end = word(
        "repaired; delete the .cut files when they are no longer needed",
        "nothing was changed; --apply repairs the log and keeps the copies",
    );
    let style = if is_applied { good } else { odd };
    writeln!(out, "{style}{end}{style:#}")
}
