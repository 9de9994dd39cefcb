//! `truncate`: removes the start or the end of a log, or prints the plan.

use std::{io::Write, path::Path};

use clap::Args;
use highwater::{
    Lsn, Wal,
    inspect::{FrameKind, Role, Snapshot, Verdict},
};
use serde::Serialize;

use crate::{
    exit::{UNREADABLE, status_of},
    options::LogOptions,
    output::{CommandResult, Failure, failure, json, note_owner, open, snapshot},
    records::runtime,
    text::counted,
};

pub(crate) const EXAMPLES: &str = "\
Prints the plan, and changes nothing without --apply. Truncated records are lost, because no copy is \
kept. `--before` frees the files that hold no other records. After `--after`, new records reuse the \
LSNs of the removed ones.

Exit status: 0 truncated, or planned; 2 corrupt; 3 unsupported; 4 could not be read or written, is in use, \
or no record begins at that LSN; 64 wrong arguments.

Examples:
  highwater truncate data/log --before 4096
  highwater truncate data/log --before 4096 --apply
  highwater truncate data/log --after 8192 --apply";

#[derive(Debug, Args)]
pub(crate) struct TruncateOptions {
    #[command(flatten)]
    log: LogOptions,
    /// Removes all records below this LSN, at which the log then begins
    #[arg(long, value_name = "LSN", required_unless_present = "after", conflicts_with = "after")]
    before: Option<Lsn>,
    /// Removes all records above the record at this LSN, which stays
    #[arg(long, value_name = "LSN")]
    after: Option<Lsn>,
    /// Prints the plan only, which is the default
    #[arg(long, conflicts_with = "apply")]
    dry_run: bool,
    /// Truncates the log
    #[arg(long)]
    apply: bool,
}

/// The result or the plan, as JSON.
#[derive(Clone, Copy, Debug, Serialize)]
struct Truncated {
    is_applied: bool,
    /// The first LSN and the end of the log afterwards.
    first: Lsn,
    end: Lsn,
    record_count: u64,
    payload_bytes: u64,
}

pub(crate) fn run(options: &TruncateOptions) -> CommandResult {
    let directory = &options.log.directory;
    let snapshot = snapshot(directory)?;
    let mut truncated = plan(&snapshot, options)?;
    if options.apply {
        let (first, end) = apply(directory, options)?;
        truncated = Truncated { is_applied: true, first, end, ..truncated };
    }
    if options.log.json {
        json(&truncated)?;
        return Ok(0);
    }
    let (mut out, paint) = open();
    if !options.apply {
        note_owner(&mut out, paint, snapshot.outline().owner_pid)?;
    }
    let style = if options.apply { paint.good } else { paint.odd };
    let (done, hint) = if options.apply {
        ("truncated", "")
    } else {
        ("would truncate", "; nothing was changed, --apply truncates the log")
    };
    writeln!(
        out,
        "{style}{done}{style:#}: {} with {} of payload; the log then holds LSN {} to {}{hint}",
        counted(truncated.record_count, "record", "records"),
        crate::text::size(truncated.payload_bytes),
        truncated.first,
        truncated.end,
    )?;
    out.flush()?;
    Ok(0)
}

/// Counts the records to remove.
fn plan(snapshot: &Snapshot, options: &TruncateOptions) -> Result<Truncated, Failure> {
    let found = snapshot.outline();
    if let Verdict::Refused(problem) = &found.verdict {
        return Err(failure(status_of(problem), problem.message.clone()));
    }
    let (Some(first), Some(end)) = (found.first, found.end) else {
        return Err(failure(UNREADABLE, format!("{}: no log yet", found.location)));
    };
    let lsn = options.before.or(options.after).unwrap_or_default();
    let mut truncated = Truncated {
        is_applied: false,
        first: options.before.unwrap_or(first),
        end: options.after.unwrap_or(end),
        record_count: 0,
        payload_bytes: 0,
    };
    let mut is_boundary = options.before == Some(end);
    for segment in found.segments.iter().filter(|segment| segment.role == Role::Log) {
        for frame in snapshot.frames(segment)? {
            let frame = frame?;
            let is_record = matches!(
                frame.kind,
                FrameKind::Record | FrameKind::BatchPart | FrameKind::BatchEnd
            );
            if !is_record || !frame.state.is_intact() || frame.lsn < first || frame.lsn >= end {
                continue;
            }
            is_boundary |= frame.lsn == lsn;
            let is_removed =
                if options.before.is_some() { frame.lsn < lsn } else { frame.lsn > lsn };
            if is_removed {
                truncated.record_count += 1;
                truncated.payload_bytes += frame.payload_bytes;
            } else if options.after.is_some() {
                truncated.end = frame.end();
            }
        }
    }
    if !is_boundary {
        let message = format!("no record begins at LSN {lsn}; `highwater dump` prints all LSNs");
        return Err(failure(UNREADABLE, message));
    }
    Ok(truncated)
}

/// Truncates under the log's lock. Returns the new first LSN and the new end.
fn apply(directory: &Path, options: &TruncateOptions) -> Result<(Lsn, Lsn), Failure> {
    let runtime = runtime()?;
    let range = runtime.block_on(async {
        let wal = Wal::open(directory).await?;
        let truncated = match (options.before, options.after) {
            (Some(lsn), _) => wal.truncate_before(lsn).await,
            (None, last) => wal.truncate_after(last).await,
        };
        let marks = wal.watermarks();
        let closed = wal.close().await;
        truncated.and(closed)?;
        Ok((marks.first, marks.reserved))
    });
    drop(runtime);
    range
}
