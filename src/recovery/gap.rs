//! Explains a gap in the chain: a truncation, a torn tail, or lost data.
//!
//! Pure, except for the control records that the caller reads on request.

use crate::{
    error::{Error, Result},
    lsn::Lsn,
    recovery::chain::{Chain, Member, MissingSegment, link_up},
    segments::Sequence,
};

/// The log's chain, and the segments that a gap separates from it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Explained {
    pub(super) chain: Chain,
    /// The segments above the gaps, those above the highest gap first. They are not part of the
    /// log.
    pub(super) above_gap: Vec<Member>,
    /// The beginning of the missing segment below `above_gap`.
    pub(super) gap_at: Option<Lsn>,
}

/// Links up `candidates`, which are in the order of their sequence, and explains each gap.
///
/// 1. `recorded_first` reads the beginning of the log from the control records of a chain. If the
///    beginning lies above the gap, a truncation has removed the older segments.
/// 2. Otherwise the segments above the gap are not part of the log, and the `first` that they
///    record is ignored. Segments above the gap that no other segment links to also count: their
///    `synced` values are valid evidence. The caller judges whether the gap is a torn tail.
///
/// # Errors
///
/// [`Error::Corrupt`] if no segment lies below the gap, or a segment of another log lies in it.
pub(super) fn explain_gap(
    candidates: &[Member],
    mut recorded_first: impl FnMut(&Chain) -> Result<Lsn>,
) -> Result<Explained> {
    let mut below = candidates.to_vec();
    let mut above_gap: Vec<Member> = Vec::new();
    let mut gap_at = None;
    loop {
        let mut chain = link_up(&below, Lsn::ZERO);
        if chain.gap.is_some_and(|gap| !gap.is_foreign) {
            chain = link_up(&below, recorded_first(&chain)?);
        }
        let Some(gap) = chain.gap else {
            return Ok(Explained { chain, above_gap, gap_at });
        };
        gap_at = Some(gap.base);
        let lowest = chain.members.first().map_or(Sequence(0), |member| member.sequence);
        above_gap.extend(below.drain(below.partition_point(|member| member.sequence < lowest)..));
        if below.is_empty() || gap.is_foreign {
            let synced = above_gap.iter().map(|member| member.header.synced).max();
            return Err(missing(gap, lowest, synced.unwrap_or_default()));
        }
    }
}

fn missing(gap: MissingSegment, before: Sequence, synced: Lsn) -> Error {
    let reason = if gap.is_foreign {
        "a segment of another log is among these segments"
    } else {
        "the segment that begins here is missing or its header is damaged"
    };
    Error::Corrupt {
        directory: String::new(),
        lsn: gap.base,
        segment: format!("the one before {}", before.file_name()),
        offset: 0,
        synced,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::chain::tests::{Row, members};

    /// `Ok((members, above_gap, gap_at, first))` with sequences, or `Err((lsn, synced))`.
    type Outcome = Result<(Vec<u64>, Vec<u64>, Option<u64>, u64), (u64, u64)>;

    /// Checks that `recorded_first` is called once for each value of `recorded`, and returns them.
    fn outcome(candidates: &[Member], recorded: &[u64]) -> Outcome {
        let mut recorded = recorded.iter();
        let explained = explain_gap(candidates, |_| {
            Ok(Lsn::new(*recorded.next().expect("the control records are read once per gap")))
        });
        assert_eq!(recorded.len(), 0, "control records are read at each gap");
        let sequences = |of: &[Member]| of.iter().map(|member| member.sequence.0).collect();
        match explained {
            Ok(Explained { chain, above_gap, gap_at }) => Ok((
                sequences(&chain.members),
                sequences(&above_gap),
                gap_at.map(Lsn::as_u64),
                chain.first.as_u64(),
            )),
            Err(Error::Corrupt { lsn, synced, .. }) => Err((lsn.as_u64(), synced.as_u64())),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn gap_table() {
        // (sequence, base, epoch, incarnation, previous (base, incarnation), first)
        let one: Row = (1, 0, 1, 11, None, 0);
        let two: Row = (2, 100, 1, 12, Some((0, 11)), 0);
        let three: Row = (3, 200, 1, 13, Some((100, 12)), 0);
        let five: Row = (5, 400, 1, 15, Some((300, 14)), 0);
        let five_twice: Row = (6, 400, 1, 15, Some((300, 14)), 0);
        type Case<'a> = (&'a str, &'a [Row], &'a [u64], Outcome);
        let cases: &[Case<'_>] = &[
            ("no segment", &[], &[], Ok((vec![], vec![], None, 0))),
            ("no gap", &[one, two, three], &[], Ok((vec![1, 2, 3], vec![], None, 0))),
            (
                "a gap below the newest segment",
                &[one, three],
                &[0],
                Ok((vec![1], vec![3], Some(100), 0)),
            ),
            (
                "a recorded first below the gap explains nothing, and is ignored",
                &[one, three],
                &[104],
                Ok((vec![1], vec![3], Some(100), 0)),
            ),
            (
                "a recorded first at the oldest segment explains the gap",
                &[two, three],
                &[100],
                Ok((vec![2, 3], vec![], None, 100)),
            ),
            (
                "a recorded first within the oldest segment explains the gap",
                &[three],
                &[208],
                Ok((vec![3], vec![], None, 208)),
            ),
            ("the oldest segment is missing", &[two, three], &[0], Err((0, 0))),
            (
                "two gaps: each lower chain is examined again",
                &[one, three, five],
                &[0, 0],
                Ok((vec![1], vec![5, 3], Some(100), 0)),
            ),
            (
                "two gaps: a truncation explains the lower one",
                &[three, five],
                &[0, 200],
                Ok((vec![3], vec![5], Some(300), 200)),
            ),
            (
                "a segment that exists twice is above the gap with its copy",
                &[one, two, three, five, five_twice],
                &[0, 0],
                Ok((vec![1, 2, 3], vec![6, 5], Some(300), 0)),
            ),
        ];
        for (case, rows, recorded, expected) in cases {
            assert_eq!(outcome(&members(rows), recorded), *expected, "{case}");
        }
    }

    #[test]
    fn foreign_segment_is_refused_without_a_read() {
        let rows: &[Row] = &[(1, 0, 1, 11, None, 0), (2, 100, 1, 12, Some((0, 11)), 0)];
        let mut candidates = members(rows);
        candidates[0].header.log_id = [0xff; 16];
        candidates[1].header.synced = Lsn::new(64);
        assert_eq!(outcome(&candidates, &[]), Err((0, 64)));
    }
}
