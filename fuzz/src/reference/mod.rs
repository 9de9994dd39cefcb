//! A naive reader of a log, from `docs/FORMAT.md` and `docs/DURABILITY.md`: all of a directory in
//! memory, each question answered from the beginning, nothing clever. What recovery finds must be
//! what this one finds.

mod chain;
mod frames;
mod header;
mod headless;

use crate::{
    directory::Directory,
    reference::{
        chain::{Chain, link_up},
        frames::{Frame, Region, Seen},
        header::{Header, Parsed},
    },
    seal::{CLOSE, CONTROL, HEADER_BLOCK_BYTES, Seed},
};

/// What becomes of a directory.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    NotALog,
    Corrupt,
    Unsupported,
    TooLarge,
    Opens(Opens),
}

/// A log that opens, and all that is read of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opens {
    pub is_new: bool,
    pub was_closed: bool,
    pub is_cut: bool,
    pub first: u64,
    pub end: u64,
    pub committed: u64,
    pub records: Vec<(u64, Vec<u8>)>,
    /// The records end at damage to what was committed.
    pub is_damaged: bool,
}

/// One segment file.
#[derive(Clone, Debug)]
pub struct File {
    pub sequence: u64,
    /// `None`: blank or damaged.
    pub header: Option<Header>,
    pub is_blank: bool,
    pub bytes: Vec<u8>,
}

impl File {
    /// What stands behind the header's block.
    fn body(&self) -> &[u8] {
        self.bytes.get(HEADER_BLOCK_BYTES..).unwrap_or_default()
    }

    fn has_zero_body(&self) -> bool {
        self.body().iter().all(|&byte| byte == 0)
    }

    /// The frames of a segment whose header is valid, up to `end` or to what it was made for.
    fn region(&self, end: Option<u64>) -> Region<'_> {
        let header = self.header.unwrap();
        let made = (header.file_bytes as usize).saturating_sub(HEADER_BLOCK_BYTES);
        let mut bytes = &self.body()[..self.body().len().min(made)];
        if let Some(end) = end {
            let room = end.saturating_sub(header.base);
            bytes = &bytes[..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        }
        Region { seed: Seed::new(header.log_id, header.epoch), base: header.base, bytes }
    }
}

/// What is known so far.
struct Reading {
    record_bytes_max: u64,
    /// The highest that any header names, and the highest that a segment's does.
    epochs_max: [u64; 2],
    /// X of `docs/DURABILITY.md`.
    end: u64,
    /// S.
    committed: u64,
    /// The highest beginning that a control record tells.
    first: u64,
    was_closed: bool,
    is_cut_short: bool,
    /// Anything stands past the end.
    is_used_past_end: bool,
    /// Where units begin.
    boundaries: Vec<u64>,
}

impl Reading {
    fn new(record_bytes_max: u64) -> Self {
        Reading {
            record_bytes_max,
            epochs_max: [0; 2],
            end: 0,
            committed: 0,
            first: 0,
            was_closed: false,
            is_cut_short: false,
            is_used_past_end: false,
            boundaries: Vec::new(),
        }
    }

    fn commit(&mut self, frames: &[Frame]) {
        for frame in frames {
            self.committed = self.committed.max(frame.commitment.unwrap_or(0));
        }
    }

    fn search(&mut self, region: &Region<'_>, from: u64) {
        if region.is_used_from(from) {
            self.is_used_past_end = true;
            self.commit(&region.search(from));
        }
    }

    /// Forward to the first place without a valid unit, and over everything behind it.
    fn walk(&mut self, chain: &Chain) -> Result<(), Outcome> {
        let members = &chain.members;
        let bases: Vec<u64> = members.iter().map(|file| file.header.unwrap().base).collect();
        let newest = members.last().unwrap().header.unwrap();
        self.end = newest.synced.max(bases[0]).max(chain.first);
        loop {
            let at = bases.partition_point(|&base| base <= self.end) - 1;
            let next = bases.get(at + 1).copied();
            let region = members[at].region(next);
            let stop = match region.unit_at(self.end, self.record_bytes_max) {
                Seen::Unit(frames) => {
                    self.boundaries.push(self.end);
                    self.commit(&frames);
                    let told = frames.iter().filter_map(Frame::first_told).max();
                    self.first = self.first.max(told.unwrap_or(0));
                    let last = frames.last().unwrap();
                    self.was_closed = last.is_clean_close();
                    self.end = last.end;
                    continue;
                }
                Seen::Unsupported => return Err(Outcome::Unsupported),
                Seen::TooLarge => return Err(Outcome::TooLarge),
                stop => stop,
            };
            if matches!(stop, Seen::End) && next == Some(self.end) {
                self.was_closed = false;
                continue;
            }
            let made = members[at].header.unwrap().file_bytes;
            let is_short = (members[at].bytes.len() as u64) < made;
            self.is_cut_short = is_short && !matches!(stop, Seen::Blank);
            self.search(&region, self.end);
            for later in at + 1..members.len() {
                let region = members[later].region(bases.get(later + 1).copied());
                self.search(&region, region.base);
            }
            return Ok(());
        }
    }
}

/// Reads a directory as opening must.
pub fn read(directory: &Directory, record_bytes_max: u64) -> Outcome {
    match judged(directory, record_bytes_max) {
        Ok(opens) => Outcome::Opens(opens),
        Err(outcome) => outcome,
    }
}

