//! The beginning of a segment, by rotation or by a truncation of the end.

use std::sync::Arc;

use crate::{
    error::Result,
    format::{
        extension::Extension,
        frame::{Seed, unclaiming_control_frame},
        header::{SEGMENT_HEADER_BYTES, SegmentHeader},
    },
    lsn::Lsn,
    operation::Operation,
    pipeline::{
        core::Core,
        flush::flush_quietly,
        prepare::take_spare,
        state::{
            in_flight::Lane,
            measures::FlushReport,
            space::Spare,
            writing::{Active, Rotated, Writing},
        },
    },
    sabotage::{self, Sabotage},
    segments::{SegmentInfo, check_place, random_incarnation},
    sync::Ordering,
};

/// A truncation of the end, to be reported without the writer's lock.
pub(super) struct EndTruncated {
    pub(super) segment: String,
    pub(super) epoch: u64,
    pub(super) old_end: Lsn,
    pub(super) dropped_count: usize,
    pub(super) flush: Option<FlushReport>,
}

/// Seals the active segment and begins the next, which has room for `unit_bytes`.
pub(super) fn rotate(writing: &mut Writing, core: &Core, unit_bytes: u64) -> Result<Rotated> {
    // At most two segments are ever unsynced, because recovery looks no further back. Usually a
    // sync job has synced the sealed one long ago.
    let mut flush = None;
    if let Some(sealed) = &writing.sealed {
        flush = Some(flush_quietly(core, Lane::Write, sealed)?);
        writing.sealed = None;
    }
    let spare = take_spare(core, unit_bytes)?;
    let underway = core.begin(Lane::Write, Operation::Rotate, spare.file.sequence());
    // Checked before the next segment begins, because a later opening must find that segment.
    check_place(core.storage().as_ref(), &[&writing.active.file, &spare.file])?;
    let base = writing.at();
    let (synced, first) = core.synced_and_first();
    let header = SegmentHeader {
        previous: Some(writing.active.link),
        ..next_header(core, &spare, base, (synced.min(base), first))?
    };
    // The header comes before any frame, so that `written` never passes into a segment without a
    // header.
    spare.file.write_at(&header.block(), 0)?;
    drop(underway);
    writing.claimed = writing.claimed.max(header.synced);
    core.beginning().first_recorded(first, base);
    core.supply.hint_recorded(header.hint);
    let (next, info) = begun(spare, &header);
    core.segments().push(info, Arc::clone(&next.file));
    core.beginning().note_end(writing.drainer.last_record(), base);
    core.slots().begin_segment(base, header.extension.slots);
    core.times().begin_segment();
    core.retaining().note_change();
    core.supply.space.rotated(base, next.end());
    core.measures().counters.rotations.fetch_add(1, Ordering::Relaxed);
    let (sealed, segment) = (writing.active.file.name(), next.file.name());
    let (sealed, segment) = (sealed.to_owned(), segment.to_owned());
    let rotated = Rotated { sealed, segment, base, flush };
    writing.sealed = Some(std::mem::replace(&mut writing.active, next).file);
    Ok(rotated)
}

