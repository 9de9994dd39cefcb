//! Descriptions of logs and segments, which several commands print.

use std::io::{self, Write};

use highwater::{
    Lsn,
    inspect::{
        Contents, Header, HeaderState, Inspection, Problem, ProblemKind, Role, Segment, Verdict,
    },
};

use crate::{
    output::{Out, Paint, note_owner},
    text::{count, counted, date, safe, size},
};

/// The maximum number of lines of a list.
pub(crate) const LINES_MAX: usize = 20;

fn at(lsn: Option<Lsn>) -> String {
    lsn.map_or_else(|| "unknown".to_owned(), |lsn| lsn.to_string())
}

/// Prints the verdict and the marks of the log.
pub(crate) fn head(out: &mut Out, paint: Paint, found: &Inspection) -> io::Result<()> {
    let strong = paint.strong;
    writeln!(out, "{strong}{}{strong:#}", safe(&found.location))?;
    note_owner(out, paint, found.owner_pid)?;
    verdict(out, paint, &found.verdict)?;
    if found.end.is_some() || found.first.is_some() {
        let (first, end, committed) = (at(found.first), at(found.end), at(found.committed));
        writeln!(out, "first LSN {first}, end {end}, known synced up to {committed}")?;
    }
    Ok(())
}

pub(crate) fn verdict(out: &mut Out, paint: Paint, verdict: &Verdict) -> io::Result<()> {
    let Paint { good, odd, bad, .. } = paint;
    match verdict {
        Verdict::New => writeln!(out, "{good}no log yet{good:#}: opening creates one"),
        Verdict::Closed => writeln!(out, "{good}closed{good:#}: everything in it was synced"),
        Verdict::CleanEnd => {
            writeln!(out, "{good}clean end{good:#}: not closed; opening continues at its end")
        }
        Verdict::TornTail(cut) => writeln!(
            out,
            "{odd}torn tail{odd:#}: opening would cut {} at LSN {} ({}, offset {}: {}; {} in them) \
             and keep the bytes",
            counted(cut.bytes, "byte", "bytes"),
            cut.lsn,
            cut.segment,
            cut.offset,
            cut.reason,
            counted(cut.valid_frame_count, "intact frame", "intact frames"),
        ),
        Verdict::Refused(problem) => {
            let what = kind(problem.kind);
            let advice = advice_on(problem.kind);
            writeln!(out, "{bad}{what}{bad:#}: {}{advice}", safe(&problem.message))
        }
        other => writeln!(out, "{odd}{other:?}{odd:#}"),
    }
}

pub(crate) fn kind(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Corrupt => "corrupt",
        ProblemKind::Unsupported => "unsupported",
        _ => "could not be read",
    }
}

/// Returns the advice to print after the message of a problem of this kind.
pub(crate) fn advice_on(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Unreadable => {
            "; the log itself may be whole: check the files' permissions and the device"
        }
        _ => "",
    }
}

pub(crate) fn segment(out: &mut Out, paint: Paint, segment: &Segment) -> io::Result<()> {
    let (strong, dim) = (paint.strong, paint.dim);
    let role = match segment.role {
        Role::Log => "",
        Role::Spare => ", prepared and not used yet",
        _ => ", not part of the log",
    };
    writeln!(
        out,
        "{strong}{}{strong:#}  {} of {} used{role}",
        safe(&segment.name),
        size(segment.used_bytes),
        size(segment.bytes)
    )?;
    header_state(out, paint, segment.header_state)?;
    if let Some(header) = &segment.header {
        describe_header(out, header)?;
    }
    match (&segment.contents, segment.header_state) {
        (Some(contents), _) => describe_contents(out, paint, segment, contents),
        (None, HeaderState::Blank) if segment.role == Role::Spare => Ok(()),
        (None, _) => {
            writeln!(out, "  {dim}not read: no readable header to check its frames{dim:#}")
        }
    }
}

fn header_state(out: &mut Out, paint: Paint, state: HeaderState) -> io::Result<()> {
    let Paint { odd, bad, .. } = paint;
    match state {
        HeaderState::Intact => writeln!(out, "  header    intact, and its copy"),
        HeaderState::CopyDamaged => {
            writeln!(out, "  header    intact; {odd}its copy is damaged{odd:#}")
        }
        HeaderState::MainDamaged => {
            writeln!(out, "  header    {odd}damaged{odd:#}; read from its copy")
        }
        HeaderState::Blank => writeln!(out, "  header    blank"),
        HeaderState::Newer { version } => {
            writeln!(out, "  header    {bad}intact, of format version {version}{bad:#}")
        }
        HeaderState::UnknownExtension { code } => {
            writeln!(out, "  header    intact, with an unknown extension ({code:#06x})")
        }
        HeaderState::Misplaced { sequence } => {
            writeln!(out, "  header    {bad}that of segment {sequence}{bad:#}")
        }
        HeaderState::UnknownFlags { flags } => {
            writeln!(out, "  header    {bad}intact, with unknown flags {flags:#06x}{bad:#}")
        }
        HeaderState::Damaged => writeln!(out, "  header    {bad}damaged, and its copy{bad:#}"),
        _ => writeln!(out, "  header    {bad}could not be read{bad:#}"),
    }
}

