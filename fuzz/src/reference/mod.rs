//! A naive reader of a log, written from `docs/FORMAT.md` and `docs/DURABILITY.md`.
//!
//! It keeps the whole directory in memory, and computes each result from the start. Recovery must
//! find the same as this reader.

mod chain;
mod file;
mod frames;
mod header;
mod headless;
mod last_close;
mod outcome;
mod reading;
mod sealed;
mod slots;

pub use outcome::{Opens, Outcome};

use crate::{
    directory::Directory,
    reference::{
        chain::{Chain, link_up},
        file::File,
        frames::{Frame, Region, Seen},
        header::Parsed,
        last_close::{LastClose, last_close},
        reading::Reading,
    },
    seal::{CONTROL, HEADER_BLOCK_BYTES},
};

/// The highest segment number.
const SEQUENCE_MAX: u64 = u64::MAX >> 1;

/// Reads a directory, and returns the outcome that opening it must have.
pub fn read(directory: &Directory, record_bytes_max: u64) -> Outcome {
    match opens(directory, record_bytes_max) {
        Ok(opens) => Outcome::Opens(opens),
        Err(outcome) => outcome,
    }
}

fn opens(directory: &Directory, record_bytes_max: u64) -> Result<Opens, Outcome> {
    let files = files(directory)?;
    let closed = last_close(directory);
    if files.iter().all(|file| {
        file.header.is_none() && (file.is_blank || file.sequence == 1) && file.has_zero_body()
    }) {
        if closed.is_some_and(|closed| closed.end > 0) {
            return Err(Outcome::Corrupt);
        }
        return Ok(Opens { is_new: true, ..Opens::default() });
    }
    let (mut chain, detached) = chain(&files, record_bytes_max)?;
    let own = files.iter().filter_map(|file| Some(file.header?.epoch)).max().unwrap_or(0);
    let is_ours = |closed: &&LastClose| {
        files.iter().any(|file| file.header.is_some_and(|it| it.log_id == closed.log_id))
    };
    let closed_epoch = closed.as_ref().filter(is_ours).map_or(0, |closed| closed.epoch);
    let epochs_max = [own.max(cut_epoch_max(directory)).max(closed_epoch), own];
    let mut reading = Reading { epochs_max, ..Reading::new(record_bytes_max) };
    for file in chain.members.iter().chain(&detached) {
        reading.committed = reading.committed.max(file.header.unwrap().synced);
    }
    let newest = chain.members.last().unwrap().header.unwrap();
    if let Some(closed) = closed.filter(|closed| closed.log_id == newest.log_id) {
        let headers = chain.members.iter().map(|file| file.header.unwrap());
        let cuts = headers.filter(|header| header.epoch > closed.epoch).map(|header| header.base);
        reading.committed = reading.committed.max(closed.end.min(cuts.min().unwrap_or(u64::MAX)));
    }
    let headless = files.iter().filter(|file| file.header.is_none());
    let is_copy = |file: &File| chain.members.iter().any(|member| member.header == file.misplaced);
    let is_stale = |file: &File| chain.is_left_by_cut(file) || is_copy(file);
    let headless: Vec<&File> = headless.filter(|file| !is_stale(file)).collect();
    let is_whole = headless.iter().all(|file| file.is_blank && file.has_zero_body());
    let close = if is_whole && detached.is_empty() { close_at_the_end(&chain) } else { None };
    if let Some(close) = close.filter(|close| close.end >= reading.committed) {
        reading.committed = reading.committed.max(close.lsn);
        reading.end = close.end;
        reading.was_closed = true;
        reading.first = first_before(&chain, &close);
    } else {
        reading.walk(&chain)?;
        for file in &detached {
            let region = file.region(None);
            reading.search(&region, region.base);
        }
        headless::search(&mut reading, &headless, &chain, &detached)?;
        if reading.end < reading.committed || reading.is_cut_short {
            return Err(Outcome::Corrupt);
        }
        let committed = reading.committed;
        if committed < reading.end && !reading.boundaries.contains(&committed) {
            return Err(Outcome::Corrupt);
        }
    }
    let members = chain.members.clone();
    chain.begin_at(reading.first);
    if !reading.was_closed || reading.is_used_past_end {
        slots::check(&members, &reading, chain.first)?;
    } else {
        slots::check_closed(&members, &reading)?;
    }
    let (records, is_damaged) = records(&chain, &reading);
    Ok(Opens {
        is_new: false,
        was_closed: reading.was_closed && !reading.is_used_past_end,
        is_cut: reading.is_used_past_end,
        first: chain.first,
        end: reading.end,
        committed: reading.committed,
        records,
        is_damaged,
    })
}

/// Returns the highest epoch in the files that earlier cuts left.
fn cut_epoch_max(directory: &Directory) -> u64 {
    let is_cut_file = |name: &str| {
        let number = name.get(..20).and_then(|digits| digits.parse::<u64>().ok());
        let is_cut = name.get(20..).is_some_and(|rest| rest.starts_with(".wal.cut"));
        is_cut && number.is_some_and(|number| number <= SEQUENCE_MAX)
    };
    let files = directory.0.iter().filter(|(name, _)| is_cut_file(name));
    let headers =
        files.map(|(_, bytes)| header::parse(&bytes[..bytes.len().min(HEADER_BLOCK_BYTES)], 0));
    let epochs = headers.filter_map(|parsed| match parsed {
        Parsed::Valid(header) | Parsed::Misplaced(header) => Some(header.epoch),
        _ => None,
    });
    epochs.max().unwrap_or(0)
}