/// Ends the log at `cut` and continues it in a new segment of the next epoch. Everything below
/// `cut` is synced. The caller holds all permits of the ring.
pub(super) fn begin_epoch(writing: &mut Writing, core: &Core, cut: Lsn) -> Result<EndTruncated> {
    let spare = take_spare(core, 0)?;
    let underway = core.begin(Lane::Write, Operation::Rotate, spare.file.sequence());
    check_place(core.storage().as_ref(), &[&spare.file])?;
    drop(underway);
    let epoch = core.epochs().current().saturating_add(1);
    let first = core.beginning().first();
    // Before the header, which leads to them.
    let slots_end = write_slots(core, &spare, cut, epoch)?;
    let header = SegmentHeader {
        epoch,
        by_truncation: true,
        previous: core.segments().last_below(cut).map(|info| info.link()),
        hint: core.supply.hint().filter(|hint| *hint < cut),
        extension: Extension {
            slots: (slots_end > cut).then_some(cut),
            time: core.times().mark_below(cut),
        },
        ..next_header(core, &spare, cut, (cut, first))?
    };
    let underway = core.begin(Lane::Write, Operation::Rotate, spare.file.sequence());
    spare.file.write_at(&header.block(), 0)?;
    drop(underway);
    let flush = match sabotage::is_on(Sabotage::CutBeforeFlush) {
        true => None,
        false => Some(flush_quietly(core, Lane::Write, &spare.file)?),
    };
    let (next, info) = begun(spare, &header);
    let old_end = writing.at();
    // Before the synced mark moves back, because a later flush must not count for a truncation
    // record of the old epoch.
    core.beginning().first_recorded(first, cut);
    core.supply.hint_recorded(header.hint);
    core.beginning().first_is_durable();
    let mut dropped = Vec::new();
    core.progress.lower_marks(epoch, cut, || {
        writing.drainer.rewind(cut);
        if slots_end > cut {
            core.intake.ring.reserve_outside(slots_end.since(cut));
            writing.drainer.skip(slots_end.since(cut), None);
        }
        // After the epoch has begun, because a reader that finds the new segment must see the new
        // epoch.
        dropped = core.segments().replace(info, Arc::clone(&next.file));
    });
    if slots_end > cut {
        core.progress.raise_marks(epoch, slots_end);
    }
    core.times().cut_at(cut);
    core.retaining().note_change();
    core.beginning().settle_slots(core.slots().cut_at(cut, slots_end));
    core.beginning().forget_ends(cut);
    core.supply.space.rotated(cut, next.end());
    let (segment, dropped_count) = (next.file.name().to_owned(), dropped.len());
    core.beginning().add_dropped(dropped.into_iter().map(|info| info.sequence));
    writing.claimed = cut;
    writing.sealed = None;
    writing.active = next;
    Ok(EndTruncated { segment, epoch, old_end, dropped_count, flush })
}

/// Writes and syncs all slots at the beginning of a segment whose epoch is not committed yet.
/// Returns the end of the records, which is `cut` without a slot.
fn write_slots(core: &Core, spare: &Spare, cut: Lsn, epoch: u64) -> Result<Lsn> {
    let seed = Seed::new(core.log_id(), epoch);
    let mut bytes = Vec::new();
    let mut end = cut;
    for payload in core.slots().rewritten_at(cut) {
        // Without a claim, because a claim would prove that the epoch was committed.
        let frame = unclaiming_control_frame(seed, end, &payload);
        end = end.plus(frame.len() as u64);
        bytes.extend_from_slice(&frame);
    }
    if !bytes.is_empty() {
        let underway = core.begin(Lane::Write, Operation::Write, spare.file.sequence());
        spare.file.write_at(&bytes, SEGMENT_HEADER_BYTES)?;
        drop(underway);
        flush_quietly(core, Lane::Write, &spare.file)?;
    }
    Ok(end)
}

/// Returns the header of a segment that begins at `base` in the current epoch, without a link.
fn next_header(
    core: &Core,
    spare: &Spare,
    base: Lsn,
    (synced, first): (Lsn, Lsn),
) -> Result<SegmentHeader> {
    Ok(SegmentHeader {
        sequence: spare.file.sequence().0,
        log_id: core.log_id(),
        base,
        epoch: core.epochs().current(),
        by_truncation: false,
        incarnation: random_incarnation(core.storage().as_ref())?,
        previous: None,
        first,
        synced,
        created_unix_ms: core.times().now(core.storage().unix_ms()),
        hint: core.supply.hint(),
        file_bytes: spare.bytes,
        extension: Extension {
            slots: core.slots().anchor_below(synced),
            time: core.times().mark_below(base),
        },
    })
}

/// Returns the segment of a prepared file whose header is written.
fn begun(spare: Spare, header: &SegmentHeader) -> (Active, SegmentInfo) {
    let info = SegmentInfo::of(header);
    (Active { file: spare.file, link: header.link(), bytes: spare.bytes }, info)
}
