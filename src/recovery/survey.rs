//! Lists the directory and reads the header of each segment: the only reading that grows with the
//! log, one small read per segment.

use crate::{
    error::{Error, Result},
    format::{
        header::{HeaderBlock, ParsedHeader, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION},
        scan::to_usize,
    },
    lsn::Lsn,
    recovery::report::Warning,
    segments::{SegmentFile, Sequence, is_recycled},
    storage::{Storage, read_full},
};

/// A segment file as it was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) sequence: Sequence,
    pub(crate) bytes: u64,
    /// `None` if it is blank or damaged.
    pub(crate) header: Option<SegmentHeader>,
    pub(crate) is_blank: bool,
}

/// What is in the directory.
#[derive(Debug)]
pub(crate) struct Survey {
    /// In the order of their sequence.
    pub(crate) segments: Vec<Found>,
    pub(crate) foreign: Vec<String>,
    /// Files that waited to be segments again.
    pub(crate) recycled: Vec<String>,
    /// All names.
    pub(crate) names: Vec<String>,
    /// The highest sequence number that a file has, or that something kept of a cut has.
    pub(crate) sequence_max: Sequence,
    /// The highest epoch that any header tells, also of segments that a cut set aside.
    pub(crate) epoch_max: u64,
    pub(crate) warnings: Vec<Warning>,
}

/// The names of all files, sorted.
pub(crate) fn list(storage: &dyn Storage) -> Result<Vec<String>> {
    let listed = storage.list();
    let mut names =
        listed.map_err(|error| Error::io("listing", storage.location(), None, error))?;
    names.sort_unstable();
    Ok(names)
}

pub(crate) fn survey(storage: &dyn Storage) -> Result<Survey> {
    let names = list(storage)?;
    let mut survey = Survey {
        segments: Vec::new(),
        foreign: Vec::new(),
        recycled: Vec::new(),
        names: names.clone(),
        sequence_max: Sequence(0),
        epoch_max: 0,
        warnings: Vec::new(),
    };
    for name in names {
        if let Some(sequence) = Sequence::parse(&name) {
            survey.sequence_max = survey.sequence_max.max(sequence);
            let found = look(storage, sequence)?;
            let epoch = found.header.map_or(0, |header| header.epoch);
            survey.epoch_max = survey.epoch_max.max(epoch);
            survey.segments.push(found);
        } else if let Some(sequence) = Sequence::parse_kept(&name) {
            // Neither its number nor its epoch is given out again, though it is no part of the log.
            survey.sequence_max = survey.sequence_max.max(sequence);
            survey.epoch_max = survey.epoch_max.max(kept_epoch(storage, &name));
            survey.warnings.push(Warning::KeptCut { name });
        } else if is_recycled(&name) {
            survey.recycled.push(name);
        } else {
            survey.foreign.push(name);
        }
    }
    for found in &survey.segments {
        if let Some(header) = found.header.filter(|header| header.file_bytes != found.bytes) {
            survey.warnings.push(Warning::UnexpectedLength {
                name: found.sequence.file_name(),
                bytes: found.bytes,
                expected_bytes: header.file_bytes,
            });
        }
    }
    let what = "it waited to be used again";
    let recycled =
        survey.recycled.iter().map(|name| Warning::Leftover { name: name.clone(), what });
    survey.warnings.extend(recycled);
    let foreign = survey.foreign.iter().map(|name| Warning::ForeignFile { name: name.clone() });
    survey.warnings.extend(foreign);
    Ok(survey)
}

/// The epoch of a segment that a cut set aside; 0 if that can't be told, which keeps nobody from
/// opening the log.
fn kept_epoch(storage: &dyn Storage, name: &str) -> u64 {
    let mut block = vec![0; to_usize(SEGMENT_HEADER_BYTES)];
    let read = storage.open(name).and_then(|file| read_full(file.as_ref(), &mut block, 0));
    let Ok(read) = read else { return 0 };
    match HeaderBlock::parse(block.get(..read).unwrap_or_default()).parsed {
        ParsedHeader::Valid(header) => header.epoch,
        _ => 0,
    }
}

/// What stands at the beginning of a segment file.
pub(crate) fn read_header(file: &SegmentFile) -> Result<HeaderBlock> {
    let mut block = vec![0; to_usize(SEGMENT_HEADER_BYTES)];
    let read = file.read_at(&mut block, 0)?;
    Ok(HeaderBlock::parse(block.get(..read).unwrap_or_default()))
}

fn look(storage: &dyn Storage, sequence: Sequence) -> Result<Found> {
    let file = SegmentFile::open(storage, sequence)?;
    let segment = file.name().to_owned();
    let (header, is_blank) = match read_header(&file)?.parsed {
        ParsedHeader::Valid(header) => (Some(header), false),
        ParsedHeader::Blank => (None, true),
        ParsedHeader::Damaged => (None, false),
        ParsedHeader::Newer { version } => {
            return Err(Error::UnsupportedVersion { segment, version, supported: VERSION });
        }
        ParsedHeader::UnknownFlags { flags } => {
            let lsn = Lsn::ZERO;
            return Err(Error::UnsupportedFrame { segment, offset: 0, lsn, kind: 0, flags });
        }
    };
    Ok(Found { sequence, bytes: file.bytes()?, header, is_blank })
}
