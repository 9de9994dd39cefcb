//! Lists the directory and reads the header of each segment.
//!
//! The cost of this step grows with the log: one small read per segment.

use crate::{
    error::{Error, Result},
    format::{
        header::{HeaderBlock, ParsedHeader, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION},
        last_close::LastClose,
        scan::to_usize,
    },
    lsn::Lsn,
    recovery::{
        chain::{Chain, Member},
        report::Warning,
    },
    segments::{
        LAST_CLOSE, STANDBY, STANDBY_NEW, SegmentFile, Sequence, is_receiving, is_recycled,
        read_last_close,
    },
    storage::{Storage, read_full},
};

/// A segment file and its header.
#[derive(Clone, Debug)]
pub(crate) struct SurveyedSegment {
    pub(crate) sequence: Sequence,
    /// The length of the file.
    pub(crate) bytes: u64,
    /// `None` if the header is blank, damaged or misplaced.
    pub(crate) header: Option<SegmentHeader>,
    /// An intact header that belongs to a file with another number.
    pub(crate) misplaced: Option<SegmentHeader>,
    /// True if the header is blank.
    pub(crate) is_blank: bool,
}

impl SurveyedSegment {
    /// Returns the segment as a candidate for the chain; `None` without a valid header.
    pub(super) fn member(&self) -> Option<Member> {
        let (sequence, bytes) = (self.sequence, self.bytes);
        self.header.map(|header| Member { sequence, header, bytes })
    }

    /// Returns whether the file has the header of another segment of the chain.
    ///
    /// A file system may show the old contents of blocks in a file that was being prepared. These
    /// contents are old, because the current ones are in the segment itself.
    pub(super) fn is_old_copy(&self, chain: &Chain) -> bool {
        let Some(header) = &self.misplaced else { return false };
        chain.members.iter().any(|member| member.header == *header)
    }
}

/// The contents of the directory.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The segments, in the order of their sequence.
    pub(crate) segments: Vec<SurveyedSegment>,
    pub(crate) foreign: Vec<String>,
    /// The note of the last close, if it is intact.
    pub(crate) last_close: Option<LastClose>,
    /// Files that waited to be reused as segments.
    pub(crate) recycled: Vec<String>,
    /// The names of all files.
    pub(crate) names: Vec<String>,
    /// The highest sequence number of all segments and of files set aside by cuts.
    pub(crate) sequence_max: Sequence,
    /// The highest epoch in any header, including those of segments that a cut set aside.
    pub(crate) epoch_max: u64,
    /// The highest epoch of segments set aside by cuts, or 0 without such segments.
    pub(crate) set_aside_epoch_max: u64,
    pub(crate) warnings: Vec<Warning>,
}

impl Survey {
    /// Returns the highest epoch in the header of a segment of the directory.
    pub(super) fn header_epoch_max(&self) -> u64 {
        let headers = self.segments.iter().filter_map(|segment| segment.header);
        headers.map(|header| header.epoch).max().unwrap_or(0)
    }

    /// Reserves the number and the epoch in the note of the last close.
    ///
    /// Neither is used again, even if the segment that had them is gone.
    fn reserve_last_close(&mut self) {
        let Some(closed) = self.last_close else { return };
        let is_ours =
            |segment: &SurveyedSegment| segment.header.is_some_and(|it| it.log_id == closed.log_id);
        if self.segments.iter().any(is_ours) {
            self.epoch_max = self.epoch_max.max(closed.epoch);
            self.sequence_max = self.sequence_max.max(Sequence(closed.sequence));
        }
    }
}

/// Returns the names of all files, sorted.
pub(crate) fn list(storage: &dyn Storage) -> Result<Vec<String>> {
    let listed = storage.list();
    let mut names =
        listed.map_err(|error| Error::io("listing", storage.location(), None, error))?;
    names.sort_unstable();
    Ok(names)
}

