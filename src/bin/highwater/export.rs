//! `export`: a log's records as a portable stream.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use highwater::{
    Lsn,
    inspect::{Frame, FrameKind, FrameState, ProblemKind, Role, Segment, Snapshot, Verdict},
};
use serde::Serialize;

use crate::{
    arguments::LogOptions,
    check::{CORRUPT, UNREADABLE, UNSUPPORTED, status_of},
    files::NewFile,
    output::{Answer, Failure, json, open, snapshot, told},
    progress::Progress,
    report::advice_on,
    stream::{EntryKind, Head, StreamWriter, Totals},
    text::{counted, size},
};

pub(crate) const EXAMPLES: &str = "\
The stream holds the records, whole batches, their LSNs, and checksums of each record and of all of \
it; `import` refuses one that is damaged or cut short. The log may be in use: it is read as it stood at \
one moment. A batch belongs to the range if its first record does. What stands past a torn tail is left \
out, as opening would cut it; damage ends the export with status 2 and without a whole stream.

Examples:
  highwater export data/log -o log.hwx
  highwater export data/log | zstd > log.hwx.zst
  highwater export data/log --from 4096 --to 1048576 -o part.hwx
  highwater export data/log | highwater import - copy/log";

#[derive(Debug, Args)]
pub(crate) struct ExportOptions {
    #[command(flatten)]
    log: LogOptions,
    /// Writes to this new file, which appears when it is whole; `-`: to standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Begins at this LSN
    #[arg(long, value_name = "LSN")]
    from: Option<Lsn>,
    /// Ends before this LSN
    #[arg(long, value_name = "LSN")]
    to: Option<Lsn>,
    /// Leaves LSNs and the log's id out: logs with equal records give equal streams, byte for byte
    #[arg(long)]
    without_positions: bool,
}

/// What was exported, as JSON tells it.
#[derive(Serialize)]
struct Exported<'a> {
    log: &'a str,
    from: Lsn,
    to: Lsn,
    #[serde(flatten)]
    totals: Totals,
    /// Bytes of a torn tail, which were left out.
    torn_bytes: u64,
}

pub(crate) fn run(options: &ExportOptions) -> Answer {
    let is_piped = options.output == Path::new("-");
    if is_piped && io::stdout().is_terminal() {
        let message = "the stream is binary: name a file with --output, or redirect it".to_owned();
        return Err(told(UNREADABLE, message));
    }
    let snapshot = snapshot(&options.log.directory)?;
    let range = range(&snapshot, options)?;
    let totals = if is_piped {
        let (out, _) = open();
        let (mut out, totals) = write(&snapshot, range, options, out, &unread)?;
        out.flush().map_err(unread)?;
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
    tell(&exported, options.log.json, is_piped)?;
    Ok(0)
}

/// Of this output nobody has seen enough before its end.
fn unread(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        let message = "who read the stream went away before its end: it is not whole there";
        return told(UNREADABLE, message.to_owned());
    }
    Failure::from(error)
}

/// From where to where, as far as the log is known to go.
fn range(snapshot: &Snapshot, options: &ExportOptions) -> Result<(Lsn, Lsn), Failure> {
    let found = snapshot.outline();
    let place = &found.location;
    match (&found.verdict, options.to) {
        (Verdict::New, _) => {
            return Err(told(UNREADABLE, format!("{place}: no log yet: nothing to export")));
        }
        (Verdict::Refused(problem), None) => {
            let advice = match problem.kind {
                ProblemKind::Corrupt => "; an intact range can be exported by --from and --to",
                kind => advice_on(kind),
            };
            return Err(told(status_of(problem), format!("{}{advice}", problem.message)));
        }
        _ => {}
    }
    let first = found.first.unwrap_or_default();
    let from = options.from.unwrap_or(first);
    if from < first {
        let message =
            format!("--from {from}: the log begins at {first}; what stood before was truncated");
        return Err(told(UNREADABLE, message));
    }
    let to = match (options.to, found.end) {
        (Some(to), Some(end)) => to.min(end),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => from,
    };
    if from > to {
        let message = format!("--from {from}: the range ends at {to}, before it begins");
        return Err(told(UNREADABLE, message));
    }
    Ok((from, to))
}

/// The stream of a range, and what was counted.
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
                    progress.add(frame_bytes(&frame));
                }
                Step::End => break,
            }
        }
    }
    walk.check_end()?;
    writer.finish().map_err(failed)
}

fn frame_bytes(frame: &Frame) -> u64 {
    16 + frame.stored_bytes.next_multiple_of(8)
}

/// Goes from frame to frame and leaves none out: a log that has lost some is no export.
struct Walk {
    /// Where the next frame has to stand, once one was met that holds.
    next: Option<Lsn>,
    from: Lsn,
    to: Lsn,
    batch: Batch,
}

/// What is known of the batch that a frame is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Batch {
    None,
    Taken,
    Skipped,
    /// Whether there is one: what stood before is damaged.
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
            // Not asked for. What stands behind it is, if it holds.
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
            _ if lsn != expected => Some("no frame stands here"),
            _ if self.batch == Batch::Unknown && is_of_batch && lsn >= self.from => {
                Some("part of a batch whose beginning is damaged")
            }
            _ => None,
        };
        if let Some(reason) = reason {
            return Err(told(
                CORRUPT,
                format!(
                    "{}, offset {}, LSN {expected}: {reason}; `highwater dump` shows what is there, \
                     and an intact range can be exported by --from and --to",
                    segment.name, frame.offset
                ),
            ));
        }
        self.next = Some(Lsn::new(lsn.as_u64().saturating_add(frame_bytes(frame))));
        // A batch belongs to where its first record stands.
        let begins = self.batch != Batch::Skipped && lsn >= self.from;
        let is_taken = self.batch == Batch::Taken || begins;
        self.batch = match kind {
            Some(EntryKind::BatchPart) if is_taken => Batch::Taken,
            Some(EntryKind::BatchPart) if self.batch == Batch::Unknown => Batch::Unknown,
            Some(EntryKind::BatchPart) => Batch::Skipped,
            _ => Batch::None,
        };
        let taken = kind.filter(|_| is_taken);
        let problem = frame.compression.and_then(|compressed| compressed.problem);
        if let Some(problem) = problem.filter(|_| taken.is_some()) {
            return Err(told(
                UNSUPPORTED,
                format!("{}, offset {}, LSN {lsn}: {problem}", segment.name, frame.offset),
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
             tells why",
            self.to
        );
        Err(told(CORRUPT, message))
    }
}

fn tell(exported: &Exported<'_>, is_json: bool, is_piped: bool) -> Result<(), Failure> {
    let Totals { records, payload_bytes, contents_checksum } = exported.totals;
    if exported.torn_bytes > 0 {
        let torn = size(exported.torn_bytes);
        eprintln!("highwater: note: a torn tail of {torn} was left out, as opening would cut it");
    }
    if is_json && !is_piped {
        return json(exported);
    }
    if is_json {
        // Standard output has the stream.
        eprintln!("{}", serde_json::to_string(exported)?);
        return Ok(());
    }
    let said = format!(
        "exported {}, {} of payload, LSN {} to {}, contents {contents_checksum:08x}",
        counted(records, "record", "records"),
        size(payload_bytes),
        exported.from,
        exported.to
    );
    if is_piped {
        eprintln!("highwater: {said}");
    } else {
        let (mut out, _) = open();
        writeln!(out, "{said}")?;
        out.flush()?;
    }
    Ok(())
}
