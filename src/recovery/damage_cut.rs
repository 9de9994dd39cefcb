//! Opening with `TruncateAtDamage`: plans a cut at the first damage of the durable part.
//!
//! The log keeps everything before the damage. All other bytes are set aside. This file reads the
//! whole log and changes nothing. `recovery/cut` makes the cut, like any other cut.

use crate::{
    error::{Error, Result},
    format::{header::SegmentHeader, judge::Verdict, scan::Stop},
    lsn::Lsn,
    options::Config,
    pipeline::{RecoveredSlots, RecoveredTimes},
    recovery::{
        chain::{Chain, Member},
        headless::EPOCHS_TRIED,
        judged::{DamageCut, Judged, judge_log},
        leftovers::Leftover,
        report::{Cut, CutCopy, DurableCut, Warning},
        scan::{CHUNK_BYTES, Findings, Scan},
        survey::{Survey, SurveyedSegment},
    },
    replay::damage,
    segments::Sequence,
    storage::Storage,
};

/// As [`judge_log`], but plans a cut if the log is damaged.
///
/// The log is damaged if [`judge_log`] refuses it as `Corrupt`, or if a read of the whole log finds
/// damage.
///
/// # Errors
///
/// Those of [`judge_log`] other than [`Error::Corrupt`].
pub(crate) fn judge_or_cut(
    storage: &dyn Storage,
    survey: &Survey,
    config: &Config,
) -> Result<Judged> {
    let refusal = match judge_log(storage, survey, config) {
        Ok(judged) => match first_damage(storage, config, &judged)? {
            None => return Ok(judged),
            Some(damage) => damage,
        },
        Err(error) if error.is_corrupt() => error,
        Err(error) => return Err(error),
    };
    cut(storage, survey, config, &refusal)
}

/// Returns the error that a reader of the whole log would get.
fn first_damage(storage: &dyn Storage, config: &Config, judged: &Judged) -> Result<Option<Error>> {
    let mut scan = Scan::new(storage, config);
    let oldest = judged.chain.members.first().map_or(Lsn::ZERO, |member| member.header.base);
    scan.walk_from(&judged.chain, judged.chain.first.max(oldest))?;
    let walk = scan.finish().walk;
    if walk.end >= judged.end {
        return Ok(None);
    }
    Ok(Some(match &walk.stopped_in {
        Some(reader) => damage(reader, walk.end, early(walk.stop), judged.commitment),
        None => gap(walk.end, judged.commitment),
    }))
}

/// Returns the reason for a stop before the end of the log.
///
/// `SegmentEnd` before the end of the log means that the file ends before the segment does.
fn early(stop: Stop) -> Stop {
    if stop == Stop::SegmentEnd { Stop::PartialHeader } else { stop }
}

const GAP: &str = "what follows here is missing, or its header is damaged";

fn gap(lsn: Lsn, synced: Lsn) -> Error {
    let (segment, reason) = (String::new(), GAP.to_owned());
    Error::Corrupt { directory: String::new(), lsn, segment, offset: 0, synced, reason }
}

fn cut(storage: &dyn Storage, survey: &Survey, config: &Config, refusal: &Error) -> Result<Judged> {
    let mut scan = Scan::new(storage, config);
    let log_id = most_frequent_log(survey);
    let members = survey.segments.iter().filter_map(SurveyedSegment::member);
    let ours: Vec<Member> = members.filter(|member| Some(member.header.log_id) == log_id).collect();
    let chain = match whole_chain(&scan, &ours)? {
        Some(chain) => chain,
        None => {
            // No segment connects to the beginning of the log, because its oldest segment is lost.
            let first = ours.iter().map(|member| member.header.first).max().unwrap_or_default();
            Chain { first, ..Chain::default() }
        }
    };
    let oldest = chain.members.first().map_or(Lsn::ZERO, |member| member.header.base);
    scan.walk_from(&chain, chain.first.max(oldest))?;
    for member in &chain.members {
        scan.commit(member.header.synced);
    }
    // Only this chain's claims count, because everything above them is written again.
    let mut synced = scan.found().commitment;
    let base = boundary_below(&scan, &chain, synced.min(scan.found().walk.end))?;
    if let Error::Corrupt { synced: refused, .. } = refusal {
        synced = synced.max(*refused);
    }
    let (leftovers, strays) = search_others(&mut scan, survey, &chain, &ours, base)?;
    let copied = chain.members.iter().rfind(|member| {
        let is_cut = scan.found().past_end.segments.contains(&member.sequence);
        member.header.base < base && is_cut
    });
    let damage_cut = DamageCut {
        log_id,
        strays,
        copied: copied.map(|member| member.sequence),
        refusal: format!("{:#}", refusal.clone().without_directory()),
    };
    Ok(planned(scan.finish(), chain, leftovers, damage_cut, survey, synced, base))
}

