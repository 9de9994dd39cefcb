//! Opening with `TruncateAtDamage`: where the durable part of a log is damaged, what stands before
//! the damage stays, and all the rest is set aside.
//!
//! Reads the whole log and changes nothing; `recovery/rebuild` carries it out, as any cut.

use crate::{
    error::{Error, Result},
    format::{header::SegmentHeader, judge::Verdict, scan::Stop},
    lsn::Lsn,
    options::Config,
    recovery::{
        chain::{Chain, Member},
        headless::EPOCHS_TRIED,
        judged::{Judged, Leftover, judge_log},
        report::{Cut, CutCopy, DurableCut, Warning},
        scan::{CHUNK_BYTES, Scan},
        survey::{Found, Survey},
    },
    replay::damage,
    segments::Sequence,
    storage::Storage,
};

/// What a cut of durable data does besides what every cut does.
#[derive(Debug)]
pub(crate) struct Salvage {
    /// The log, where no segment of it is left.
    pub(crate) log_id: Option<[u8; 16]>,
    /// Segments of another log, and ones that stand twice: no rule of the chain explains them, so
    /// they have to be gone when the cut is committed.
    pub(crate) strays: Vec<Sequence>,
    /// The segment in which the cut is. It stays a part of the log, so a copy keeps what is cut.
    pub(crate) copied: Option<Sequence>,
    /// Why opening would refuse.
    pub(crate) refusal: String,
}

/// As [`judge_log`], and where that refuses because of damage, or reading the whole log shows some:
/// what a cut there leaves.
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

/// What a reader of all of the log would come upon.
fn first_damage(storage: &dyn Storage, config: &Config, judged: &Judged) -> Result<Option<Error>> {
    let mut scan = Scan::new(storage, config);
    let oldest = judged.chain.members.first().map_or(Lsn::ZERO, |member| member.header.base);
    scan.walk_from(&judged.chain, judged.chain.first.max(oldest))?;
    if scan.end >= judged.end {
        return Ok(None);
    }
    Ok(Some(match &scan.stopped_in {
        Some(reader) => damage(reader, scan.end, early(scan.stop), judged.commitment),
        None => gap(scan.end, judged.commitment),
    }))
}

/// Where more had to come, the end of a segment is the end of its file.
fn early(stop: Stop) -> Stop {
    if stop == Stop::SegmentEnd { Stop::PartialHeader } else { stop }
}

const GAP: &str = "what follows here is missing, or its header is damaged";

fn gap(lsn: Lsn, synced: Lsn) -> Error {
    let (segment, reason) = (String::new(), GAP.to_owned());
    Error::Corrupt { lsn, segment, offset: 0, synced, reason }
}

fn cut(storage: &dyn Storage, survey: &Survey, config: &Config, refusal: &Error) -> Result<Judged> {
    let mut scan = Scan::new(storage, config);
    let log_id = our_log(survey);
    let ours: Vec<Member> = survey
        .segments
        .iter()
        .filter_map(|found| {
            let header = found.header.filter(|header| Some(header.log_id) == log_id)?;
            Some(Member { sequence: found.sequence, header, bytes: found.bytes })
        })
        .collect();
    let chain = match whole_chain(&scan, &ours)? {
        Some(chain) => chain,
        None => {
            // Where the log began is lost with its oldest segment: nothing connects to that.
            let first = ours.iter().map(|member| member.header.first).max().unwrap_or_default();
            Chain { first, ..Chain::default() }
        }
    };
    let oldest = chain.members.first().map_or(Lsn::ZERO, |member| member.header.base);
    scan.walk_from(&chain, chain.first.max(oldest))?;
    for member in &chain.members {
        scan.commit(member.header.synced);
    }
    // Only what this chain claims: what is above it is written anew.
    let base = boundary_below(&scan, &chain, scan.commitment.min(scan.end))?;
    let mut synced = scan.commitment;
    if let Error::Corrupt { synced: refused, .. } = refusal {
        synced = synced.max(*refused);
    }
    let (leftovers, strays) = look_aside(&mut scan, survey, &chain, &ours, base)?;
    // A segment without a header may be of any epoch that a recovery could have begun.
    let is_headless = |leftover: &Leftover| {
        let found = survey.segments.iter().find(|found| found.sequence == leftover.sequence);
        found.is_some_and(|found| found.header.is_none()) && !leftover.is_empty
    };
    let unknown = if leftovers.iter().any(is_headless) { EPOCHS_TRIED } else { 0 };
    scan.epoch_max = survey.epoch_max.saturating_add(unknown);
    let salvage = Salvage {
        log_id,
        copied: chain
            .members
            .iter()
            .rfind(|member| member.header.base < base && scan.kept_in.contains(&member.sequence))
            .map(|member| member.sequence),
        strays,
        refusal: refusal.to_string(),
    };
    Ok(into_judged(scan, chain, leftovers, salvage, survey, synced, base))
}

/// The log that most of the segments are of.
fn our_log(survey: &Survey) -> Option<[u8; 16]> {
    let ids = || survey.segments.iter().filter_map(|found| Some(found.header?.log_id));
    // The first of several that are as many: ties go to the oldest segment.
    let mut best: Option<([u8; 16], usize)> = None;
    for id in ids() {
        let count = ids().filter(|other| *other == id).count();
        if best.is_none_or(|(_, most)| count > most) {
            best = Some((id, count));
        }
    }
    best.map(|(id, _)| id)
}