fn files(directory: &Directory) -> Result<Vec<File>, Outcome> {
    let digits = |name: &str, suffix| {
        let digits = name.strip_suffix(suffix)?;
        let is_plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
        // A log never reaches a higher number, so such a file is foreign.
        let number = is_plain.then(|| digits.parse::<u64>().ok()).flatten();
        number.filter(|&number| number <= SEQUENCE_MAX)
    };
    let mut files = Vec::new();
    let mut is_ours = directory.0.is_empty();
    let mut is_unsupported = false;
    let mut sequence_max = 0;
    for (name, bytes) in &directory.0 {
        let cut = digits(name, ".wal.cut");
        is_ours |= cut.is_some() || name == "LAST-CLOSE";
        sequence_max = sequence_max.max(cut.unwrap_or(0));
        let Some(sequence) = digits(name, ".wal") else { continue };
        sequence_max = sequence_max.max(sequence);
        is_ours = true;
        let parsed = header::parse(&bytes[..bytes.len().min(HEADER_BLOCK_BYTES)], sequence);
        is_unsupported |= parsed == Parsed::Unsupported;
        let header = if let Parsed::Valid(header) = parsed { Some(header) } else { None };
        let misplaced = if let Parsed::Misplaced(header) = parsed { Some(header) } else { None };
        let is_blank = parsed == Parsed::Blank;
        files.push(File { sequence, header, misplaced, is_blank, bytes: bytes.clone() });
    }
    match (is_ours, is_unsupported) {
        (false, _) => Err(Outcome::NotALog),
        (_, true) => Err(Outcome::Unsupported),
        // Too few numbers are left for later segments.
        _ if sequence_max > SEQUENCE_MAX - (1 << 32) => Err(Outcome::Corrupt),
        _ => Ok(files),
    }
}

/// Returns the log's segments, and the detached segments above a gap.
fn chain(files: &[File], record_bytes_max: u64) -> Result<(Chain, Vec<File>), Outcome> {
    let mut valid: Vec<File> = files.iter().filter(|file| file.header.is_some()).cloned().collect();
    let log_id = valid.last().ok_or(Outcome::Corrupt)?.header.unwrap().log_id;
    if valid.iter().any(|file| file.header.unwrap().log_id != log_id) {
        return Err(Outcome::Corrupt);
    }
    let mut detached = Vec::new();
    loop {
        let mut chain = link_up(&valid, 0);
        if chain.is_broken {
            chain = link_up(&valid, recorded_first(&chain, record_bytes_max)?);
        }
        if !chain.is_broken {
            return Ok((chain, detached));
        }
        let lowest = chain.members[0].sequence;
        let (below, above): (Vec<File>, Vec<File>) =
            valid.into_iter().partition(|file| file.sequence < lowest);
        if below.is_empty() {
            return Err(Outcome::Corrupt);
        }
        valid = below;
        detached.extend(above);
    }
}

/// Returns the highest `first` in the chain's control records.
fn recorded_first(chain: &Chain, record_bytes_max: u64) -> Result<u64, Outcome> {
    if let Some(close) = close_at_the_end(chain) {
        return Ok(first_before(chain, &close));
    }
    let mut ahead = Reading::new(record_bytes_max);
    ahead.walk(chain)?;
    Ok(ahead.first)
}

/// Returns the `first` in the control record directly before the close frame; 0 without one.
fn first_before(chain: &Chain, close: &Frame) -> u64 {
    let region = chain.members.last().unwrap().region(None);
    let at = close.lsn.checked_sub(32).filter(|&at| at >= region.base);
    let frame = at.and_then(|at| region.frame_at(at)).filter(|frame| frame.end == close.lsn);
    frame.and_then(|frame| frame.recorded_first()).unwrap_or(0)
}

/// Returns the close frame, if only zeros follow it in the newest segment.
fn close_at_the_end(chain: &Chain) -> Option<Frame> {
    let region = chain.members.last().unwrap().region(None);
    let used = region.bytes.iter().rposition(|&byte| byte != 0)? + 1;
    let used = used.next_multiple_of(8).min(region.bytes.len());
    let at = region.base + used.checked_sub(24)? as u64;
    region.frame_at(at).filter(|frame| frame.is_clean_close())
}

fn records(chain: &Chain, reading: &Reading) -> (Vec<(u64, Vec<u8>)>, bool) {
    let mut records = Vec::new();
    let bases: Vec<u64> = chain.members.iter().map(|file| file.header.unwrap().base).collect();
    let mut at = chain.first;
    while at < reading.end {
        let Some(member) = bases.partition_point(|&base| base <= at).checked_sub(1) else {
            return (records, true);
        };
        let end = bases.get(member + 1).copied().unwrap_or(reading.end);
        let file = &chain.members[member];
        let whole = file.region(None);
        let room = usize::try_from(end - whole.base).unwrap_or(usize::MAX);
        let region = Region { bytes: &file.body()[..file.body().len().min(room)], ..whole };
        let Seen::Unit(frames) = region.unit_at(at, reading.record_bytes_max) else {
            return (records, true);
        };
        at = frames.last().unwrap().end;
        for frame in frames.into_iter().filter(|frame| frame.kind != CONTROL) {
            // A compressed record is an error, because the library is built without codecs here.
            if frame.flags != 0 {
                return (records, true);
            }
            records.push((frame.lsn, frame.payload));
        }
    }
    (records, false)
}
