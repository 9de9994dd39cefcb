//! `dump`: the frames, one after the other.

use std::io::{self, IsTerminal, Write};

use futures::StreamExt;
use highwater::{
    Lsn, Reader,
    inspect::{Compressed, Frame, FrameKind, FrameState, Role, Segment},
    reader::Gap,
};
use serde::Serialize;

use crate::{
    arguments::{DumpOptions, Form},
    check::{CORRUPT, UNREADABLE},
    output::{Answer, Out, Paint, open, snapshot},
    progress::Progress,
    records::{json_line, payload, record, runtime},
    text::hexadecimal,
};

pub(crate) fn run(options: &DumpOptions) -> Answer {
    if options.skip_damaged {
        return skip_damaged(options);
    }
    let snapshot = snapshot(&options.log.directory)?;
    let (mut out, paint) = open();
    // On a terminal the frames themselves show how far it is.
    let mut progress = Progress::new(snapshot.bytes_to_read(), !io::stdout().is_terminal());
    let mut status = 0;
    let (from, to) = (options.from.unwrap_or_default(), options.to);
    let outline = snapshot.outline();
    if let Some(pid) = outline.owner_pid {
        eprintln!("highwater: note: in use by process {pid}: dumped as it stood at one moment");
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
                    // What comes before is worth having all the same.
                    out.flush()?;
                    eprintln!("highwater: {error}");
                    status = UNREADABLE;
                    break;
                }
            };
            progress.add(16 + frame.stored_bytes.next_multiple_of(8));
            if to.is_some_and(|to| frame.lsn >= to) {
                break;
            }
            if frame.lsn < from {
                continue;
            }
            match options.form() {
                Form::Json => object(&mut out, segment, &frame)?,
                form => line(&mut out, paint, segment, &frame, form)?,
            }
        }
    }
    out.flush()?;
    for segment in outline
        .segments
        .iter()
        .filter(|segment| segment.header.is_none() && segment.role != Role::Spare)
    {
        eprintln!(
            "highwater: {} was left out: it has no header to check its frames by",
            segment.name
        );
        status = status.max(CORRUPT);
    }
    Ok(status)
}

/// The records alone, also past damage, which is told on standard error, or in JSON among them.
fn skip_damaged(options: &DumpOptions) -> Answer {
    let runtime = runtime()?;
    let (from, to) = (options.from.unwrap_or_default(), options.to);
    let (mut out, paint) = open();
    let mut status = 0;
    runtime.block_on(async {
        let mut items = Reader::options().salvage(&options.log.directory).await?;
        while let Some(item) = items.next().await {
            let at = match &item {
                Ok(record) => record.lsn,
                Err(gap) => gap.from,
            };
            if to.is_some_and(|to| at >= to) {
                break;
            }
            match item {
                Ok(record) if record.lsn >= from => {
                    self::record(&mut out, paint, &record, options.form())?;
                }
                Ok(_) => {}
                Err(gap) if gap.to < from => {}
                Err(gap) => {
                    status = CORRUPT;
                    if options.form() == Form::Json {
                        json_line(&mut out, &Gapped { gap: &gap })?;
                    } else {
                        // In its place among the records, where both go to one terminal.
                        out.flush()?;
                        eprintln!("highwater: {gap}");
                    }
                }
            }
        }
        out.flush()?;
        Ok(status)
    })
}

#[derive(Serialize)]
struct Gapped<'a> {
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
        _ => "unknown",
    }
}

fn line(
    out: &mut Out,
    paint: Paint,
    segment: &Segment,
    frame: &Frame,
    form: Form,
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
    let is_control = matches!(frame.kind, FrameKind::Mark | FrameKind::Close | FrameKind::First);
    if is_control || frame.payload.is_empty() {
        return writeln!(out);
    }
    payload(out, paint, &frame.payload, form)
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
    /// The payload, if it is UTF-8; else its bytes, in `hex`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

fn object(out: &mut Out, segment: &Segment, frame: &Frame) -> Result<(), serde_json::Error> {
    let is_record =
        matches!(frame.kind, FrameKind::Record | FrameKind::BatchPart | FrameKind::BatchEnd);
    let text = std::str::from_utf8(&frame.payload).ok().filter(|_| is_record);
    let is_control = matches!(frame.kind, FrameKind::Mark | FrameKind::Close | FrameKind::First);
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
    serde_json::to_writer(&mut *out, &dumped)?;
    out.write_all(b"\n").map_err(serde_json::Error::io)
}