/// The chain that goes back to the beginning of the log: from the newest segment, if from that one
/// it does.
fn whole_chain(scan: &Scan<'_>, ours: &[Member]) -> Result<Option<Chain>> {
    let mut tips: Vec<&Member> = ours.iter().collect();
    // By position, not by name: a copy of an older segment may have the highest number.
    tips.sort_by_key(|tip| (tip.header.epoch, tip.header.base, tip.sequence));
    for tip in tips.into_iter().rev() {
        let mut chain = walk_back(tip, ours);
        let Some(oldest) = chain.members.first().copied() else { continue };
        if oldest.header.previous.is_some() && oldest.header.base > chain.first {
            chain.first = chain.first.max(scan.told_first(&chain)?);
            if oldest.header.base > chain.first {
                continue;
            }
        }
        let told = scan.told_first(&chain)?;
        chain.begin_at(told);
        return Ok(Some(chain));
    }
    Ok(None)
}

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

/// The last place at `lsn` or before where a unit begins or the log ends.
fn boundary_below(scan: &Scan<'_>, chain: &Chain, lsn: Lsn) -> Result<Lsn> {
    let after = chain.members.partition_point(|member| member.header.base < lsn);
    let Some(member) = after.checked_sub(1).and_then(|at| chain.members.get(at)) else {
        return Ok(lsn.max(chain.first));
    };
    let end = chain.members.get(after).map(|next| next.header.base);
    let reader = scan.reader(member, end)?;
    let mut at = scan.start.max(reader.base);
    while at < lsn {
        let chunk = reader.read_chunk(at, lsn, CHUNK_BYTES)?;
        if chunk.next == at {
            break;
        }
        at = chunk.next;
    }
    Ok(at)
}

/// Reads what is no part of the chain, for the count, and says what is to become of it: the last
/// are in the way of the cut.
fn look_aside(
    scan: &mut Scan<'_>,
    survey: &Survey,
    chain: &Chain,
    ours: &[Member],
    base: Lsn,
) -> Result<(Vec<Leftover>, Vec<Sequence>)> {
    let mut leftovers = Vec::new();
    let mut strays = Vec::new();
    for found in &survey.segments {
        let sequence = found.sequence;
        if chain.members.iter().any(|member| member.sequence == sequence) {
            continue;
        }
        let mine = ours.iter().find(|member| member.sequence == sequence);
        let is_used = count(scan, found, mine)?;
        let is_empty = found.is_blank && !is_used;
        // A cut explains what it replaces, and the beginning of the log what lies before that.
        let is_explained =
            |member: &Member| member.header.base >= base || member.header.base < chain.first;
        if found.header.is_some() && !mine.is_some_and(is_explained) {
            strays.push(sequence);
        } else {
            leftovers.push(Leftover { sequence, is_kept: !is_empty, is_empty });
        }
    }
    Ok((leftovers, strays))
}

/// Counts what a segment holds that is no part of the chain; whether that is anything.
fn count(scan: &mut Scan<'_>, found: &Found, mine: Option<&Member>) -> Result<bool> {
    if let Some(member) = mine {
        let reader = scan.reader(member, None)?;
        let base = reader.base;
        scan.search_region(&reader, base)?;
        return Ok(true);
    }
    let used_bytes = scan.used_bytes(found)?;
    if used_bytes > 0 {
        scan.keep(found, used_bytes);
    }
    Ok(used_bytes > 0)
}

fn into_judged(
    scan: Scan<'_>,
    chain: Chain,
    leftovers: Vec<Leftover>,
    salvage: Salvage,
    survey: &Survey,
    synced: Lsn,
    base: Lsn,
) -> Judged {
    let is_replaced = |member: &&Member| member.header.base >= base;
    let replaced = chain.members.iter().filter(is_replaced).map(|member| member.sequence);
    let mut kept_in: Vec<Sequence> = replaced.collect();
    kept_in.extend(salvage.copied);
    let aside = leftovers.iter().filter(|leftover| leftover.is_kept).map(|kept| kept.sequence);
    let mut aside: Vec<Sequence> =
        kept_in.iter().copied().chain(aside).chain(salvage.strays.iter().copied()).collect();
    aside.sort_unstable();
    let copies = aside.into_iter().map(|sequence| CutCopy {
        segment: sequence.file_name(),
        kept_as: sequence.free_cut_name(&survey.names),
        is_still_there: salvage.copied == Some(sequence),
    });
    let stopped = scan.stopped_in.as_ref().filter(|_| scan.end < synced);
    let reason = match (stopped, scan.end < synced) {
        (Some(_), _) if scan.is_cut_short => "the file is shorter than it was made",
        (Some(_), _) => early(scan.stop).describe(),
        (None, true) => GAP,
        (None, false) => "files that are no part of the log stand among its segments",
    };
    let cut = Cut {
        lsn: scan.end,
        segment: stopped.map_or_else(String::new, |reader| reader.file.name().to_owned()),
        offset: stopped.map_or(0, |reader| reader.offset(scan.end)),
        bytes: scan.cut_bytes,
        valid_frame_count: scan.valid_after_count,
        reason,
        kept_in: Vec::new(),
        durable: Some(DurableCut {
            synced,
            record_count: scan.record_after_count,
            new_segment: survey.sequence_max.next().file_name(),
            manifest: survey.sequence_max.next().manifest_name(),
            copies: copies.collect(),
            refusal: salvage.refusal.clone(),
        }),
    };
    Judged {
        chain,
        verdict: Verdict::TornTail { valid_after_count: scan.valid_after_count },
        end: scan.end,
        records_end: scan.records_end,
        commitment: base,
        cut: Some(cut),
        kept_in,
        leftovers,
        scanned_bytes: scan.scanned_bytes,
        warnings: vec![Warning::UncleanShutdown, Warning::DurableDataCut { lsn: scan.end, synced }],
        epoch_max: scan.epoch_max,
        salvage: Some(salvage),
    }
}
