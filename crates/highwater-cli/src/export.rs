//! `export`: writes the records of a log as a portable stream.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use highwater::{
    Lsn,
    inspect::{
        Frame, FrameKind, FrameState, ProblemKind, Role, Segment, Snapshot, Verdict, frame_bytes,
    },
};
use serde::Serialize;

use crate::{
    describe::advice_on,
    exit::{CORRUPT, UNREADABLE, status_of, status_of_kind},
    files::NewFile,
    options::LogOptions,
    output::{CommandResult, Failure, failure, json, note, open, snapshot},
    progress::Progress,
    stream::{EntryKind, Head, StreamWriter, Totals},
    text::{counted, safe_json, size},
};

pub(crate) const EXAMPLES: &str = "\
The stream holds the records, their batches and LSNs, and checksums of each record and of the stream; \
`import` refuses a stream that is damaged or incomplete. The log may be in use, because export reads a \
snapshot. A batch belongs to the range if its first record does. A torn tail is left out, because \
opening would cut it. Damage ends the export with status 2 and an incomplete stream.

Examples:
  highwater export data/log -o log.hwx
  highwater export data/log | zstd > log.hwx.zst
  highwater export data/log --from 4096 --to 1048576 -o part.hwx
  highwater export data/log | highwater import - copy/log";

#[derive(Debug, Args)]
pub(crate) struct ExportOptions {
    #[command(flatten)]
    log: LogOptions,
    /// The new file, which appears when it is complete; `-` is standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Begins at this LSN
    #[arg(long, value_name = "LSN")]
    from: Option<Lsn>,
    /// Ends before this LSN
    #[arg(long, value_name = "LSN")]
    to: Option<Lsn>,
    /// Leaves out LSNs and the log's id, so that logs with equal records give equal streams
    #[arg(long)]
    without_positions: bool,
}

/// The result, as JSON.
#[derive(Serialize)]
struct Exported<'a> {
    log: &'a str,
    from: Lsn,
    to: Lsn,
    #[serde(flatten)]
    totals: Totals,
    /// The bytes of a torn tail, which are left out.
    torn_bytes: u64,
}

pub(crate) fn run(options: &ExportOptions) -> CommandResult {
    let is_piped = options.output == Path::new("-");
    if is_piped && io::stdout().is_terminal() {
        let message = "the stream is binary: name a file with --output, or redirect it".to_owned();
        return Err(failure(UNREADABLE, message));
    }
    let snapshot = snapshot(&options.log.directory)?;
    let range = range(&snapshot, options)?;
    let totals = if is_piped {
        let (out, _) = open();
        let (mut out, totals) = write(&snapshot, range, options, out, &output_error)?;
        out.flush().map_err(output_error)?;
        totals
    } else {
        let path = &options.output;
        let failed = |error| crate::files::failed("writing", path, &error);
        let (file, totals) = write(&snapshot, range, options, NewFile::create(path)?, &failed)?;
        file.finish()?;
        totals
    };
    let found = snapshot.outline();
    let torn_bytes = match &found.verdict {
        Verdict::TornTail(cut) => cut.bytes,
        _ => 0,
    };
    let (from, to) = range;
    let exported = Exported { log: &found.location, from, to, totals, torn_bytes };
    report(&exported, options.log.json, is_piped)?;
    Ok(0)
}

/// Returns the failure for an error of the output. A reader that stops early is an error, too,
/// because its stream is incomplete.
fn output_error(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        let message = "the reader closed the stream before its end: its copy is incomplete";
        return failure(UNREADABLE, message.to_owned());
    }
    Failure::from(error)
}

/// Returns the range to export, limited to the known end of the log.
fn range(snapshot: &Snapshot, options: &ExportOptions) -> Result<(Lsn, Lsn), Failure> {
    let found = snapshot.outline();
    let place = &found.location;
    match (&found.verdict, options.to) {
        (Verdict::New, _) => {
            return Err(failure(UNREADABLE, format!("{place}: no log yet: nothing to export")));
        }
        (Verdict::Refused(problem), None) => {
            let advice = match problem.kind {
                ProblemKind::Corrupt => "; an intact range can be exported by --from and --to",
                kind => advice_on(kind),
            };
            return Err(failure(status_of(problem), format!("{}{advice}", problem.message)));
        }
        _ => {}
    }
    let first = found.first.unwrap_or_default();
    let from = options.from.unwrap_or(first);
    if from < first {
        let message =
            format!("--from {from}: the log begins at {first}; earlier records were truncated");
        return Err(failure(UNREADABLE, message));
    }
    let to = match (options.to, found.end) {
        (Some(to), Some(end)) => to.min(end),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => from,
    };
    if from > to {
        let message = format!("--from {from}: the range ends at {to}, before it begins");
        return Err(failure(UNREADABLE, message));
    }
    Ok((from, to))
}

