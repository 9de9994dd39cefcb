//! Judges a log: determines its segments, its end, and the files outside it.
//!
//! Refuses a log whose durable data is damaged.

use crate::{
    error::{Error, Result},
    format::{
        extension::TimeMark,
        judge::{Evidence, Verdict, judge},
        last_close::LastClose,
    },
    lsn::Lsn,
    options::Config,
    pipeline::{RecoveredSlots, RecoveredTimes},
    recovery::{
        chain::{Chain, Member},
        gap::{Explained, explain_gap},
        headless::{HeadlessSearch, are_blank},
        leftovers::{Leftover, classify},
        report::{Cut, Warning},
        scan::{Findings, Scan, SlotsAt},
        survey::{Survey, SurveyedSegment},
    },
    sabotage::{self, Sabotage},
    segments::{LAST_CLOSE, Sequence},
    storage::Storage,
};

/// An existing log and the verdict on it.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) chain: Chain,
    pub(crate) verdict: Verdict,
    /// The first position without a valid unit (X).
    pub(crate) end: Lsn,
    /// The end of the last record that the walk read. Only control records follow it.
    pub(crate) records_end: Lsn,
    /// The highest position that any header, frame or note claims was synced (S).
    pub(crate) commitment: Lsn,
    pub(crate) cut: Option<Cut>,
    /// The segments that hold bytes of the cut.
    pub(crate) cut_segments: Vec<Sequence>,
    /// Segment files that are not part of the log any more.
    pub(crate) leftovers: Vec<Leftover>,
    pub(crate) scanned_bytes: u64,
    pub(crate) warnings: Vec<Warning>,
    /// The highest epoch in any header.
    pub(crate) epoch_max: u64,
    /// True if a leftover holds frames of an interrupted recovery.
    ///
    /// If that file stays, only a new epoch keeps its frames from being taken for later records.
    pub(crate) has_interrupted: bool,
    /// Set if durable data is cut.
    pub(crate) damage_cut: Option<DamageCut>,
    /// The position at which the walk began.
    pub(super) walk_start: Lsn,
    /// The slots records that the walk has met.
    pub(super) slots_seen: Vec<SlotsAt>,
    /// The newest time mark that the walk has met.
    pub(super) time_seen: Option<TimeMark>,
    /// The slots of the log.
    pub(crate) slots: RecoveredSlots,
    /// The times of the log.
    pub(super) times: RecoveredTimes,
}

/// The additional steps of a cut of durable data.
#[derive(Debug)]
pub(crate) struct DamageCut {
    /// The id of the log, in case none of its segments is left.
    pub(crate) log_id: Option<[u8; 16]>,
    /// Segments of another log, and copies of segments.
    ///
    /// No rule of the chain explains them, so they must be gone when the cut is committed.
    pub(crate) strays: Vec<Sequence>,
    /// The segment in which the cut is. It stays part of the log, so a copy keeps the cut bytes.
    pub(crate) copied: Option<Sequence>,
    /// The damage that causes the cut, as the text of an error.
    pub(crate) refusal: String,
}

/// The segments of a directory, by their relation to the log.
struct Sorted<'s> {
    chain: Chain,
    /// Segments that a gap separates from the chain.
    above_gap: Vec<Member>,
    /// The beginning of the missing segment.
    gap_at: Option<Lsn>,
    /// Headless segments that an earlier cut left, or with an old copy of a header.
    stale: Vec<&'s SurveyedSegment>,
    /// All other headless segments.
    headless: Vec<&'s SurveyedSegment>,
}

impl Sorted<'_> {
    fn leftovers(&self, evidence: &Findings) -> (Vec<Leftover>, Vec<Warning>) {
        let headless = [self.stale.as_slice(), self.headless.as_slice()].concat();
        classify(&self.chain, &self.above_gap, &headless, &evidence.past_end.segments)
    }
}