fn judged(directory: &Directory, record_bytes_max: u64) -> Result<Opens, Outcome> {
    let files = files(directory)?;
    if files.iter().all(|file| {
        file.header.is_none() && (file.is_blank || file.sequence == 1) && file.has_zero_body()
    }) {
        return Ok(Opens { is_new: true, ..Opens::default() });
    }
    let (mut chain, hanging) = chain(&files, record_bytes_max)?;
    let own = files.iter().filter_map(|file| Some(file.header?.epoch)).max().unwrap_or(0);
    let epochs_max = [own.max(kept_epoch_max(directory)), own];
    let mut reading = Reading { epochs_max, ..Reading::new(record_bytes_max) };
    for file in chain.members.iter().chain(&hanging) {
        reading.committed = reading.committed.max(file.header.unwrap().synced);
    }
    let headless = files.iter().filter(|file| file.header.is_none());
    let headless: Vec<&File> = headless.filter(|file| !chain.has_cut_away(file)).collect();
    let is_whole = headless.iter().all(|file| file.is_blank && file.has_zero_body());
    let close = if is_whole && hanging.is_empty() { close_at_the_end(&chain) } else { None };
    if let Some(close) = close {
        reading.committed = reading.committed.max(close.lsn);
        reading.end = close.end;
        reading.was_closed = true;
        reading.first = first_before(&chain, &close);
    } else {
        reading.walk(&chain)?;
        for file in &hanging {
            let region = file.region(None);
            reading.search(&region, region.base);
        }
        headless::search(&mut reading, &headless, &chain, &hanging)?;
        if reading.end < reading.committed || reading.is_cut_short {
            return Err(Outcome::Corrupt);
        }
        let committed = reading.committed;
        if committed < reading.end && !reading.boundaries.contains(&committed) {
            return Err(Outcome::Corrupt);
        }
    }
    chain.begin_at(reading.first);
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

/// The highest epoch that a file names which an earlier cut left.
fn kept_epoch_max(directory: &Directory) -> u64 {
    let is_kept = |name: &str| name.get(20..).is_some_and(|rest| rest.starts_with(".wal.cut"));
    let kept = directory.0.iter().filter(|(name, _)| is_kept(name));
    let headers =
        kept.map(|(_, bytes)| header::parse(&bytes[..bytes.len().min(HEADER_BLOCK_BYTES)]));
    let epochs = headers.filter_map(|parsed| match parsed {
        Parsed::Valid(header) => Some(header.epoch),
        _ => None,
    });
    epochs.max().unwrap_or(0)
}

fn files(directory: &Directory) -> Result<Vec<File>, Outcome> {
    let digits = |name: &str, suffix| {
        let digits = name.strip_suffix(suffix)?;
        let is_plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| digits.to_owned())
    };
    let mut files = Vec::new();
    let mut is_ours = directory.0.is_empty();
    let mut is_unsupported = false;
    for (name, bytes) in &directory.0 {
        is_ours |= digits(name, ".wal.cut").is_some();
        let Some(Ok(sequence)) = digits(name, ".wal").map(|digits| digits.parse()) else {
            continue;
        };
        is_ours = true;
        let parsed = header::parse(&bytes[..bytes.len().min(HEADER_BLOCK_BYTES)]);
        is_unsupported |= parsed == Parsed::Unsupported;
        let header = if let Parsed::Valid(header) = parsed { Some(header) } else { None };
        let is_blank = parsed == Parsed::Blank;
        files.push(File { sequence, header, is_blank, bytes: bytes.clone() });
    }
    match (is_ours, is_unsupported) {
        (false, _) => Err(Outcome::NotALog),
        (_, true) => Err(Outcome::Unsupported),
        _ => Ok(files),
    }
}

/// The log's segments, and those that hang above a gap.
fn chain(files: &[File], record_bytes_max: u64) -> Result<(Chain, Vec<File>), Outcome> {
    let mut valid: Vec<File> = files.iter().filter(|file| file.header.is_some()).cloned().collect();
    let log_id = valid.last().ok_or(Outcome::Corrupt)?.header.unwrap().log_id;
    if valid.iter().any(|file| file.header.unwrap().log_id != log_id) {
        return Err(Outcome::Corrupt);
    }
    let mut hanging = Vec::new();
    loop {
        let mut chain = link_up(&valid, 0);
        if chain.is_broken {
            chain = link_up(&valid, told_first(&chain, record_bytes_max)?);
        }
        if !chain.is_broken {
            return Ok((chain, hanging));
        }
        let lowest = chain.members[0].sequence;
        let (below, above): (Vec<File>, Vec<File>) =
            valid.into_iter().partition(|file| file.sequence < lowest);
        if below.is_empty() {
            return Err(Outcome::Corrupt);
        }
        valid = below;
        hanging.extend(above);
    }
}

/// Where control records say that the log of this chain begins.
fn told_first(chain: &Chain, record_bytes_max: u64) -> Result<u64, Outcome> {
    if let Some(close) = close_at_the_end(chain) {
        return Ok(first_before(chain, &close));
    }
    let mut ahead = Reading::new(record_bytes_max);
    ahead.walk(chain)?;
    Ok(ahead.first)
}

/// What the record that ends where the close begins says of it.
fn first_before(chain: &Chain, close: &Frame) -> u64 {
    let region = chain.members.last().unwrap().region(None);
    let at = close.lsn.checked_sub(32).filter(|&at| at >= region.base);
    let frame = at.and_then(|at| region.frame_at(at)).filter(|frame| frame.end == close.lsn);
    frame.and_then(|frame| frame.first_told()).unwrap_or(0)
}

/// The close frame, if it is the last thing in the newest segment that isn't zero.
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
            // Compressed, and the library is built without codecs here.
            if frame.flags != 0 {
                return (records, true);
            }
            records.push((frame.lsn, frame.payload));
        }
    }
    (records, false)
}

impl Frame {
    fn is_clean_close(&self) -> bool {
        self.kind == CONTROL
            && self.flags == 0
            && self.payload == CLOSE
            && self.commitment == Some(self.lsn)
    }
}
