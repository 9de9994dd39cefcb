//! `dump`: prints the frames, one after the other.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use futures::StreamExt;
use highwater::{
    Lsn, Reader,
    inspect::{Compressed, Frame, FrameKind, FrameState, Role, Segment, Verdict, frame_bytes},
    reader::{Gap, SalvageError},
};
use serde::Serialize;

use crate::{
    exit::{CORRUPT, UNREADABLE},
    options::{Form, LogOptions},
    output::{CommandResult, Failure, Out, Paint, failure, json_line, note, open, snapshot},
    progress::Progress,
    records::{Shape, payload, record, runtime},
    since::Since,
    text::hexadecimal,
};

pub(crate) const EXAMPLES: &str = "\
--since prints all records since a time, after older ones of up to two intervals of the log's time
marks. The program that writes the log sets them by the option `time_marks`.

Examples:
  highwater dump data/log
  highwater dump data/log --from 4096 --as hex
  highwater dump data/log --since 15m
  highwater dump data/log --since 2026-11-29T12:00:00Z
  highwater dump data/log --as json | jq -r 'select(.kind == \"record\") | .text'
  highwater dump data/log --skip-damaged --json > whole.jsonl 2> gaps.txt";

#[derive(Debug, Args)]
pub(crate) struct DumpOptions {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// Begins at this LSN
    #[arg(long, value_name = "LSN")]
    pub(crate) from: Option<Lsn>,
    /// Begins at this time (RFC 3339), or this long ago (15m, 2h, 1d)
    #[arg(long, value_name = "TIME", conflicts_with = "from")]
    pub(crate) since: Option<Since>,
    /// Ends before this LSN
    #[arg(long, value_name = "LSN")]
    pub(crate) to: Option<Lsn>,
    /// How payloads are printed
    #[arg(long = "as", value_enum, value_name = "FORM", default_value = "text")]
    pub(crate) form: Form,
    /// Prints whole payloads on a terminal too, which by default shows their first bytes
    #[arg(long)]
    pub(crate) whole: bool,
    /// Prints only the intact records, and reports each damaged or missing part
    #[arg(long)]
    pub(crate) skip_damaged: bool,
}

impl DumpOptions {
    pub(crate) fn shape(&self) -> Shape {
        Shape::new(if self.log.json { Form::Json } else { self.form }, self.whole)
    }

    /// Returns the LSN to begin at.
    fn begin(&self) -> Result<Lsn, Failure> {
        let Some(since) = self.since else { return Ok(self.from.unwrap_or_default()) };
        let directory = &self.log.directory;
        let position = async {
            let reader = Reader::options().written(true).open(directory).await?;
            since.position(&reader, directory, "--from LSN").await
        };
        runtime()?.block_on(position).map_err(|error| match error.status() {
            CORRUPT => {
                failure(CORRUPT, format!("{error}; --since needs a whole log: use --from LSN"))
            }
            _ => error,
        })
    }
}

pub(crate) fn run(options: &DumpOptions) -> CommandResult {
    let (from, to) = (options.begin()?, options.to);
    if options.skip_damaged {
        return skip_damaged(options, from);
    }
    let snapshot = snapshot(&options.log.directory)?;
    let (mut out, paint) = open();
    // No bar if the frames go to a terminal, because they show the progress.
    let mut progress = Progress::new(snapshot.bytes_to_read(), !io::stdout().is_terminal());
    let mut status = 0;
    let outline = snapshot.outline();
    if let Some(pid) = outline.owner_pid {
        note(format_args!("note: in use by process {pid}: this is a snapshot"));
    }
    if outline.verdict == Verdict::New {
        note(format_args!("{}: no log yet", outline.location));
    }
    for segment in outline.segments.iter().filter(|segment| segment.role == Role::Log) {
        let base = segment.header.map(|header| header.base);
        let is_outside = segment.end.is_some_and(|end| end <= from)
            || base.zip(to).is_some_and(|(base, to)| base >= to);
        if is_outside {
            continue;
        }
        for frame in snapshot.frames(segment)? {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    // Prints the frames before the error first.
                    out.flush()?;
                    note(format_args!("{error:#}"));
                    status = UNREADABLE;
                    break;
                }
            };
            progress.add(frame_bytes(frame.stored_bytes));
            if to.is_some_and(|to| frame.lsn >= to) {
                break;
            }
            if frame.lsn < from {
                continue;
            }
            match options.shape() {
                Shape { form: Form::Json, .. } => object(&mut out, segment, &frame)?,
                shape => line(&mut out, paint, segment, &frame, shape)?,
            }
        }
    }
    out.flush()?;
    for segment in outline
        .segments
        .iter()
        .filter(|segment| segment.header.is_none() && segment.role != Role::Spare)
    {
        note(format_args!(
            "{} is skipped: it has no readable header to check its frames",
            segment.name
        ));
        status = status.max(CORRUPT);
    }
    Ok(status)
}