fn describe_header(out: &mut Out, header: &Header) -> io::Result<()> {
    writeln!(out, "  log       {}, created {}", header.log_id, date(header.created_unix_ms))?;
    writeln!(
        out,
        "  begins    at LSN {}, epoch {}, incarnation {:016x}",
        header.base, header.epoch, header.incarnation
    )?;
    match header.previous {
        Some(link) => writeln!(
            out,
            "  follows   the segment at LSN {}, incarnation {:016x}",
            link.base, link.incarnation
        )?,
        None => writeln!(out, "  follows   none: the first segment")?,
    }
    let hint = header.hint.map_or_else(String::new, |hint| format!(", hint {hint}"));
    writeln!(out, "  recorded  first LSN {}, synced up to {}{hint}", header.first, header.synced)
}

fn describe_contents(
    out: &mut Out,
    paint: Paint,
    segment: &Segment,
    contents: &Contents,
) -> io::Result<()> {
    write!(
        out,
        "  holds     {} ({}",
        counted(contents.frame_count, "frame", "frames"),
        counted(contents.record_count, "record", "records")
    )?;
    if contents.batch_count > 0 {
        write!(out, ", {}", counted(contents.batch_count, "batch", "batches"))?;
    }
    writeln!(
        out,
        ", {} control), {} of payload",
        count(contents.control_count),
        size(contents.payload_bytes)
    )?;
    if let Some(compressed) = contents.compressed {
        writeln!(
            out,
            "  compressed {}: {} stored in {}",
            counted(compressed.record_count, "record", "records"),
            size(compressed.payload_bytes),
            size(compressed.stored_bytes)
        )?;
    }
    if let Some((first, last)) = contents.frames {
        writeln!(out, "  LSNs      {first} to {last}")?;
    }
    let odd = paint.odd;
    let has_more = contents.past_count > 0 || contents.end_offset < segment.used_bytes;
    let mark = if has_more && segment.end != Some(contents.end) { odd } else { paint.dim };
    write!(
        out,
        "  ends      at LSN {}, offset {}: {mark}{}{mark:#}",
        contents.end, contents.end_offset, contents.stop
    )?;
    if contents.past_count > 0 {
        write!(out, "; {} past it", counted(contents.past_count, "intact frame", "intact frames"))?;
    }
    writeln!(out)
}

pub(crate) fn tail(out: &mut Out, paint: Paint, found: &Inspection) -> io::Result<()> {
    let odd = paint.odd;
    if !found.kept.is_empty() || !found.warnings.is_empty() || !found.damage.is_empty() {
        writeln!(out)?;
    }
    for kept in found.kept.iter().take(LINES_MAX) {
        let bytes = kept.bytes.map_or_else(|| "unknown size".to_owned(), size);
        writeln!(out, "kept by an earlier recovery: {} ({bytes})", safe(&kept.name))?;
    }
    more(out, found.kept.len(), "kept file", "kept files")?;
    for warning in found.warnings.iter().take(LINES_MAX) {
        writeln!(out, "{odd}warning{odd:#}: {}", safe(warning))?;
    }
    more(out, found.warnings.len(), "warning", "warnings")?;
    damage(out, paint, &found.damage)
}

/// Prints the damage that only a read of the whole log finds.
pub(crate) fn damage(out: &mut Out, paint: Paint, damage: &[Problem]) -> io::Result<()> {
    let bad = paint.bad;
    for problem in damage.iter().take(LINES_MAX) {
        let (what, advice) = (kind(problem.kind), advice_on(problem.kind));
        writeln!(out, "{bad}{what}{bad:#}: {}{advice}", safe(&problem.message))?;
    }
    more(out, damage.len(), "damaged place", "damaged places")
}

/// Prints the number of items that a list of `count` items left out.
pub(crate) fn more(out: &mut Out, count: usize, one: &str, many: &str) -> io::Result<()> {
    match count.saturating_sub(LINES_MAX) {
        0 => Ok(()),
        left => writeln!(out, "… and {} more; --json lists all", counted(left as u64, one, many)),
    }
}
