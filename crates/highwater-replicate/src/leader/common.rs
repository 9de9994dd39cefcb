//! The common point of two logs. Pure.

use highwater::{Lsn, shipping::SegmentId};

/// The point at which a copy and a log part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Common {
    /// The copy has no segment.
    Empty,
    /// No segment of the copy is in the log.
    Nothing,
    /// The copy continues in `segment` at `at`. It may have bytes above.
    At { segment: SegmentId, at: Lsn },
    /// The copy is longer than the log, in the newest segment of the log.
    Ahead { at: Lsn },
}

/// Finds the common point.
///
/// Each header names the segment before it by base and incarnation. So everything below a segment
/// that both have is equal. Both lists are in order; the log ends at `synced`, and the copy at
/// `end`.
pub(crate) fn common_point(log: &[SegmentId], synced: Lsn, copy: &[SegmentId], end: Lsn) -> Common {
    if copy.is_empty() {
        return Common::Empty;
    }
    let pairs = copy.iter().enumerate().rev();
    let mut found = pairs.filter_map(|(own, segment)| {
        let theirs = log.iter().rposition(|candidate| candidate == segment)?;
        Some((own, theirs, *segment))
    });
    let Some((own, theirs, segment)) = found.next() else { return Common::Nothing };
    let own_end = copy.get(own + 1).map_or(end, |next| next.base);
    let next = log.get(theirs + 1);
    let at = own_end.min(next.map_or(synced, |next| next.base)).min(synced);
    if next.is_none() && copy.get(own + 1).is_none() && end > at {
        return Common::Ahead { at };
    }
    Common::At { segment, at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(rows: &[(u64, u64, u64)]) -> Vec<SegmentId> {
        let id = |&(base, epoch, incarnation): &(u64, u64, u64)| SegmentId {
            base: Lsn::new(base),
            epoch,
            incarnation,
        };
        rows.iter().map(id).collect()
    }

    fn found(log: &[(u64, u64, u64)], synced: u64, copy: &[(u64, u64, u64)], end: u64) -> Common {
        common_point(&ids(log), Lsn::new(synced), &ids(copy), Lsn::new(end))
    }

    fn at(row: (u64, u64, u64), lsn: u64) -> Common {
        Common::At { segment: ids(&[row])[0], at: Lsn::new(lsn) }
    }

    /// Segments are (base, epoch, incarnation).
    #[test]
    fn common_point_table() {
        let (a, b, c) = ((0, 1, 10), (100, 1, 11), (200, 1, 12));
        assert_eq!(found(&[a, b], 150, &[], 0), Common::Empty);
        assert_eq!(found(&[b, c], 250, &[a], 50), Common::Nothing, "removed on the leader");
        assert_eq!(found(&[a, b], 150, &[a], 40), at(a, 40), "the copy is behind");
        assert_eq!(found(&[a, b], 150, &[a], 100), at(a, 100), "at the end of a segment");
        assert_eq!(found(&[a, b], 150, &[a, b], 150), at(b, 150), "equal");
        assert_eq!(found(&[b, c], 250, &[a, b], 150), at(b, 150), "a truncated beginning");
        let ahead = Common::Ahead { at: Lsn::new(120) };
        assert_eq!(found(&[a, b], 120, &[a, b], 150), ahead, "the leader lost bytes");
        let cut = (80, 2, 20);
        assert_eq!(found(&[a, cut], 300, &[a, b], 150), at(a, 80), "a cut below the copy's end");
        assert_eq!(found(&[a, cut], 300, &[a], 90), at(a, 80), "the same, in one segment");
        let own = (60, 2, 30);
        assert_eq!(found(&[a, b], 150, &[a, own], 90), at(a, 60), "a cut of the copy");
        assert_eq!(found(&[a, cut], 300, &[a, own], 90), at(a, 60), "both cut, in the same epoch");
        assert_eq!(found(&[own], 150, &[cut], 90), Common::Nothing, "no segment in common");
    }
}
