//! `stat`: segments and marks as a picture. Reads headers and the end, not the log.

use std::io::{self, Write};

use highwater::{
    Lsn,
    inspect::{HeaderState, Inspection, Role, Segment},
};

use crate::{
    arguments::LogOptions,
    output::{Answer, Out, Paint, json, open, snapshot},
    report::head,
    text::{counted, size},
};

const BAR: u64 = 40;
/// More than these are shown by the first and the last of them.
const ROWS_MAX: usize = 40;

pub(crate) fn run(options: &LogOptions) -> Answer {
    let snapshot = snapshot(&options.directory)?;
    let found = snapshot.outline();
    if options.json {
        json(found)?;
        return Ok(0);
    }
    let (mut out, paint) = open();
    head(&mut out, paint, found)?;
    rows(&mut out, paint, found)?;
    totals(&mut out, found)?;
    out.flush()?;
    Ok(0)
}

fn rows(out: &mut Out, paint: Paint, found: &Inspection) -> io::Result<()> {
    if found.segments.is_empty() {
        return Ok(());
    }
    let dim = paint.dim;
    writeln!(out)?;
    let count = found.segments.len();
    let largest = found.segments.iter().map(|segment| segment.bytes).max().unwrap_or(1).max(1);
    for (at, segment) in found.segments.iter().enumerate() {
        let is_left_out = count > ROWS_MAX && (ROWS_MAX / 2..count - ROWS_MAX / 2).contains(&at);
        if is_left_out {
            if at == ROWS_MAX / 2 {
                writeln!(out, "{dim}     … {} more …{dim:#}", count - ROWS_MAX)?;
            }
            continue;
        }
        row(out, paint, found, segment, largest)?;
    }
    writeln!(
        out,
        "{dim}\n  #  used, all synced   =  used   .  free   S  known synced   X  end{dim:#}"
    )
}

fn row(
    out: &mut Out,
    paint: Paint,
    found: &Inspection,
    segment: &Segment,
    largest: u64,
) -> io::Result<()> {
    let Paint { good, odd, bad, dim, .. } = paint;
    let number = segment.name.trim_end_matches(".wal").trim_start_matches('0');
    let style = match segment.role {
        Role::Log => good,
        Role::Spare => dim,
        _ => odd,
    };
    write!(out, "{number:>6} [{style}{}{style:#}]", bar(found, segment, largest))?;
    let fill = segment.used_bytes.saturating_mul(100).checked_div(segment.bytes).unwrap_or(0);
    write!(out, " {:>9} {fill:>3} %", size(segment.bytes))?;
    match (segment.header, segment.role, segment.header_state) {
        (Some(header), Role::Log, _) => {
            write!(out, "  from {}, epoch {}", header.base, header.epoch)?
        }
        (_, Role::Spare, _) => write!(out, "  {dim}spare{dim:#}")?,
        (None, _, HeaderState::Newer { version }) => {
            write!(out, "  {bad}format version {version}{bad:#}")?;
        }
        (None, ..) => write!(out, "  {bad}no readable header{bad:#}")?,
        (Some(header), ..) => write!(out, "  {odd}leftover{odd:#} from {}", header.base)?,
    }
    if matches!(segment.header_state, HeaderState::MainDamaged | HeaderState::CopyDamaged) {
        write!(out, ", {odd}one header of two{odd:#}")?;
    }
    writeln!(out)
}

/// The file as a row of characters: its length to scale, what is used, and the marks in it.
fn bar(found: &Inspection, segment: &Segment, largest: u64) -> String {
    let scaled = |bytes: u64| {
        let cells = u128::from(bytes) * u128::from(BAR) / u128::from(largest);
        u64::try_from(cells).unwrap_or(BAR).min(BAR)
    };
    let cells = scaled(segment.bytes).max(1);
    let used = scaled(segment.used_bytes).max(u64::from(segment.used_bytes > 0));
    let header = segment.header.filter(|_| segment.role == Role::Log);
    // Where a position stands in this file, if it does.
    let cell = |lsn: Option<Lsn>| {
        let (lsn, base, end) = (lsn?, header?.base, segment.end?);
        let is_here = base <= lsn && lsn < end;
        let offset = (segment.bytes.min(4096))
            .saturating_add(lsn.as_u64() - base.as_u64().min(lsn.as_u64()));
        is_here.then(|| scaled(offset).min(cells - 1))
    };
    let (synced, end) = (cell(found.committed), cell(found.end));
    let base = header.map(|header| header.base);
    let is_synced = |at: u64| match synced {
        Some(synced) => at < synced,
        None => base.zip(found.committed).is_some_and(|(base, committed)| base < committed),
    };
    let character = |at: u64| match () {
        () if end == Some(at) => 'X',
        () if synced == Some(at) => 'S',
        () if at < used && is_synced(at) => '#',
        () if at < used => '=',
        () => '.',
    };
    let bar: String = (0..cells).map(character).collect();
    format!("{bar:<40}")
}

fn totals(out: &mut Out, found: &Inspection) -> io::Result<()> {
    let sum = |role: Role, of: fn(&Segment) -> u64| -> u64 {
        found.segments.iter().filter(|segment| segment.role == role).map(of).sum()
    };
    let members = found.segments.iter().filter(|segment| segment.role == Role::Log).count();
    write!(
        out,
        "{}: {} used of {}",
        counted(members as u64, "segment", "segments"),
        size(sum(Role::Log, |segment| segment.used_bytes)),
        size(sum(Role::Log, |segment| segment.bytes))
    )?;
    let others =
        [("spare", sum(Role::Spare, |s| s.bytes)), ("others", sum(Role::Other, |s| s.bytes))];
    for (what, bytes) in others.into_iter().filter(|(_, bytes)| *bytes > 0) {
        write!(out, ", {what} {}", size(bytes))?;
    }
    let kept: u64 = found.kept.iter().filter_map(|kept| kept.bytes).sum();
    if !found.kept.is_empty() {
        write!(out, ", kept cuts {}", size(kept))?;
    }
    writeln!(out)
}