/// Returns the id of the log to which most of the segments belong.
fn most_frequent_log(survey: &Survey) -> Option<[u8; 16]> {
    let ids = || survey.segments.iter().filter_map(|segment| Some(segment.header?.log_id));
    // If several logs have the same number, the one with the oldest segment wins.
    let mut best: Option<([u8; 16], usize)> = None;
    for id in ids() {
        let count = ids().filter(|other| *other == id).count();
        if best.is_none_or(|(_, most)| count > most) {
            best = Some((id, count));
        }
    }
    best.map(|(id, _)| id)
}

/// Returns the newest chain that reaches back to the beginning of the log.
fn whole_chain(scan: &Scan<'_>, ours: &[Member]) -> Result<Option<Chain>> {
    let mut tips: Vec<&Member> = ours.iter().collect();
    // By position, because a copy of an older segment may have the highest number.
    tips.sort_by_key(|tip| (tip.header.epoch, tip.header.base, tip.sequence));
    for tip in tips.into_iter().rev() {
        let mut chain = walk_back(tip, ours);
        let Some(oldest) = chain.members.first().copied() else { continue };
        if oldest.header.previous.is_some() && oldest.header.base > chain.first {
            chain.first = chain.first.max(scan.recorded_first(&chain)?);
            if oldest.header.base > chain.first {
                continue;
            }
        }
        let recorded = scan.recorded_first(&chain)?;
        chain.begin_at(recorded);
        return Ok(Some(chain));
    }
    Ok(None)
}

/// Returns the chain of the segments that `tip` links to, directly or indirectly.
fn walk_back(tip: &Member, ours: &[Member]) -> Chain {
    let mut members = vec![*tip];
    let mut oldest = *tip;
    let mut first = tip.header.first;
    let names = |header: &SegmentHeader, before: &Member| {
        header.previous == Some(before.header.link()) && before.header.base <= header.base
    };
    for before in ours.iter().rev() {
        if before.sequence < oldest.sequence && names(&oldest.header, before) {
            first = first.max(before.header.first);
            oldest = *before;
            members.push(oldest);
        }
    }
    members.reverse();
    Chain { members, first, ..Chain::default() }
}

/// Returns the last unit boundary at or below `lsn`.
fn boundary_below(scan: &Scan<'_>, chain: &Chain, lsn: Lsn) -> Result<Lsn> {
    let after = chain.members.partition_point(|member| member.header.base < lsn);
    let Some(member) = after.checked_sub(1).and_then(|at| chain.members.get(at)) else {
        return Ok(lsn.max(chain.first));
    };
    let end = chain.members.get(after).map(|next| next.header.base);
    let reader = scan.reader(member, end)?;
    let mut at = scan.found().walk.start.max(reader.base);
    while at < lsn {
        let chunk = reader.read_chunk(at, lsn, CHUNK_BYTES)?;
        if chunk.next == at {
            break;
        }
        at = chunk.next;
    }
    Ok(at)
}

/// Searches the segments outside the chain and classifies each as a leftover or a stray.
///
/// Returns the leftovers and the strays. The strays must be gone when the cut is committed.
fn search_others(
    scan: &mut Scan<'_>,
    survey: &Survey,
    chain: &Chain,
    ours: &[Member],
    base: Lsn,
) -> Result<(Vec<Leftover>, Vec<Sequence>)> {
    let mut leftovers = Vec::new();
    let mut strays = Vec::new();
    for segment in &survey.segments {
        let sequence = segment.sequence;
        if chain.members.iter().any(|member| member.sequence == sequence) {
            continue;
        }
        let member = ours.iter().find(|member| member.sequence == sequence);
        let is_used = search_other(scan, segment, member)?;
        let is_empty = segment.is_blank && !is_used;
        // The cut explains the segments it replaces, and `first` those below the beginning.
        let is_explained =
            |member: &Member| member.header.base >= base || member.header.base < chain.first;
        if segment.header.is_some() && !member.is_some_and(is_explained) {
            strays.push(sequence);
        } else {
            let is_set_aside = !is_empty;
            leftovers.push(Leftover { sequence, is_set_aside, is_empty, is_harmless: false });
        }
    }
    Ok((leftovers, strays))
}

