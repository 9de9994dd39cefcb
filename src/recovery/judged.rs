//! From what was found to a verdict: which segments are the log, where it ends, and what of the rest
//! is in the way. Refuses where durable data is damaged.

use crate::{
    error::{Error, Result},
    format::judge::{Evidence, Verdict, judge},
    lsn::Lsn,
    options::Config,
    recovery::{
        chain::{Chain, Member, link_up},
        report::{Cut, Warning},
        salvage::Salvage,
        scan::Scan,
        survey::{Found, Survey},
    },
    sabotage::{self, Sabotage},
    segments::Sequence,
    storage::Storage,
};

/// A log that exists, judged.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) chain: Chain,
    pub(crate) verdict: Verdict,
    /// The first place where no valid unit stands (X).
    pub(crate) end: Lsn,
    /// The end of the last record that was walked over: only control records follow it.
    pub(crate) records_end: Lsn,
    /// The highest position that anything claims was synced (S).
    pub(crate) commitment: Lsn,
    pub(crate) cut: Option<Cut>,
    /// The segments that hold what was cut.
    pub(crate) kept_in: Vec<Sequence>,
    /// Segment files that are no part of the log any more.
    pub(crate) leftovers: Vec<Leftover>,
    pub(crate) scanned_bytes: u64,
    pub(crate) warnings: Vec<Warning>,
    /// The highest epoch that any header names.
    pub(crate) epoch_max: u64,
    /// Set if durable data is cut.
    pub(crate) salvage: Option<Salvage>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Leftover {
    pub(crate) sequence: Sequence,
    /// Whether it holds bytes that a cut did away with: they are kept.
    pub(crate) is_kept: bool,
    /// Whether it was prepared and never used.
    pub(crate) is_empty: bool,
}

/// Judges the log, or refuses: its durable part is damaged, or of a later release.
pub(crate) fn judge_log(storage: &dyn Storage, survey: &Survey, config: &Config) -> Result<Judged> {
    let mut scan = Scan::new(storage, config);
    scan.epoch_max = survey.epoch_max;
    let own = survey.segments.iter().filter_map(|found| found.header);
    scan.own_epoch_max = own.map(|header| header.epoch).max().unwrap_or(0);
    let valid = |found: &Found| {
        found.header.map(|header| Member { sequence: found.sequence, header, bytes: found.bytes })
    };
    let mut candidates: Vec<Member> = survey.segments.iter().filter_map(valid).collect();
    // Newest parts whose predecessor is gone: above all that is committed they are a torn tail.
    let mut hanging: Vec<Member> = Vec::new();
    let mut broken: Option<Lsn> = None;
    let mut first = None;
    let mut chain = loop {
        let chain = link_up(&candidates, first.unwrap_or(Lsn::ZERO));
        let Some(gap) = chain.broken else { break chain };
        if first.is_none() && !gap.is_foreign {
            // Removed, perhaps, by a truncation that no header knows yet.
            first = Some(scan.told_first(&chain)?);
            continue;
        }
        // What hangs is none of the log, and what it tells of its beginning neither.
        first = None;
        broken = Some(gap.base);
        let lowest = chain.members.first().map_or(Sequence(0), |member| member.sequence);
        // Those of them that nothing links too: what they claim was claimed.
        let above = candidates.partition_point(|member| member.sequence < lowest);
        for member in candidates.drain(above..) {
            scan.commit(member.header.synced);
            hanging.push(member);
        }
        if candidates.is_empty() || gap.is_foreign {
            return Err(missing(gap.base, gap.is_foreign, lowest, scan.commitment));
        }
    };
    let Some(newest) = chain.members.last().copied() else {
        return Err(headless(survey));
    };
    for member in &chain.members {
        scan.commit(member.header.synced);
    }
    let (stale, unplaced): (Vec<&Found>, Vec<&Found>) = survey
        .segments
        .iter()
        .filter(|found| found.header.is_none())
        .partition(|found| was_cut_away(&chain, found.sequence));
    for found in stale.iter().copied() {
        if scan.used_bytes(found)? > 0 {
            scan.kept_in.push(found.sequence);
        }
    }
    let is_whole = hanging.is_empty() && scan.all_zero(&unplaced)?;
    if is_whole {
        if let Some(end) = scan.clean_end(&newest)? {
            chain.begin_at(scan.first);
            return Ok(scan.into_clean(chain, end, &[stale, unplaced].concat()));
        }
    }
    scan.walk_members(&chain)?;
    scan.search_members(&hanging)?;
    scan.search_unplaced(&unplaced, &chain, &hanging)?;
    chain.begin_at(scan.first);
    scan.into_judged(chain, &hanging, &[stale, unplaced].concat(), broken)
}

/// Whether the log went on behind a cut, in a higher epoch, after this segment was begun, and it is
/// none of the chain: then it was left by that cut, and says nothing of what is durable.
fn was_cut_away(chain: &Chain, sequence: Sequence) -> bool {
    let after = chain.members.iter().find(|member| member.sequence > sequence);
    let before = chain.members.iter().rfind(|member| member.sequence < sequence);
    let epoch = before.map_or(1, |before| before.header.epoch);
    after.is_some_and(|after| after.header.epoch > epoch)
}

fn missing(base: Lsn, is_foreign: bool, before: Sequence, synced: Lsn) -> Error {
    let reason = if is_foreign {
        "a segment of another log stands among these"
    } else {
        "the segment that begins here is missing or its header is damaged"
    };
    Error::Corrupt {
        lsn: base,
        segment: format!("the one before {}", before.file_name()),
        offset: 0,
        synced,
        reason: reason.to_owned(),
    }
}

