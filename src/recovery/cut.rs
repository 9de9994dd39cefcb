//! Cuts a torn tail or a damaged end.
//!
//! The log continues in a fresh segment of the next epoch.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{
        compression::Codec,
        epoch::line_of,
        extension::Extension,
        frame::{CONTROL_FRAME_BYTES, FrameHeader, Kind, Seed, frame_bytes},
        header::{SegmentHeader, file_end, file_offset, fits},
        scan::{Stop, WalkBounds, to_usize},
    },
    lsn::Lsn,
    options::Config,
    pipeline::CONTROL_ROOM_BYTES,
    recovery::{
        aside::{clear, keep_copies},
        chain::Member,
        judged::Judged,
        leftovers::Leftover,
        rebuild::{CHUNK_BYTES, Ready, commit_header, infos, no_members},
        report::RecoveryReport,
        scan::search_frames,
        survey::Survey,
    },
    replay::damage,
    segments::{
        Beside, SegmentFile, SegmentReader, Sequence, prepare, random_bytes, random_incarnation,
    },
    storage::Storage,
};

/// The free space of the smallest segment on a full device, beyond the needed bytes.
const SMALL_ROOM_BYTES: u64 = 64 << 10;

/// Begins the next epoch at the highest commitment S.
///
/// The frames from S to the end are sealed again into a fresh segment. That segment replaces all
/// segments that begin at S or above. So a header that a failed sync may have dropped does not
/// count, and no byte that may be durable is overwritten.
///
/// Commit point: the fresh segment's header is synced, after everything else in it.
pub(crate) fn begin_epoch(
    storage: &dyn Storage,
    config: &Config,
    judged: &Judged,
    survey: &Survey,
    report: &mut RecoveryReport,
) -> Result<Ready> {
    let base = judged.commitment;
    let (retained, replaced): (Vec<Member>, Vec<Member>) =
        judged.chain.members.iter().partition(|member| member.header.base < base);
    // Includes space for the mark after the frames, for a truncation and for a close.
    let needed = file_offset(base, judged.end) + CONTROL_FRAME_BYTES + CONTROL_ROOM_BYTES;
    if !fits(base, needed.next_multiple_of(512).max(config.segment_bytes)) {
        return Err(Error::LsnLimit { lsn: judged.end });
    }
    let sequence = survey.sequence_max.next();
    // Unused files are removed first, because the device may be full.
    let (unused, leftovers): (Vec<Leftover>, Vec<Leftover>) =
        judged.leftovers.iter().partition(|leftover| leftover.is_empty);
    clear(storage, &unused, report)?;
    let (file, file_bytes) = prepare_fresh(storage, config, sequence, needed)?;
    let header = SegmentHeader {
        sequence: sequence.0,
        log_id: log_id(storage, judged)?,
        base,
        epoch: next_epoch(config, judged.epoch_max)?,
        by_truncation: false,
        incarnation: random_incarnation(storage)?,
        previous: retained.last().map(|member| member.header.link()),
        // If no older segment is left, the log begins with this one.
        first: if retained.is_empty() { base } else { judged.chain.first },
        synced: base,
        created_unix_ms: storage.unix_ms().max(judged.times.newest_ms),
        hint: judged.chain.members.last().and_then(|newest| newest.header.hint),
        file_bytes,
        extension: Extension {
            slots: judged.slots.from,
            time: judged.times.mark.filter(|mark| mark.lsn < base),
        },
    };
    copy_frames(storage, config, judged, &header, &file)?;
    report.rewritten_bytes = judged.end.since(base);
    let mut kept_in = Vec::new();
    if let (Some(damage_cut), Some(cut)) = (&judged.damage_cut, &judged.cut) {
        kept_in = keep_copies(storage, damage_cut, cut, &header)?;
    }
    let ready = commit_header(file, &header, infos(&retained))?;
    let replaced = replaced.iter().map(|member| Leftover {
        sequence: member.sequence,
        is_set_aside: judged.cut_segments.contains(&member.sequence),
        is_empty: false,
        is_harmless: true,
    });
    let gone: Vec<_> = leftovers.into_iter().chain(replaced).collect();
    kept_in.extend(clear(storage, &gone, report)?);
    // A cut of durable data keeps every byte.
    if let Some(sealed) = retained.last().filter(|_| judged.damage_cut.is_none()) {
        give_back(storage, sealed, base);
    }
    if let Some(cut) = &mut report.cut {
        // Retained segments also keep their bytes past the end of the log.
        let still = retained.iter().filter(|it| judged.cut_segments.contains(&it.sequence));
        kept_in.extend(still.map(|member| member.sequence.file_name()));
        cut.kept_in = kept_in;
    }
    Ok(ready)
}

/// Returns the epoch after `highest`: the next one, or that of a promotion.
///
/// If a promotion was interrupted after its commit point, the repeated one begins the next epoch of
/// the same line.
fn next_epoch(config: &Config, highest: u64) -> Result<u64> {
    let next = highest.saturating_add(1);
    match config.promote_to {
        None => Ok(next),
        Some(epoch) if line_of(epoch) > line_of(highest) => Ok(epoch),
        Some(epoch) if line_of(epoch) == line_of(highest) => Ok(next),
        Some(epoch) => Err(Error::InvalidOption {
            option: "promote_to",
            value: epoch,
            reason: "its line must be above that of the log",
        }),
    }
}