/// Reads the directory and the header of each segment. Blocking.
///
/// Refuses a segment of a later release.
pub(crate) fn survey(storage: &dyn Storage) -> Result<Survey> {
    let names = list(storage)?;
    let mut survey = Survey {
        segments: Vec::new(),
        foreign: Vec::new(),
        last_close: None,
        recycled: Vec::new(),
        names: names.clone(),
        sequence_max: Sequence(0),
        epoch_max: 0,
        set_aside_epoch_max: 0,
        warnings: Vec::new(),
    };
    for name in names {
        if let Some(sequence) = Sequence::parse(&name) {
            survey.sequence_max = survey.sequence_max.max(sequence);
            let segment = survey_segment(storage, sequence)?;
            let epoch = segment.header.map_or(0, |header| header.epoch);
            survey.epoch_max = survey.epoch_max.max(epoch);
            survey.segments.push(segment);
        } else if let Some(sequence) = Sequence::parse_kept(&name) {
            // The number and the epoch of a file that was set aside are not used again.
            survey.sequence_max = survey.sequence_max.max(sequence);
            let epoch = set_aside_epoch(storage, &name);
            survey.set_aside_epoch_max = survey.set_aside_epoch_max.max(epoch);
            survey.epoch_max = survey.epoch_max.max(epoch);
            survey.warnings.push(Warning::KeptCut { name });
        } else if name == LAST_CLOSE {
            match read_last_close(storage) {
                Ok(note) => survey.last_close = note,
                // An unreadable note loses no record.
                Err(error) => survey
                    .warnings
                    .push(Warning::UnreadableNote { name, reason: format!("{error:#}") }),
            }
        } else if is_recycled(&name) {
            survey.recycled.push(name);
        } else if name == STANDBY || name == STANDBY_NEW || is_receiving(&name) {
            // The replication of a standby owns them.
        } else {
            survey.foreign.push(name);
        }
    }
    survey.reserve_last_close();
    for segment in &survey.segments {
        if let Some(header) = &segment.misplaced {
            survey.warnings.push(Warning::MisplacedHeader {
                name: segment.sequence.file_name(),
                belongs_to: Sequence(header.sequence).file_name(),
            });
        }
    }
    let what = "it waited to be reused";
    let recycled =
        survey.recycled.iter().map(|name| Warning::Leftover { name: name.clone(), what });
    survey.warnings.extend(recycled);
    let foreign = survey.foreign.iter().map(|name| Warning::ForeignFile { name: name.clone() });
    survey.warnings.extend(foreign);
    Ok(survey)
}

/// Returns the epoch of a segment set aside by a cut, or 0 if unreadable.
///
/// An unreadable header does not prevent opening.
fn set_aside_epoch(storage: &dyn Storage, name: &str) -> u64 {
    let mut block = vec![0; to_usize(SEGMENT_HEADER_BYTES)];
    let read = storage.open(name).and_then(|file| read_full(file.as_ref(), &mut block, 0));
    let Ok(read) = read else { return 0 };
    let sequence = Sequence::parse_kept(name).map_or(0, |sequence| sequence.0);
    match HeaderBlock::parse(block.get(..read).unwrap_or_default(), sequence).parsed {
        ParsedHeader::Valid(header) | ParsedHeader::Misplaced(header) => header.epoch,
        _ => 0,
    }
}

/// Reads and parses the header block of a segment file.
pub(crate) fn read_header(file: &SegmentFile) -> Result<HeaderBlock> {
    let mut block = vec![0; to_usize(SEGMENT_HEADER_BYTES)];
    let read = file.read_at(&mut block, 0)?;
    Ok(HeaderBlock::parse(block.get(..read).unwrap_or_default(), file.sequence().0))
}

/// Refuses an intact header that this release cannot use.
pub(crate) fn refuse_unsupported(segment: &str, parsed: &ParsedHeader) -> Result<()> {
    let segment = segment.to_owned();
    match *parsed {
        ParsedHeader::Newer { version } => Err(Error::UnsupportedVersion {
            directory: String::new(),
            segment,
            version,
            supported: VERSION,
        }),
        ParsedHeader::UnknownFlags { flags } => {
            let lsn = Lsn::ZERO;
            Err(Error::UnsupportedFrame {
                directory: String::new(),
                segment,
                offset: 0,
                lsn,
                kind: 0,
                flags,
            })
        }
        ParsedHeader::UnknownExtension { code } => {
            Err(Error::UnsupportedExtension { directory: String::new(), segment, code })
        }
        ParsedHeader::Valid(_)
        | ParsedHeader::Misplaced(_)
        | ParsedHeader::Blank
        | ParsedHeader::Damaged => Ok(()),
    }
}

fn survey_segment(storage: &dyn Storage, sequence: Sequence) -> Result<SurveyedSegment> {
    let file = SegmentFile::open(storage, sequence)?;
    let parsed = read_header(&file)?.parsed;
    refuse_unsupported(file.name(), &parsed)?;
    let (header, misplaced) = match parsed {
        ParsedHeader::Valid(header) => (Some(header), None),
        ParsedHeader::Misplaced(header) => (None, Some(header)),
        _ => (None, None),
    };
    let is_blank = parsed == ParsedHeader::Blank;
    Ok(SurveyedSegment { sequence, bytes: file.bytes()?, header, misplaced, is_blank })
}