/// Judges the log.
///
/// # Errors
///
/// [`Error::Corrupt`] if durable data is damaged; an unsupported frame or header of a later
/// release.
pub(crate) fn judge_log(storage: &dyn Storage, survey: &Survey, config: &Config) -> Result<Judged> {
    let mut scan = Scan::new(storage, config);
    let candidates: Vec<_> = survey.segments.iter().filter_map(SurveyedSegment::member).collect();
    let explained = explain_gap(&candidates, |chain| scan.recorded_first(chain));
    let Explained { chain, above_gap, gap_at } =
        explained.map_err(|error| add_renamed(error, survey))?;
    let Some(newest) = chain.members.last().copied() else {
        return Err(no_header(survey));
    };
    for member in above_gap.iter().chain(&chain.members) {
        scan.commit(member.header.synced);
    }
    let last_close = commit_last_close(&mut scan, &chain, survey.last_close.as_ref());
    let (stale, headless): (Vec<_>, Vec<_>) =
        survey.segments.iter().filter(|segment| segment.header.is_none()).partition(|segment| {
            chain.was_cut_away(segment.sequence) || segment.is_old_copy(&chain)
        });
    for segment in stale.iter().filter(|segment| !segment.is_old_copy(&chain)) {
        if scan.used_bytes(segment)? > 0 {
            scan.note_segment(segment.sequence);
        }
    }
    let mut sorted = Sorted { chain, above_gap, gap_at, stale, headless };
    if sorted.above_gap.is_empty() && are_blank(&scan, &sorted.headless)? {
        let end = scan.clean_end(&newest)?;
        if let Some(end) = end.filter(|end| *end >= scan.found().commitment) {
            sorted.chain.begin_at(scan.found().first);
            return Ok(judged_clean(scan, sorted, survey, end));
        }
    }
    scan.walk_members(&sorted.chain)?;
    for member in &sorted.above_gap {
        let reader = scan.reader(member, None)?;
        scan.search_region(&reader, reader.base)?;
    }
    let search = HeadlessSearch {
        scan: &mut scan,
        chain: &sorted.chain,
        above_gap: &sorted.above_gap,
        survey,
    };
    search.search(&sorted.headless)?;
    sorted.chain.begin_at(scan.found().first);
    judged_unclean(scan, sorted, survey, last_close).map_err(|error| add_renamed(error, survey))
}

/// Adds a hint to a `Corrupt` error if a file has a missing segment's header.
fn add_renamed(error: Error, survey: &Survey) -> Error {
    let is_missing = |sequence| {
        let mut segments = survey.segments.iter();
        segments.all(|segment| segment.sequence != sequence || segment.header.is_none())
    };
    let renamed = survey.segments.iter().find_map(|segment| {
        let belongs_to = Sequence(segment.misplaced?.sequence);
        is_missing(belongs_to).then(|| (segment.sequence.file_name(), belongs_to.file_name()))
    });
    match (error, renamed) {
        (
            Error::Corrupt { directory, lsn, segment, offset, synced, reason },
            Some((name, belongs_to)),
        ) => {
            let reason =
                format!("{reason}; {name} shows the header of {belongs_to}: was it renamed?");
            Error::Corrupt { directory, lsn, segment, offset, synced, reason }
        }
        (error, _) => error,
    }
}

fn corrupt(lsn: Lsn, synced: Lsn, segment: String, offset: u64, reason: String) -> Error {
    Error::Corrupt { directory: String::new(), lsn, segment, offset, synced, reason }
}

fn no_header(survey: &Survey) -> Error {
    let segment = survey.segments.first().map(|segment| segment.sequence.file_name());
    let reason = "no segment has a readable header".to_owned();
    corrupt(Lsn::ZERO, Lsn::ZERO, segment.unwrap_or_default(), 0, reason)
}

/// Counts the claim in the note of the last close, limited by later cuts.
///
/// Returns the note if no later cut limits its claim.
fn commit_last_close(
    scan: &mut Scan<'_>,
    chain: &Chain,
    closed: Option<&LastClose>,
) -> Option<LastClose> {
    let log_id = chain.members.last().map(|newest| newest.header.log_id);
    let closed = closed.filter(|closed| Some(closed.log_id) == log_id)?;
    let later = chain.members.iter().filter(|member| member.header.epoch > closed.epoch);
    let cut = later.map(|member| member.header.base).min();
    scan.commit(cut.map_or(closed.end, |cut| cut.min(closed.end)));
    cut.is_none().then_some(*closed)
}