/// Counts the bytes and frames of a segment outside the chain. Returns whether the segment was
/// used.
fn search_other(
    scan: &mut Scan<'_>,
    segment: &SurveyedSegment,
    member: Option<&Member>,
) -> Result<bool> {
    if let Some(member) = member {
        let reader = scan.reader(member, None)?;
        let base = reader.base;
        scan.search_region(&reader, base)?;
        return Ok(true);
    }
    let used_bytes = scan.used_bytes(segment)?;
    if used_bytes > 0 {
        scan.note_bytes(segment.sequence, used_bytes);
    }
    Ok(used_bytes > 0)
}

/// Returns the names under which the cut keeps all segments that it changes or removes.
fn copies(
    cut_segments: &[Sequence],
    leftovers: &[Leftover],
    damage_cut: &DamageCut,
    survey: &Survey,
) -> Vec<CutCopy> {
    let set_aside = leftovers.iter().filter(|leftover| leftover.is_set_aside);
    let set_aside = set_aside.map(|leftover| leftover.sequence);
    let strays = damage_cut.strays.iter().copied();
    let mut kept: Vec<Sequence> =
        cut_segments.iter().copied().chain(set_aside).chain(strays).collect();
    kept.sort_unstable();
    let copies = kept.into_iter().map(|sequence| CutCopy {
        segment: sequence.file_name(),
        kept_as: sequence.free_cut_name(&survey.names),
        is_still_there: damage_cut.copied == Some(sequence),
    });
    copies.collect()
}

/// Returns the epoch above which the cut's epoch must be.
///
/// A headless segment may be of any epoch that a recovery could have begun.
fn epoch_max(survey: &Survey, leftovers: &[Leftover]) -> u64 {
    let is_headless = |leftover: &Leftover| {
        let segment = survey.segments.iter().find(|it| it.sequence == leftover.sequence);
        segment.is_some_and(|segment| segment.header.is_none()) && !leftover.is_empty
    };
    let unknown = if leftovers.iter().any(is_headless) { EPOCHS_TRIED } else { 0 };
    survey.epoch_max.saturating_add(unknown)
}

fn planned(
    evidence: Findings,
    chain: Chain,
    leftovers: Vec<Leftover>,
    damage_cut: DamageCut,
    survey: &Survey,
    synced: Lsn,
    base: Lsn,
) -> Judged {
    let Findings { walk, past_end, .. } = evidence;
    let is_replaced = |member: &&Member| member.header.base >= base;
    let replaced = chain.members.iter().filter(is_replaced).map(|member| member.sequence);
    let mut cut_segments: Vec<Sequence> = replaced.collect();
    cut_segments.extend(damage_cut.copied);
    let stopped = walk.stopped_in.as_ref().filter(|_| walk.end < synced);
    let reason = match (stopped, walk.end < synced) {
        (Some(_), _) if walk.is_cut_short => "the file is shorter than it was made",
        (Some(_), _) => early(walk.stop).describe(),
        (None, true) => GAP,
        (None, false) => "files that are not part of the log are among its segments",
    };
    let cut = Cut {
        lsn: walk.end,
        segment: stopped.map_or_else(String::new, |reader| reader.file.name().to_owned()),
        offset: stopped.map_or(0, |reader| reader.offset(walk.end)),
        bytes: past_end.bytes,
        valid_frame_count: past_end.frame_count,
        reason,
        kept_in: Vec::new(),
        durable: Some(DurableCut {
            synced,
            record_count: past_end.record_count,
            new_segment: survey.sequence_max.next().file_name(),
            manifest: survey.sequence_max.next().manifest_name(),
            copies: copies(&cut_segments, &leftovers, &damage_cut, survey),
            refusal: damage_cut.refusal.clone(),
        }),
    };
    Judged {
        chain,
        verdict: Verdict::TornTail { valid_after_count: past_end.frame_count },
        end: walk.end,
        records_end: walk.records_end,
        commitment: base,
        cut: Some(cut),
        has_interrupted: false,
        cut_segments,
        epoch_max: epoch_max(survey, &leftovers),
        leftovers,
        scanned_bytes: evidence.scanned_bytes,
        warnings: vec![Warning::UncleanShutdown, Warning::DurableDataCut { lsn: walk.end, synced }],
        damage_cut: Some(damage_cut),
        walk_start: walk.start,
        slots_seen: evidence.slots,
        time_seen: evidence.time,
        slots: RecoveredSlots::default(),
        times: RecoveredTimes::default(),
    }
}
