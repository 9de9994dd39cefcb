//! The three ways in which an opened log becomes writable.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{
        compression::Codec,
        control::Control,
        frame::{FrameHeader, Kind, Seed, frame_bytes},
        header::{SEGMENT_HEADER_BYTES, SegmentHeader},
        scan::{Place, Stop, to_usize},
    },
    lsn::Lsn,
    options::Config,
    pipeline::{Active, CONTROL_FRAME_BYTES, FIRST_FRAME_BYTES, incarnation},
    recovery::{
        chain::Member,
        judged::{Judged, Leftover},
        keep::keep_copies,
        report::RecoveryReport,
        survey::{Survey, list},
    },
    segments::{Beside, SegmentFile, SegmentInfo, SegmentReader, Sequence, prepare},
    storage::{Storage, uninterrupted},
};

const CHUNK_BYTES: u64 = 1 << 20;

/// A log that can be written to.
pub(crate) struct Ready {
    pub(crate) log_id: [u8; 16],
    pub(crate) epoch: u64,
    /// What the active segment's header says of the first LSN.
    pub(crate) known_first: Lsn,
    pub(crate) active: Active,
    pub(crate) segments: Vec<SegmentInfo>,
}

/// Whether there is no log: an empty directory, or what an interrupted creation leaves. A first
/// segment's header is synced before any frame counts, so without frames nothing was ever in it.
pub(crate) fn is_uncreated(storage: &dyn Storage, survey: &Survey) -> Result<bool> {
    for found in &survey.segments {
        if found.header.is_some() || (!found.is_blank && found.sequence != FIRST_SEQUENCE) {
            return Ok(false);
        }
        let file = Arc::new(SegmentFile::open(storage, found.sequence)?);
        let end = Lsn::new(found.bytes.saturating_sub(SEGMENT_HEADER_BYTES));
        let place = Place { seed: Seed::new([0; 16], 0), end, record_bytes_max: 0 };
        let reader = SegmentReader { file, base: Lsn::ZERO, place };
        if reader.used_end(Lsn::ZERO, end)? > Lsn::ZERO {
            return Ok(false);
        }
    }
    Ok(true)
}

const FIRST_SEQUENCE: Sequence = Sequence(1);

/// Creates the log. Commit point: its first header is synced.
pub(crate) fn create(storage: &dyn Storage, config: &Config, survey: &Survey) -> Result<Ready> {
    let leftovers = survey.segments.iter();
    let leftovers: Vec<_> = leftovers
        .map(|found| Leftover { sequence: found.sequence, is_kept: false, is_empty: true })
        .collect();
    clear(storage, &leftovers)?;
    let file = prepare(
        storage,
        FIRST_SEQUENCE,
        config.segment_bytes,
        config.preallocation,
        Beside::Nobody,
    )?;
    let header = SegmentHeader {
        log_id: random(storage)?,
        base: Lsn::ZERO,
        epoch: 1,
        by_truncation: false,
        incarnation: incarnation(random(storage)?),
        previous: None,
        first: Lsn::ZERO,
        synced: Lsn::ZERO,
        created_unix_ms: storage.unix_ms(),
        hint: None,
        file_bytes: config.segment_bytes,
    };
    commit(file, &header, Vec::new())
}

/// Goes on where a clean close ended.
///
/// The close itself may be in the page cache alone: its sync may have failed, in which case nothing
/// before it is lost and nothing after it may be trusted. So it is written again, the same bytes in
/// the same place, and with it the header if it is the only frame behind that.
pub(crate) fn go_on(storage: &dyn Storage, judged: &Judged) -> Result<Ready> {
    let Some(newest) = judged.chain.members.last() else {
        return Err(no_members());
    };
    let file = SegmentFile::open(storage, newest.sequence)?;
    let base = newest.header.base;
    let close = Lsn::new(judged.end.as_u64().saturating_sub(CONTROL_FRAME_BYTES));
    if close == base {
        file.write_at(&newest.header.block(), 0)?;
    }
    let offset = close.since(base) + SEGMENT_HEADER_BYTES;
    // Framed anew, not read again: a read that goes wrong now must not become what is durable.
    let mut frame = Vec::new();
    let seed = Seed::new(newest.header.log_id, newest.header.epoch);
    push_frame(&mut frame, seed, close, (Kind::Control, 0), &Control::Close.payload(), close);
    file.write_at(&frame, offset)?;
    file.sync_data()?;
    clear(storage, &judged.leftovers)?;
    // A file that was made longer since may have no space behind its old end.
    let bytes = newest.bytes.min(newest.header.file_bytes);
    let active = Active { file: Arc::new(file), link: newest.header.link(), bytes };
    Ok(Ready {
        log_id: newest.header.log_id,
        epoch: newest.header.epoch,
        known_first: newest.header.first,
        active,
        segments: infos(&judged.chain.members),
    })
}