/// Writes the stream of a range. Returns the output and the totals.
fn write<W: Write>(
    snapshot: &Snapshot,
    (from, to): (Lsn, Lsn),
    options: &ExportOptions,
    output: W,
    failed: &dyn Fn(io::Error) -> Failure,
) -> Result<(W, Totals), Failure> {
    let found = snapshot.outline();
    let header = found.segments.iter().rev().filter(|segment| segment.role == Role::Log);
    let log_id = header.filter_map(|segment| segment.header).map(|header| header.log_id.0).next();
    let head = Head {
        has_positions: true,
        log_id: log_id.unwrap_or_default(),
        from: from.as_u64(),
        to: to.as_u64(),
    };
    let head = if options.without_positions { Head::WITHOUT_POSITIONS } else { head };
    let mut writer = StreamWriter::new(output, &head).map_err(failed)?;
    let mut progress = Progress::new(to.as_u64() - from.as_u64(), true);
    let mut walk = Walk { next: None, from, to, batch: Batch::None };
    for segment in found.segments.iter().filter(|segment| segment.role == Role::Log) {
        let base = segment.header.map(|header| header.base);
        if segment.end.is_some_and(|end| end <= from) || base.is_some_and(|base| base >= to) {
            continue;
        }
        for frame in snapshot.frames(segment)? {
            let frame = frame?;
            match walk.step(segment, &frame)? {
                Step::Skip => {}
                Step::Take(kind) => {
                    writer.record(kind, frame.lsn.as_u64(), &frame.payload).map_err(failed)?;
                    progress.add(frame_bytes(frame.stored_bytes));
                }
                Step::End => break,
            }
        }
    }
    walk.check_end()?;
    writer.finish().map_err(failed)
}

/// Walks over the frames of a range. A gap is an error, because an export must be complete.
struct Walk {
    /// The LSN at which the next frame must begin; `None` before the first intact frame.
    next: Option<Lsn>,
    from: Lsn,
    to: Lsn,
    batch: Batch,
}

/// The batch that the current frame belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Batch {
    None,
    Taken,
    Skipped,
    /// The frames before are damaged, so the frame may belong to a batch.
    Unknown,
}

enum Step {
    Skip,
    Take(EntryKind),
    End,
}

impl Walk {
    fn step(&mut self, segment: &Segment, frame: &Frame) -> Result<Step, Failure> {
        let lsn = frame.lsn;
        if lsn >= self.to && self.batch != Batch::Taken {
            return Ok(Step::End);
        }
        let is_damaged = matches!(frame.state, FrameState::Damaged(_));
        if lsn < self.from && is_damaged {
            // Damage before the range is skipped, because only the range must be intact.
            (self.next, self.batch) = (None, Batch::Unknown);
            return Ok(Step::Skip);
        }
        let expected = self.next.unwrap_or(if lsn < self.from { lsn } else { self.from });
        let kind = match frame.kind {
            FrameKind::Record => Some(EntryKind::Record),
            FrameKind::BatchPart => Some(EntryKind::BatchPart),
            FrameKind::BatchEnd => Some(EntryKind::BatchEnd),
            _ => None,
        };
        let is_of_batch = matches!(kind, Some(EntryKind::BatchPart | EntryKind::BatchEnd));
        let reason = match frame.state {
            FrameState::Damaged(reason) => Some(reason),
            _ if lsn != expected => Some("no frame begins here"),
            _ if self.batch == Batch::Unknown && is_of_batch && lsn >= self.from => {
                Some("part of a batch whose beginning is damaged")
            }
            _ => None,
        };
        if let Some(reason) = reason {
            let problem = frame.problem.filter(|_| is_damaged);
            return Err(failure(
                problem.map_or(CORRUPT, status_of_kind),
                format!(
                    "{}, offset {}, LSN {expected}: {reason}; `highwater dump` shows the damage, \
                     and an intact range can be exported by --from and --to",
                    segment.name, frame.offset
                ),
            ));
        }
        self.next = Some(frame.end());
        // A batch belongs to the range if its first record does.
        let begins = self.batch != Batch::Skipped && lsn >= self.from;
        let is_taken = self.batch == Batch::Taken || begins;
        self.batch = match kind {
            Some(EntryKind::BatchPart) if is_taken => Batch::Taken,
            Some(EntryKind::BatchPart) if self.batch == Batch::Unknown => Batch::Unknown,
            Some(EntryKind::BatchPart) => Batch::Skipped,
            _ => Batch::None,
        };
        let taken = kind.filter(|_| is_taken);
        if let Some(problem) = frame.problem.filter(|_| taken.is_some()) {
            let reason = frame.compression.and_then(|compressed| compressed.problem);
            let reason = reason.unwrap_or("its payload can't be read");
            return Err(failure(
                status_of_kind(problem),
                format!("{}, offset {}, LSN {lsn}: {reason}", segment.name, frame.offset),
            ));
        }
        Ok(taken.map_or(Step::Skip, Step::Take))
    }

    fn check_end(&self) -> Result<(), Failure> {
        let reached = self.next.unwrap_or(self.from).max(self.from);
        if reached >= self.to && self.batch != Batch::Taken {
            return Ok(());
        }
        let message = format!(
            "the log can't be read past LSN {reached}, and should reach {}; `highwater verify` \
             reports why",
            self.to
        );
        Err(failure(CORRUPT, message))
    }
}

fn report(exported: &Exported<'_>, is_json: bool, is_piped: bool) -> Result<(), Failure> {
    let Totals { records, payload_bytes, contents_checksum } = exported.totals;
    if exported.torn_bytes > 0 {
        let torn = size(exported.torn_bytes);
        note(format_args!("note: a torn tail of {torn} was left out, as opening would cut it"));
    }
    if is_json && !is_piped {
        return json(exported);
    }
    if is_json {
        // Standard output has the stream.
        eprintln!("{}", safe_json(serde_json::to_string(exported)?));
        return Ok(());
    }
    let summary = format!(
        "exported {}, {} of payload, LSN {} to {}, contents {contents_checksum:08x}",
        counted(records, "record", "records"),
        size(payload_bytes),
        exported.from,
        exported.to
    );
    if is_piped {
        note(summary);
    } else {
        let (mut out, _) = open();
        writeln!(out, "{summary}")?;
        out.flush()?;
    }
    Ok(())
}
