//! Continues the newest segment of an unclosed log whose end is clean.
//!
//! A process that ends while its machine runs leaves such a log. Bytes above the highest commitment
//! may be only in the page cache. If an earlier flush failed, those pages are clean and not on
//! disk, so a flush now would prove nothing. Therefore the same bytes are written again to the same
//! place, which makes the pages dirty, and then flushed. A torn write of the same bytes changes
//! nothing, so no durable byte is at risk.
//!
//! The epoch stays, because nothing after the end can be mistaken for a later record. Only zeros
//! follow the end, and no other file holds a frame. In any other case `cut` begins an epoch: bytes
//! after the end, a segment without its header, or a second name of the file.

use std::sync::Arc;

use crate::{
    error::Result,
    format::{
        frame::Seed,
        header::file_offset,
        judge::Verdict,
        scan::{Stop, WalkBounds, to_usize},
    },
    lsn::Lsn,
    options::Config,
    pipeline::Active,
    recovery::{
        chain::Member,
        judged::Judged,
        rebuild::{CHUNK_BYTES, Ready, infos, no_members, write_header_again},
        report::RecoveryReport,
        survey::Survey,
    },
    replay::damage,
    sabotage::{self, Sabotage},
    segments::{SegmentFile, SegmentReader, sync_directory},
    storage::Storage,
};

/// Returns whether the log can continue in its newest segment.
pub(super) fn can_resume(storage: &dyn Storage, judged: &Judged, survey: &Survey) -> Result<bool> {
    let Some(newest) = judged.chain.members.last() else { return Ok(false) };
    let is_clean = judged.verdict == Verdict::CleanEnd
        && judged.damage_cut.is_none()
        && !judged.has_interrupted
        && judged.cut_segments.is_empty()
        && judged.leftovers.iter().all(|leftover| leftover.is_empty || leftover.is_harmless);
    // A position in a file that a cut set aside is only used again in a higher epoch.
    let epoch = newest.header.epoch;
    let is_highest = epoch >= survey.epoch_max && epoch > survey.set_aside_epoch_max;
    let is_inside = newest.header.base <= judged.end && judged.end <= newest.file_end();
    if !is_clean || !is_highest || !is_inside {
        return Ok(false);
    }
    Ok(SegmentFile::open(storage, newest.sequence)?.link_count()? == 1)
}

/// Makes everything below the end durable, in place.
///
/// No commit point is needed, because a crash leaves the log unchanged.
pub(super) fn resume(
    storage: &dyn Storage,
    config: &Config,
    judged: &Judged,
    report: &mut RecoveryReport,
) -> Result<Ready> {
    let members = &judged.chain.members;
    let successors = members.iter().skip(1).map(|next| next.header.base);
    let ends = successors.chain([judged.end]);
    let mut newest = None;
    for (member, end) in members.iter().zip(ends) {
        let is_newest = Some(member) == members.last();
        if end > judged.commitment || is_newest {
            let file = Arc::new(SegmentFile::open(storage, member.sequence)?);
            if !sabotage::is_on(Sabotage::ResumeUnwritten) {
                write_again(config, judged, member, end, &file)?;
            }
            file.sync_all()?;
            newest = Some((member, file));
        }
    }
    sync_directory(storage)?;
    report.rewritten_bytes = judged.end.since(judged.commitment);
    let Some((newest, file)) = newest else { return Err(no_members()) };
    let bytes = newest.bytes.min(newest.header.file_bytes);
    Ok(Ready {
        log_id: newest.header.log_id,
        epoch: newest.header.epoch,
        known_first: newest.header.first,
        slots_floor: newest.header.extension.slots,
        active: Active { file, link: newest.header.link(), bytes },
        segments: infos(members),
    })
}

/// Writes the header and the frames from the commitment to `end` again, without a change.
fn write_again(
    config: &Config,
    judged: &Judged,
    member: &Member,
    end: Lsn,
    file: &Arc<SegmentFile>,
) -> Result<()> {
    write_header_again(member, file)?;
    let header = &member.header;
    let seed = Seed::new(header.log_id, header.epoch);
    let place = WalkBounds { seed, end, record_bytes_max: config.record_bytes_max };
    let reader = SegmentReader { file: Arc::clone(file), base: header.base, place };
    let mut at = judged.commitment.max(header.base);
    while at < end {
        let chunk = reader.read_chunk(at, end, CHUNK_BYTES)?;
        if chunk.next == at {
            let stop = chunk.stop.unwrap_or(Stop::BadHeader);
            return Err(damage(&reader, at, stop, judged.commitment));
        }
        let whole = chunk.bytes.get(..to_usize(chunk.next.since(at))).unwrap_or_default();
        file.write_at(whole, file_offset(header.base, at))?;
        at = chunk.next;
    }
    Ok(())
}