/// Prints the intact records, and reports each gap.
///
/// Gaps go to standard error, or, with JSON, among the records.
fn skip_damaged(options: &DumpOptions, from: Lsn) -> CommandResult {
    let (runtime, to) = (runtime()?, options.to);
    let (mut out, paint) = open();
    let (mut status, mut is_empty) = (0, true);
    runtime.block_on(async {
        let mut items = Reader::options().salvage(&options.log.directory).await?;
        while let Some(item) = items.next().await {
            is_empty = false;
            let at = match &item {
                Ok(record) => record.lsn,
                Err(SalvageError::Gap(gap)) => gap.from,
                Err(_) => Lsn::ZERO,
            };
            if to.is_some_and(|to| at >= to) {
                break;
            }
            match item {
                Ok(record) if record.lsn >= from => {
                    self::record(&mut out, paint, &record, options.shape())?;
                }
                Ok(_) => {}
                Err(SalvageError::Gap(gap)) if gap.to < from => {}
                Err(SalvageError::Gap(gap)) => {
                    status = CORRUPT;
                    if options.shape().form == Form::Json {
                        json_line(&mut out, &GapLine { gap: &gap })?;
                    } else {
                        // Flushed first, so that the gap is in its place if both go to one
                        // terminal.
                        out.flush()?;
                        note(gap);
                    }
                }
                Err(SalvageError::Stopped(error)) => return Err(error.into()),
                Err(error) => return Err(failure(UNREADABLE, format!("{error:#}"))),
            }
        }
        out.flush()?;
        if is_empty {
            note(format_args!("{}: no record", options.log.directory.display()));
        }
        Ok(status)
    })
}

#[derive(Serialize)]
struct GapLine<'a> {
    gap: &'a Gap,
}

fn name(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Record => "record",
        FrameKind::BatchPart => "batch",
        FrameKind::BatchEnd => "batch-end",
        FrameKind::Mark => "mark",
        FrameKind::Close => "close",
        FrameKind::First => "first",
        FrameKind::Slots => "slots",
        FrameKind::Time => "time",
        FrameKind::Skipped => "skipped",
        _ => "unknown",
    }
}

fn line(
    out: &mut Out,
    paint: Paint,
    segment: &Segment,
    frame: &Frame,
    shape: Shape,
) -> io::Result<()> {
    let Paint { dim, bad, odd, .. } = paint;
    let synced = frame.synced.map_or_else(|| "-".to_owned(), |lsn| lsn.to_string());
    let (lsn, kind, bytes) = (frame.lsn, name(frame.kind), frame.payload_bytes);
    write!(out, "{lsn:>12} {dim}{kind:<9}{dim:#} {bytes:>8} {dim}synced {synced}{dim:#}")?;
    match frame.state {
        FrameState::Intact => {}
        FrameState::Past => write!(out, " {odd}[intact, past damage]{odd:#}")?,
        FrameState::Damaged(reason) => {
            write!(out, " {bad}[{}, offset {}: {reason}]{bad:#}", segment.name, frame.offset)?;
        }
        _ => write!(out, " {odd}[{:?}]{odd:#}", frame.state)?,
    }
    if let Some(Compressed { codec, problem, .. }) = frame.compression {
        write!(out, " {dim}{codec}, stored in {}{dim:#}", frame.stored_bytes)?;
        if let Some(problem) = problem {
            write!(out, " {bad}[as stored: {problem}]{bad:#}")?;
        }
    }
    let is_control = matches!(
        frame.kind,
        FrameKind::Mark | FrameKind::Close | FrameKind::First | FrameKind::Slots | FrameKind::Time
    );
    if is_control || frame.payload.is_empty() {
        return writeln!(out);
    }
    payload(out, paint, &frame.payload, shape)
}

#[derive(Serialize)]
struct Dumped<'a> {
    lsn: Lsn,
    segment: &'a str,
    offset: u64,
    kind: FrameKind,
    state: FrameState,
    payload_bytes: u64,
    synced: Option<Lsn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<Compressed>,
    /// The payload, if it is UTF-8; otherwise its bytes are in `hex`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

fn object(out: &mut Out, segment: &Segment, frame: &Frame) -> Result<(), Failure> {
    let is_record =
        matches!(frame.kind, FrameKind::Record | FrameKind::BatchPart | FrameKind::BatchEnd);
    let text = std::str::from_utf8(&frame.payload).ok().filter(|_| is_record);
    let is_control = matches!(
        frame.kind,
        FrameKind::Mark | FrameKind::Close | FrameKind::First | FrameKind::Slots | FrameKind::Time
    );
    let hex = text.is_none() && !is_control && !frame.payload.is_empty();
    let dumped = Dumped {
        lsn: frame.lsn,
        segment: &segment.name,
        offset: frame.offset,
        kind: frame.kind,
        state: frame.state,
        payload_bytes: frame.payload_bytes,
        synced: frame.synced,
        stored_bytes: frame.compression.map(|_| frame.stored_bytes),
        compression: frame.compression,
        text,
        hex: hex.then(|| hexadecimal(&frame.payload)),
    };
    json_line(out, &dumped)
}