fn headless(survey: &Survey) -> Error {
    let segment = survey.segments.first().map(|found| found.sequence.file_name());
    Error::Corrupt {
        lsn: Lsn::ZERO,
        segment: segment.unwrap_or_default(),
        offset: 0,
        synced: Lsn::ZERO,
        reason: "no segment has a readable header".to_owned(),
    }
}

impl Scan<'_> {
    fn into_clean(mut self, chain: Chain, end: Lsn, unplaced: &[&Found]) -> Judged {
        self.end = end;
        let set_aside = leftovers(&chain, &[], unplaced, &self.kept_in);
        self.with_verdict(chain, Verdict::CleanClose, None, set_aside)
    }

    fn with_verdict(
        self,
        chain: Chain,
        verdict: Verdict,
        cut: Option<Cut>,
        (leftovers, warnings): (Vec<Leftover>, Vec<Warning>),
    ) -> Judged {
        Judged {
            chain,
            verdict,
            end: self.end,
            records_end: self.records_end,
            commitment: self.commitment,
            cut,
            kept_in: self.kept_in,
            leftovers,
            scanned_bytes: self.scanned_bytes,
            warnings,
            epoch_max: self.epoch_max,
            salvage: None,
        }
    }

    fn into_judged(
        mut self,
        chain: Chain,
        hanging: &[Member],
        unplaced: &[&Found],
        broken_at: Option<Lsn>,
    ) -> Result<Judged> {
        if sabotage::is_on(Sabotage::ReuseLsn) {
            self.end = self.commitment.min(self.end);
        }
        let mut verdict = judge(&Evidence {
            end: self.end,
            commitment: self.commitment,
            blank_from_end: self.cut_bytes == 0,
            valid_after_count: self.valid_after_count,
            closed: self.closed,
        });
        if sabotage::is_on(Sabotage::TrustPageCache) && verdict == Verdict::CleanEnd {
            verdict = Verdict::CleanClose;
        }
        let segment = self.stopped_in.as_ref().map(|reader| reader.file.name().to_owned());
        let segment = segment.unwrap_or_default();
        let offset = self.stopped_in.as_ref().map_or(0, |reader| reader.offset(self.end));
        if verdict == Verdict::Corrupt || self.is_cut_short {
            let reason = match broken_at.filter(|&base| base == self.end) {
                _ if self.is_cut_short => "the file is shorter than it was made",
                Some(_) => "the segment that begins here is missing or its header is damaged",
                None => self.stop.describe(),
            };
            let (lsn, synced) = (self.end, self.commitment);
            return Err(Error::Corrupt { lsn, segment, offset, synced, reason: reason.to_owned() });
        }
        if !self.commitment_is_boundary(&chain)? {
            let (lsn, synced) = (self.commitment, self.commitment);
            let reason = "what is claimed to be synced ends within a unit".to_owned();
            return Err(Error::Corrupt { lsn, segment, offset, synced, reason });
        }
        let (leftovers, mut warnings) = leftovers(&chain, hanging, unplaced, &self.kept_in);
        warnings.insert(0, Warning::UncleanShutdown);
        if self.dirty_padding_count > 0 {
            warnings.push(Warning::DirtyPadding { frame_count: self.dirty_padding_count });
        }
        let cut = matches!(verdict, Verdict::TornTail { .. }).then(|| Cut {
            lsn: self.end,
            segment,
            offset,
            bytes: self.cut_bytes,
            valid_frame_count: self.valid_after_count,
            reason: self.stop.describe(),
            kept_in: Vec::new(),
            durable: None,
        });
        Ok(self.with_verdict(chain, verdict, cut, (leftovers, warnings)))
    }
}

fn leftovers(
    chain: &Chain,
    hanging: &[Member],
    unplaced: &[&Found],
    kept_in: &[Sequence],
) -> (Vec<Leftover>, Vec<Warning>) {
    let dead = chain.dead.iter().map(|member| (member.sequence, "an earlier cut replaced it"));
    let hanging = hanging.iter().map(|member| (member.sequence, "its predecessor never was"));
    let is_empty = |sequence| {
        unplaced.iter().any(|found| found.sequence == sequence && found.is_blank)
            && !kept_in.contains(&sequence)
    };
    let headless = unplaced.iter().map(|found| {
        (
            found.sequence,
            if found.is_blank { "it was never begun" } else { "its header is damaged" },
        )
    });
    let mut leftovers = Vec::new();
    let mut warnings = Vec::new();
    // A recovery that was interrupted after its commit point may not have kept yet what it cut.
    let was_cut = |sequence| {
        let mut dead = chain.dead.iter().filter(|member| {
            member.header.base >= chain.first && !chain.is_truncated(&member.header)
        });
        kept_in.contains(&sequence) || dead.any(|member| member.sequence == sequence)
    };
    let purged = chain.purged.iter().map(|member| (member.sequence, "the log begins later"));
    for (sequence, what) in purged.chain(dead).chain(hanging).chain(headless) {
        let (is_kept, is_empty) = (was_cut(sequence), is_empty(sequence));
        leftovers.push(Leftover { sequence, is_kept, is_empty });
        warnings.push(Warning::Leftover { name: sequence.file_name(), what });
    }
    for found in unplaced.iter().filter(|found| !found.is_blank) {
        warnings.push(Warning::DamagedHeader { name: found.sequence.file_name() });
    }
    (leftovers, warnings)
}