/// Prepares the segment of a new epoch, smaller if the device is full.
///
/// The log can be truncated and closed even in the smallest one.
fn prepare_fresh(
    storage: &dyn Storage,
    config: &Config,
    sequence: Sequence,
    needed: u64,
) -> Result<(SegmentFile, u64)> {
    let whole = needed.next_multiple_of(512).max(config.segment_bytes);
    let small = (needed + SMALL_ROOM_BYTES).next_multiple_of(4096).min(whole);
    let least = needed.next_multiple_of(512);
    let mut bytes = whole;
    loop {
        match prepare(storage, sequence, bytes, config.preallocation, Beside::Nothing, &|| {}) {
            Ok(file) => return Ok((file, bytes)),
            Err(Error::NoSpace { .. }) if bytes > small => bytes = small,
            Err(Error::NoSpace { .. }) if bytes > least => bytes = least,
            Err(error) => return Err(error),
        }
    }
}

/// Gives the zeros at the end of a sealed segment back to the file system.
///
/// Without this, each unclean restart would cost a whole segment. `end` is the end of the log in
/// the segment. The bytes that a cut left above `end` stay. A failure only costs space.
fn give_back(storage: &dyn Storage, sealed: &Member, end: Lsn) {
    let tried = || -> Result<()> {
        let file = Arc::new(SegmentFile::open(storage, sealed.sequence)?);
        // A file that was extended later keeps its length: it may hold any bytes past its old end.
        if file.link_count()? != 1 || sealed.bytes > sealed.header.file_bytes {
            return Ok(());
        }
        let base = sealed.header.base;
        let place = WalkBounds {
            seed: Seed::new(sealed.header.log_id, sealed.header.epoch),
            end: file_end(base, sealed.bytes),
            record_bytes_max: 0,
        };
        let reader = SegmentReader { file: Arc::clone(&file), base, place };
        let used_end = reader.used_end(base, place.end)?.max(end);
        // An intact frame after the cut may end with zeros.
        let used_end = search_frames(&reader, end, used_end)?.end.max(used_end);
        let bytes = file_offset(base, used_end);
        if bytes < sealed.bytes { file.set_len(bytes) } else { Ok(()) }
    };
    if let Err(error) = tried() {
        let segment = sealed.sequence.file_name();
        let log = storage.location();
        tracing::debug!(log, segment, %error, "cannot free the unused end of a segment");
    }
}

/// Returns the id of the log.
///
/// If the chain is empty, the id comes from a segment that is set aside. If none of those has a
/// header, the log gets a new id.
fn log_id(storage: &dyn Storage, judged: &Judged) -> Result<[u8; 16]> {
    let newest = judged.chain.members.last().map(|newest| newest.header.log_id);
    match newest.or(judged.damage_cut.as_ref().and_then(|cut| cut.log_id)) {
        Some(id) => Ok(id),
        None => random_bytes(storage),
    }
}

/// Seals the frames above the commitment again, at the same LSNs, and syncs them.
fn copy_frames(
    storage: &dyn Storage,
    config: &Config,
    judged: &Judged,
    header: &SegmentHeader,
    file: &SegmentFile,
) -> Result<()> {
    let seed = Seed::new(header.log_id, header.epoch);
    let members = &judged.chain.members;
    let mut at = header.base;
    while at < judged.end {
        let after = members.partition_point(|member| member.header.base <= at);
        let Some(member) = after.checked_sub(1).and_then(|last| members.get(last)) else {
            return Err(no_members());
        };
        let segment_end = members.get(after).map_or(judged.end, |next| next.header.base);
        let place = WalkBounds {
            seed: Seed::new(member.header.log_id, member.header.epoch),
            end: segment_end.min(judged.end),
            record_bytes_max: config.record_bytes_max,
        };
        let from = Arc::new(SegmentFile::open(storage, member.sequence)?);
        let reader = SegmentReader { file: from, base: member.header.base, place };
        while at < place.end {
            let chunk = reader.read_chunk(at, place.end, CHUNK_BYTES)?;
            if chunk.next == at {
                // Only a commitment within a unit leads here, and no release writes one.
                let stop = chunk.stop.unwrap_or(Stop::BadHeader);
                return Err(damage(&reader, at, stop, judged.commitment));
            }
            let mut bytes = Vec::with_capacity(chunk.bytes.len());
            for frame in &chunk.frames {
                let end = frame.payload_start + frame.payload_bytes;
                let payload = chunk.bytes.get(frame.payload_start..end).unwrap_or_default();
                // A compressed payload is copied without expanding it.
                let kind = (frame.kind, frame.codec.map_or(0, Codec::flags));
                push_frame(&mut bytes, seed, frame.lsn, kind, payload, header.base);
            }
            file.write_at(&bytes, file_offset(header.base, at))?;
            at = chunk.next;
        }
    }
    file.sync_data()
}

fn push_frame(
    to: &mut Vec<u8>,
    seed: Seed,
    lsn: Lsn,
    kind: (Kind, u8),
    payload: &[u8],
    synced: Lsn,
) {
    // The length comes from a frame header, where it has 32 bits.
    let payload_bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let crc = crc32c::crc32c(payload);
    let header = FrameHeader::seal_flagged(seed, lsn, kind, payload_bytes, crc, synced);
    let end = to.len() as u64 + frame_bytes(payload.len() as u64);
    to.extend_from_slice(&header.to_bytes());
    to.extend_from_slice(payload);
    to.resize(to_usize(end), 0);
}
