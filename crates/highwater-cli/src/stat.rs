//! `stat`: draws the segments and the marks. Reads the headers and the end of the log only.

use std::io::{self, Write};

use highwater::{
    Lsn,
    inspect::{HeaderState, Inspection, ProblemKind, Role, Segment, Verdict},
};

use crate::{
    describe::head,
    options::LogOptions,
    output::{CommandResult, Out, Paint, json, open, snapshot},
    text::{counted, size},
};

/// The width of the picture without a terminal, and its bounds on a terminal.
const BAR: u64 = 40;
const BAR_BOUNDS: (u64, u64) = (20, 200);
/// The width of the text beside the picture, for LSNs of a few digits.
const BESIDE: u64 = 58;
/// The maximum number of rows. If there are more segments, the first and the last ones are shown.
const ROWS_MAX: usize = 40;

pub(crate) fn run(options: &LogOptions) -> CommandResult {
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
    slots(&mut out, paint, found)?;
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
    let scale = Scale { largest, cells: bar_cells() };
    let mut missing = missing(found);
    for (at, segment) in found.segments.iter().enumerate() {
        let is_left_out = count > ROWS_MAX && (ROWS_MAX / 2..count - ROWS_MAX / 2).contains(&at);
        if is_left_out {
            if at == ROWS_MAX / 2 {
                writeln!(out, "{dim}     … {} more …{dim:#}", count - ROWS_MAX)?;
            }
            continue;
        }
        if missing.take_if(|lsn| segment.header.is_some_and(|header| *lsn < header.base)).is_some()
        {
            gap(out, paint, scale)?;
        }
        row(out, paint, found, segment, scale)?;
    }
    if missing.is_some() {
        gap(out, paint, scale)?;
    }
    let has_damage = matches!(found.verdict, Verdict::Refused(_));
    let damage = if has_damage { "   !  damaged   ?  no header" } else { "" };
    writeln!(
        out,
        "{dim}\n  #  used, all synced   =  used   .  free   S  known synced   X  end{damage}{dim:#}"
    )
}

fn row(
    out: &mut Out,
    paint: Paint,
    found: &Inspection,
    segment: &Segment,
    scale: Scale,
) -> io::Result<()> {
    let Paint { good, odd, bad, dim, .. } = paint;
    let number = segment.name.trim_end_matches(".wal").trim_start_matches('0');
    let style = match segment.role {
        Role::Log => good,
        Role::Spare => dim,
        _ => odd,
    };
    write!(out, "{number:>6} [{style}{}{style:#}]", bar(found, segment, scale))?;
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

/// Draws a file as a row of characters to scale: used part and marks.
fn bar(found: &Inspection, segment: &Segment, scale: Scale) -> String {
    let scaled = |bytes: u64| {
        let cells = u128::from(bytes) * u128::from(scale.cells) / u128::from(scale.largest);
        u64::try_from(cells).unwrap_or(scale.cells).min(scale.cells)
    };
    let cells = scaled(segment.bytes).max(1);
    let used = scaled(segment.used_bytes).max(u64::from(segment.used_bytes > 0));
    let header = segment.header.filter(|_| segment.role == Role::Log);
    // Returns the cell of an LSN, if it lies in this file.
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
    let is_headless = segment.header.is_none() && segment.role != Role::Spare;
    let damaged = damaged_at(found, segment).map(|offset| scaled(offset).min(cells - 1));
    let character = |at: u64| match () {
        () if damaged == Some(at) => '!',
        () if is_headless && at < used => '?',
        () if end == Some(at) => 'X',
        () if synced == Some(at) => 'S',
        () if at < used && is_synced(at) => '#',
        () if at < used => '=',
        () => '.',
    };
    let bar: String = (0..cells).map(character).collect();
    format!("{bar:<width$}", width = usize::try_from(scale.cells).unwrap_or(0))
}

/// Returns the offset of the refused damage, if the damage is in this file.
fn damaged_at(found: &Inspection, segment: &Segment) -> Option<u64> {
    let Verdict::Refused(problem) = &found.verdict else { return None };
    problem.offset.filter(|_| problem.segment.as_ref() == Some(&segment.name))
}

/// Returns the LSN whose file is missing, if opening refuses the log because of it.
fn missing(found: &Inspection) -> Option<Lsn> {
    let Verdict::Refused(problem) = &found.verdict else { return None };
    // A file without a header may be the missing one.
    let is_headless = |segment: &Segment| segment.header.is_none() && segment.role != Role::Spare;
    if found.segments.iter().any(is_headless) {
        return None;
    }
    let is_here = |segment: &Segment| problem.segment.as_ref() == Some(&segment.name);
    problem
        .lsn
        .filter(|_| problem.kind == ProblemKind::Corrupt && !found.segments.iter().any(is_here))
}

fn gap(out: &mut Out, paint: Paint, scale: Scale) -> io::Result<()> {
    let (bad, width) = (paint.bad, usize::try_from(scale.cells).unwrap_or(0));
    writeln!(out, "{:>6} [{bad}{}{bad:#}]  {bad}missing{bad:#}", "", "!".repeat(width))
}

/// The scale of the picture.
#[derive(Clone, Copy)]
struct Scale {
    /// The bytes that fill all cells.
    largest: u64,
    cells: u64,
}

fn bar_cells() -> u64 {
    let (least, most) = BAR_BOUNDS;
    let width = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| u64::from(width.0));
    width.map_or(BAR, |width| width.saturating_sub(BESIDE).clamp(least, most))
}

/// Lists the slots. The first one keeps the most.
fn slots(out: &mut Out, paint: Paint, found: &Inspection) -> io::Result<()> {
    if found.slots.is_empty() {
        return Ok(());
    }
    let Paint { odd, bad, dim, .. } = paint;
    let mut slots: Vec<_> = found.slots.iter().collect();
    slots.sort_by_key(|slot| (slot.is_lost, slot.position));
    writeln!(out, "{}:", counted(slots.len() as u64, "slot", "slots"))?;
    for (at, slot) in slots.iter().take(ROWS_MAX).enumerate() {
        let (position, lag) = (slot.position.to_string(), size(slot.lag_bytes));
        write!(out, "{position:>12} {lag:>9} behind, keeps {:>9}", size(slot.held_bytes))?;
        write!(out, "  {}", slot.name.escape_debug())?;
        if let Some(bytes) = slot.keep_bytes_max {
            write!(out, " {dim}at most {}{dim:#}", size(bytes))?;
        }
        match slot.is_lost {
            true => write!(out, " {bad}lost{bad:#}")?,
            false if at == 0 && slots.len() > 1 => write!(out, " {odd}keeps most{odd:#}")?,
            false => {}
        }
        writeln!(out)?;
    }
    match slots.len().saturating_sub(ROWS_MAX) {
        0 => Ok(()),
        more => writeln!(out, "{dim}     … {more} more …{dim:#}"),
    }
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
