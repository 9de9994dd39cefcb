//! Classifies the segment files that are not part of the log.

use crate::{
    recovery::{
        chain::{Chain, Member},
        report::Warning,
        survey::SurveyedSegment,
    },
    segments::Sequence,
};

/// A segment file that is not part of the log any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leftover {
    pub(crate) sequence: Sequence,
    /// True if the file holds bytes of a cut. Such a file is renamed, not removed.
    pub(crate) is_set_aside: bool,
    /// True if the file was prepared and never used.
    pub(crate) is_empty: bool,
    /// True if no frame in the file can be mistaken for a later record.
    ///
    /// Such a file lies below the beginning of the log, was replaced by a cut, or is a copy of a
    /// segment.
    pub(crate) is_harmless: bool,
}

impl Leftover {
    /// Returns the leftover of a file that was prepared and never used.
    pub(crate) fn empty(sequence: Sequence) -> Self {
        Leftover { sequence, is_set_aside: false, is_empty: true, is_harmless: true }
    }
}

/// Classifies all segment files outside the chain, and returns a warning for each.
///
/// `cut_segments` are the segments that hold bytes past the end of the log.
pub(super) fn classify(
    chain: &Chain,
    above_gap: &[Member],
    headless: &[&SurveyedSegment],
    cut_segments: &[Sequence],
) -> (Vec<Leftover>, Vec<Warning>) {
    let find_headless = |sequence| headless.iter().find(|segment| segment.sequence == sequence);
    let is_empty = |sequence| {
        find_headless(sequence).is_some_and(|segment| segment.is_blank)
            && !cut_segments.contains(&sequence)
    };
    let is_harmless = |sequence| {
        let explained = chain.purged.iter().chain(&chain.obsolete);
        explained.into_iter().any(|member| member.sequence == sequence)
            || find_headless(sequence).is_some_and(|segment| segment.is_old_copy(chain))
    };
    // A recovery that was interrupted after the commit point may not have set the cut segments
    // aside.
    let is_cut = |sequence| {
        let obsolete = chain.obsolete.iter().find(|member| member.sequence == sequence);
        let by_recovery = |member: &Member| {
            member.header.base >= chain.first && !chain.is_truncated(&member.header)
        };
        cut_segments.contains(&sequence) || obsolete.is_some_and(by_recovery)
    };
    let because = |what| move |member: &Member| (member.sequence, what);
    let purged = chain.purged.iter().map(because("the log begins later"));
    let obsolete = chain.obsolete.iter().map(because("an earlier cut replaced it"));
    let above_gap = above_gap.iter().map(because("its predecessor does not exist"));
    let unreadable = headless.iter().map(|segment| {
        let what = match (segment.is_blank, segment.misplaced) {
            (true, _) => "it holds nothing",
            (false, Some(_)) => "it shows the header of another segment",
            (false, None) => "its header is damaged",
        };
        (segment.sequence, what)
    });
    let mut leftovers = Vec::new();
    let mut warnings = Vec::new();
    for (sequence, what) in purged.chain(obsolete).chain(above_gap).chain(unreadable) {
        leftovers.push(Leftover {
            sequence,
            is_set_aside: is_cut(sequence),
            is_empty: is_empty(sequence),
            is_harmless: is_harmless(sequence),
        });
        warnings.push(Warning::Leftover { name: sequence.file_name(), what });
    }
    for segment in headless.iter().filter(|it| !it.is_blank && it.misplaced.is_none()) {
        warnings.push(Warning::DamagedHeader { name: segment.sequence.file_name() });
    }
    (leftovers, warnings)
}
