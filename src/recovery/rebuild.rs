//! Makes an opened log writable: creates it, or continues it after a clean close.
//!
//! `recovery/resume` and `recovery/cut` are the other ways.

use std::sync::Arc;

use crate::{
    error::{ClosedBy, Error, Result},
    format::{
        control::Control,
        extension::Extension,
        frame::{CONTROL_FRAME_BYTES, Seed, control_frame},
        header::{FILE_BYTES_MAX, SEGMENT_HEADER_BYTES, SegmentHeader, file_end, file_offset},
        scan::{WalkBounds, to_usize},
    },
    lsn::Lsn,
    options::Config,
    pipeline::Active,
    recovery::{
        aside::clear, chain::Member, judged::Judged, leftovers::Leftover, report::RecoveryReport,
        survey::Survey,
    },
    segments::{
        Beside, SegmentFile, SegmentInfo, SegmentReader, Sequence, prepare, random_bytes,
        random_incarnation,
    },
    storage::Storage,
};

pub(super) const CHUNK_BYTES: u64 = 1 << 20;

/// The writable state of a log: where its pipeline starts.
pub(crate) struct Ready {
    pub(crate) log_id: [u8; 16],
    pub(crate) epoch: u64,
    /// The `first` in the active segment's header.
    pub(crate) known_first: Lsn,
    /// The position of slots records in the active segment's header.
    pub(crate) slots_floor: Option<Lsn>,
    pub(crate) active: Active,
    pub(crate) segments: Vec<SegmentInfo>,
}

/// Returns whether the directory has no log: it is empty, or a creation was interrupted.
///
/// The header of the first segment is synced before any frame counts. So a log whose only segment
/// has neither a header nor frames never had a record.
pub(crate) fn is_uncreated(storage: &dyn Storage, survey: &Survey) -> Result<bool> {
    for segment in &survey.segments {
        if segment.header.is_some() || (!segment.is_blank && segment.sequence != FIRST_SEQUENCE) {
            return Ok(false);
        }
        let file = Arc::new(SegmentFile::open(storage, segment.sequence)?);
        let bytes = segment.bytes.min(FILE_BYTES_MAX);
        let end = file_end(Lsn::ZERO, bytes);
        let place = WalkBounds { seed: Seed::new([0; 16], 0), end, record_bytes_max: 0 };
        let reader = SegmentReader { file, base: Lsn::ZERO, place };
        if reader.used_end(Lsn::ZERO, end)? > Lsn::ZERO {
            return Ok(false);
        }
    }
    Ok(true)
}

const FIRST_SEQUENCE: Sequence = Sequence(1);

/// Creates the log.
///
/// Commit point: the first header is synced.
pub(crate) fn create(
    storage: &dyn Storage,
    config: &Config,
    survey: &Survey,
    report: &mut RecoveryReport,
) -> Result<Ready> {
    let leftovers: Vec<_> =
        survey.segments.iter().map(|segment| Leftover::empty(segment.sequence)).collect();
    clear(storage, &leftovers, report)?;
    let file = prepare(
        storage,
        FIRST_SEQUENCE,
        config.segment_bytes,
        config.preallocation,
        Beside::Nothing,
        &|| {},
    )?;
    let header = SegmentHeader {
        sequence: FIRST_SEQUENCE.0,
        log_id: random_bytes(storage)?,
        base: Lsn::ZERO,
        epoch: 1,
        by_truncation: false,
        incarnation: random_incarnation(storage)?,
        previous: None,
        first: Lsn::ZERO,
        synced: Lsn::ZERO,
        created_unix_ms: storage.unix_ms(),
        hint: None,
        file_bytes: config.segment_bytes,
        extension: Extension::default(),
    };
    commit_header(file, &header, Vec::new())
}

/// Continues the newest segment after a clean close.
///
/// The close itself may be only in the page cache, because its sync may have failed. Then
/// everything before the close is durable, but nothing written after it could be trusted. So the
/// close is written again: the same bytes in the same place. If the close is the only frame of its
/// segment, the header is written again, too.
pub(crate) fn continue_closed(
    storage: &dyn Storage,
    judged: &Judged,
    report: &mut RecoveryReport,
) -> Result<Ready> {
    let Some(newest) = judged.chain.members.last() else {
        return Err(no_members());
    };
    let file = SegmentFile::open(storage, newest.sequence)?;
    let base = newest.header.base;
    let close = Lsn::new(judged.end.as_u64().saturating_sub(CONTROL_FRAME_BYTES));
    if close == base {
        write_header_again(newest, &file)?;
    }
    let offset = file_offset(base, close);
    // Sealed again instead of read again, because a failed read must not become the durable close.
    let seed = Seed::new(newest.header.log_id, newest.header.epoch);
    let frame = control_frame(seed, close, Control::Close, close);
    file.write_at(&frame, offset)?;
    file.sync_data()?;
    clear(storage, &judged.leftovers, report)?;
    // A file that was extended later may have no space allocated past its old end.
    let bytes = newest.bytes.min(newest.header.file_bytes);
    let active = Active { file: Arc::new(file), link: newest.header.link(), bytes };
    Ok(Ready {
        log_id: newest.header.log_id,
        epoch: newest.header.epoch,
        known_first: newest.header.first,
        slots_floor: newest.header.extension.slots,
        active,
        segments: infos(&judged.chain.members),
    })
}

/// Returns whether the newest segment has another name, for example in a backup.
///
/// Such a segment is not continued, because appends would change the backup, too.
pub(crate) fn is_linked_elsewhere(storage: &dyn Storage, judged: &Judged) -> Result<bool> {
    match judged.chain.members.last() {
        Some(newest) => Ok(SegmentFile::open(storage, newest.sequence)?.link_count()? > 1),
        None => Ok(false),
    }
}

/// Writes both copies of the header again, from an intact one. Entries of a newer release stay.
pub(super) fn write_header_again(member: &Member, file: &SegmentFile) -> Result<()> {
    let mut block = vec![0; to_usize(SEGMENT_HEADER_BYTES)];
    let read = file.read_at(&mut block, 0)?;
    let block = block.get(..read).unwrap_or_default();
    match SegmentHeader::both_copies(block, member.sequence.0) {
        Some(bytes) => file.write_at(&bytes, 0),
        // The survey found an intact copy.
        None => Err(Error::Corrupt {
            directory: file.directory().to_owned(),
            lsn: member.header.base,
            segment: file.name().to_owned(),
            offset: 0,
            synced: member.header.synced,
            reason: "the header changed while the log was opened and is now damaged".to_owned(),
        }),
    }
}

/// Writes and syncs the header of a segment whose other bytes are durable.
pub(super) fn commit_header(
    file: SegmentFile,
    header: &SegmentHeader,
    mut segments: Vec<SegmentInfo>,
) -> Result<Ready> {
    file.write_at(&header.block(), 0)?;
    file.sync_data()?;
    segments.push(SegmentInfo::of(header));
    let active = Active { file: Arc::new(file), link: header.link(), bytes: header.file_bytes };
    let (log_id, epoch, known_first) = (header.log_id, header.epoch, header.first);
    let slots_floor = header.extension.slots;
    Ok(Ready { log_id, epoch, known_first, slots_floor, active, segments })
}

pub(super) fn infos(members: &[Member]) -> Vec<SegmentInfo> {
    members.iter().map(Member::info).collect()
}

/// Returns the error for a chain without members. No caller passes such a chain.
pub(super) fn no_members() -> Error {
    Error::Closed { by: ClosedBy::FilesRemoved }
}