/// Whether the segment that a closed log goes on in has another name, in a backup perhaps: what is
/// appended must not get there too.
pub(crate) fn is_shared(storage: &dyn Storage, judged: &Judged) -> Result<bool> {
    match judged.chain.members.last() {
        Some(newest) => Ok(SegmentFile::open(storage, newest.sequence)?.link_count()? > 1),
        None => Ok(false),
    }
}

/// Begins the next epoch at the highest commitment: what is kept above it is framed again into a
/// fresh segment, which takes the place of every segment that begins there or later. No header is
/// trusted that a failed sync may have dropped, and nothing that may be durable is overwritten.
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
    let (kept, replaced): (Vec<Member>, Vec<Member>) =
        judged.chain.members.iter().partition(|member| member.header.base < base);
    // With room for the mark behind it, and for a close.
    let needed =
        judged.end.since(base) + SEGMENT_HEADER_BYTES + 2 * CONTROL_FRAME_BYTES + FIRST_FRAME_BYTES;
    let file_bytes = needed.next_multiple_of(512).max(config.segment_bytes);
    let sequence = survey.sequence_max.next();
    // Prepared and never used: removed first, as the device may be full.
    let (unused, leftovers): (Vec<Leftover>, Vec<Leftover>) =
        judged.leftovers.iter().partition(|leftover| leftover.is_empty);
    clear(storage, &unused)?;
    let file = prepare(storage, sequence, file_bytes, config.preallocation, Beside::Nobody)?;
    let header = SegmentHeader {
        log_id: log_id(storage, judged)?,
        base,
        epoch: judged.epoch_max.saturating_add(1),
        by_truncation: false,
        incarnation: incarnation(random(storage)?),
        previous: kept.last().map(|member| member.header.link()),
        // A log whose oldest segment this is begins with it.
        first: if kept.is_empty() { base } else { judged.chain.first },
        synced: base,
        created_unix_ms: storage.unix_ms(),
        hint: judged.chain.members.last().and_then(|newest| newest.header.hint),
        file_bytes,
    };
    copy_kept(storage, config, judged, &header, &file)?;
    report.rewritten_bytes = judged.end.since(base);
    let mut kept_in = Vec::new();
    if let (Some(salvage), Some(cut)) = (&judged.salvage, &judged.cut) {
        kept_in = keep_copies(storage, salvage, cut, &header)?;
    }
    let ready = commit(file, &header, infos(&kept))?;
    let replaced = replaced.iter().map(|member| Leftover {
        sequence: member.sequence,
        is_kept: judged.kept_in.contains(&member.sequence),
        is_empty: false,
    });
    let gone: Vec<_> = leftovers.into_iter().chain(replaced).collect();
    kept_in.extend(clear(storage, &gone)?);
    if let Some(cut) = &mut report.cut {
        // A segment that is still part of the log: what is past its end is dead, and stays there.
        let still = kept.iter().filter(|member| judged.kept_in.contains(&member.sequence));
        kept_in.extend(still.map(|member| member.sequence.file_name()));
        cut.kept_in = kept_in;
    }
    Ok(ready)
}

/// Of the segments, or, where none is left, of those that are set aside. If none of these has a
/// header either, it is another log.
fn log_id(storage: &dyn Storage, judged: &Judged) -> Result<[u8; 16]> {
    let newest = judged.chain.members.last().map(|newest| newest.header.log_id);
    match newest.or(judged.salvage.as_ref().and_then(|salvage| salvage.log_id)) {
        Some(id) => Ok(id),
        None => random(storage),
    }
}