fn judged_clean(mut scan: Scan<'_>, sorted: Sorted<'_>, survey: &Survey, end: Lsn) -> Judged {
    scan.end_at(end);
    let set_aside = sorted.leftovers(scan.found());
    judged(scan.finish(), sorted.chain, survey, Verdict::CleanClose, None, set_aside)
}

fn judged(
    evidence: Findings,
    chain: Chain,
    survey: &Survey,
    verdict: Verdict,
    cut: Option<Cut>,
    (leftovers, warnings): (Vec<Leftover>, Vec<Warning>),
) -> Judged {
    Judged {
        chain,
        verdict,
        end: evidence.walk.end,
        records_end: evidence.walk.records_end,
        commitment: evidence.commitment,
        cut,
        cut_segments: evidence.past_end.segments,
        leftovers,
        scanned_bytes: evidence.scanned_bytes,
        warnings,
        epoch_max: survey.epoch_max,
        has_interrupted: evidence.has_interrupted,
        damage_cut: None,
        walk_start: evidence.walk.start,
        slots_seen: evidence.slots,
        time_seen: evidence.time,
        slots: RecoveredSlots::default(),
        times: RecoveredTimes::default(),
    }
}

fn judged_unclean(
    mut scan: Scan<'_>,
    sorted: Sorted<'_>,
    survey: &Survey,
    last_close: Option<LastClose>,
) -> Result<Judged> {
    if sabotage::is_on(Sabotage::ReuseLsn) {
        scan.end_at(scan.found().commitment.min(scan.found().walk.end));
    }
    let Findings { commitment, walk, past_end, .. } = scan.found();
    let mut verdict = judge(&Evidence {
        end: walk.end,
        commitment: *commitment,
        blank_from_end: past_end.bytes == 0,
        valid_after_count: past_end.frame_count,
        closed: walk.is_closed,
    });
    if sabotage::is_on(Sabotage::TrustPageCache) && verdict == Verdict::CleanEnd {
        verdict = Verdict::CleanClose;
    }
    let stopped_in = walk.stopped_in.as_ref();
    let segment = stopped_in.map(|reader| reader.file.name().to_owned()).unwrap_or_default();
    let offset = stopped_in.map_or(0, |reader| reader.offset(walk.end));
    if verdict == Verdict::Corrupt || walk.is_cut_short {
        let reason = damage_reason(scan.found(), sorted.gap_at, last_close);
        return Err(corrupt(walk.end, *commitment, segment, offset, reason));
    }
    if !scan.commitment_is_boundary(&sorted.chain)? {
        let reason = "the position up to which the log claims to be synced is within a unit";
        return Err(corrupt(*commitment, *commitment, segment, offset, reason.to_owned()));
    }
    let evidence = scan.finish();
    let (leftovers, mut warnings) = sorted.leftovers(&evidence);
    warnings.insert(0, Warning::UncleanShutdown);
    if evidence.dirty_padding_count > 0 {
        warnings.push(Warning::DirtyPadding { frame_count: evidence.dirty_padding_count });
    }
    let cut = matches!(verdict, Verdict::TornTail { .. }).then(|| Cut {
        lsn: evidence.walk.end,
        segment,
        offset,
        bytes: evidence.past_end.bytes,
        valid_frame_count: evidence.past_end.frame_count,
        reason: evidence.walk.stop.describe(),
        kept_in: Vec::new(),
        durable: None,
    });
    Ok(judged(evidence, sorted.chain, survey, verdict, cut, (leftovers, warnings)))
}

/// Describes the damage at the end of the walk.
///
/// Names the last close if its note claims a higher position.
fn damage_reason(
    Findings { walk, .. }: &Findings,
    gap_at: Option<Lsn>,
    last_close: Option<LastClose>,
) -> String {
    let reason = if walk.is_cut_short {
        "the file is shorter than it was made"
    } else if gap_at == Some(walk.end) {
        "the segment that begins here is missing or its header is damaged"
    } else {
        walk.stop.describe()
    };
    match last_close.filter(|closed| closed.end > walk.end) {
        Some(closed) => {
            let last = Sequence(closed.sequence).file_name();
            format!("{reason} ({LAST_CLOSE}: the log was closed at LSN {} in {last})", closed.end)
        }
        None => reason.to_owned(),
    }
}