/// Frames what lies between the commitment and the end again, at the same LSNs, and syncs it.
fn copy_kept(
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
        let place = Place {
            seed: Seed::new(member.header.log_id, member.header.epoch),
            end: segment_end.min(judged.end),
            record_bytes_max: config.record_bytes_max,
        };
        let from = Arc::new(SegmentFile::open(storage, member.sequence)?);
        let reader = SegmentReader { file: from, base: member.header.base, place };
        while at < place.end {
            let chunk = reader.read_chunk(at, place.end, CHUNK_BYTES)?;
            if chunk.next == at {
                // Only a commitment that is no boundary leads here: no release writes one.
                let stop = chunk.stop.unwrap_or(Stop::BadHeader);
                return Err(crate::replay::damage(&reader, at, stop, judged.commitment));
            }
            let mut bytes = Vec::with_capacity(chunk.bytes.len());
            for frame in &chunk.frames {
                let end = frame.payload_start + frame.payload_bytes;
                let payload = chunk.bytes.get(frame.payload_start..end).unwrap_or_default();
                // As it is stored: nothing here asks what it expands to.
                let kind = (frame.kind, frame.codec.map_or(0, Codec::flags));
                push_frame(&mut bytes, seed, frame.lsn, kind, payload, header.base);
            }
            file.write_at(&bytes, at.since(header.base) + SEGMENT_HEADER_BYTES)?;
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
    // Read from a frame, whose length has 32 bits.
    let payload_bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let crc = crc32c::crc32c(payload);
    let header = FrameHeader::seal_flagged(seed, lsn, kind, payload_bytes, crc, synced);
    let end = to.len() as u64 + frame_bytes(payload.len() as u64);
    to.extend_from_slice(&header.to_bytes());
    to.extend_from_slice(payload);
    to.resize(to_usize(end), 0);
}

/// Writes and syncs the header of a segment whose other bytes are durable.
fn commit(
    file: SegmentFile,
    header: &SegmentHeader,
    mut segments: Vec<SegmentInfo>,
) -> Result<Ready> {
    file.write_at(&header.block(), 0)?;
    file.sync_data()?;
    let seed = Seed::new(header.log_id, header.epoch);
    segments.push(SegmentInfo {
        sequence: file.sequence(),
        base: header.base,
        incarnation: header.incarnation,
        epoch: header.epoch,
        seed,
    });
    let active = Active { file: Arc::new(file), link: header.link(), bytes: header.file_bytes };
    let (log_id, epoch, known_first) = (header.log_id, header.epoch, header.first);
    Ok(Ready { log_id, epoch, known_first, active, segments })
}

/// Removes what is no part of the log, or renames it where it holds bytes that were cut; gives the
/// new names. Begun again by the next opening if it is interrupted.
pub(super) fn clear(storage: &dyn Storage, leftovers: &[Leftover]) -> Result<Vec<String>> {
    let mut kept = Vec::new();
    if leftovers.is_empty() {
        return Ok(kept);
    }
    let mut taken = list(storage)?;
    for Leftover { sequence, is_kept, .. } in leftovers {
        let name = sequence.file_name();
        let (operation, done) = if *is_kept {
            let free = sequence.free_cut_name(&taken);
            taken.push(free.clone());
            kept.push(free.clone());
            ("renaming", storage.rename(&name, &free))
        } else {
            ("removing", storage.remove(&name))
        };
        done.map_err(|error| Error::io(operation, name, None, error))?;
    }
    sync_dir(storage)?;
    Ok(kept)
}

/// Removes the files that an earlier process kept to use them again.
pub(super) fn remove_recycled(storage: &dyn Storage, survey: &Survey) -> Result<()> {
    for name in &survey.recycled {
        let removed = storage.remove(name);
        removed.map_err(|error| Error::io("removing", name.clone(), None, error))?;
    }
    if survey.recycled.is_empty() { Ok(()) } else { sync_dir(storage) }
}

pub(super) fn sync_dir(storage: &dyn Storage) -> Result<()> {
    uninterrupted(|| storage.sync_dir())
        .map_err(|error| Error::io("syncing the directory", storage.location(), None, error))
}

fn infos(members: &[Member]) -> Vec<SegmentInfo> {
    members.iter().map(Member::info).collect()
}

fn random(storage: &dyn Storage) -> Result<[u8; 16]> {
    storage
        .random()
        .map_err(|error| Error::io("drawing random bytes in", storage.location(), None, error))
}

/// A log that was judged has members; asked again rather than assumed.
fn no_members() -> Error {
    Error::Closed { reason: "no segment was found" }
}
