//! Determines which segments form the log: the chain of headers, walked back from the newest.
//!
//! Pure. Each header names its predecessor by base and incarnation. So a segment that is missing,
//! belongs to another log or is older than a cut is detected.

use crate::{
    format::header::{SegmentHeader, file_end},
    lsn::Lsn,
    segments::{SegmentInfo, Sequence},
    steps,
};

/// A segment with a valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) sequence: Sequence,
    pub(crate) header: SegmentHeader,
    /// The length of the file.
    pub(crate) bytes: u64,
}

impl Member {
    /// Returns the end of the LSNs that fit into the file. Bytes that were added to the file after
    /// its creation do not count.
    pub(crate) fn file_end(&self) -> Lsn {
        file_end(self.header.base, self.bytes.min(self.header.file_bytes))
    }

    /// Returns what the segment set needs to find and read the segment.
    pub(crate) fn info(&self) -> SegmentInfo {
        SegmentInfo { file_bytes: self.bytes, ..SegmentInfo::of(&self.header) }
    }

    /// Returns whether the file is shorter than when its header was written.
    ///
    /// The length was durable before the header, so no crash causes this.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.bytes < self.header.file_bytes
    }
}

/// The log according to the segment headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The segments of the log, oldest first.
    pub(crate) members: Vec<Member>,
    /// The beginning of the log.
    pub(crate) first: Lsn,
    /// Segments below `first`: their removal was interrupted.
    pub(crate) purged: Vec<Member>,
    /// Segments that no member links to. A cut replaced them, or an interrupted truncation left
    /// them.
    pub(crate) obsolete: Vec<Member>,
    /// Set if the oldest member's predecessor is missing, or an obsolete segment is unexplained.
    pub(crate) gap: Option<MissingSegment>,
}

/// A missing segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MissingSegment {
    /// The beginning of the missing segment.
    pub(crate) base: Lsn,
    /// True if a segment of another log is among the segments.
    pub(crate) is_foreign: bool,
}

/// Links the segments of `found`, ordered by sequence, from the newest one back.
///
/// `first` is the lowest LSN at which the log can begin. If no header records this LSN yet, control
/// records do.
pub(crate) fn link_up(found: &[Member], first: Lsn) -> Chain {
    let mut chain = Chain::default();
    let mut older = found.iter().rev();
    let Some(newest) = older.next() else {
        return chain;
    };
    let mut oldest = *newest;
    let mut is_foreign = false;
    chain.first = oldest.header.first.max(first);
    chain.members.push(oldest);
    for candidate in older {
        let header = &candidate.header;
        if header.log_id != oldest.header.log_id {
            is_foreign = true;
        } else if oldest.header.previous == Some(header.link()) && header.base <= oldest.header.base
        {
            chain.first = chain.first.max(header.first);
            oldest = *candidate;
            chain.members.push(oldest);
        } else {
            chain.obsolete.push(*candidate);
        }
    }
    chain.members.reverse();
    let missing = oldest.header.previous.filter(|_| oldest.header.base > chain.first);
    // An obsolete segment was replaced by a later epoch, or lies below the first LSN. Any other
    // unlinked segment shows that the chain has a gap.
    let epochs_max = epochs_up_to_each(&chain.members);
    let unexplained = chain.obsolete.iter().find(|unlinked| {
        let base = unlinked.header.base;
        let below = chain.members.partition_point(|member| member.header.base <= base);
        let epoch_max = below.checked_sub(1).and_then(|at| epochs_max.get(at));
        let replaced = epoch_max.is_some_and(|epoch| *epoch > unlinked.header.epoch);
        !replaced && base >= chain.first
    });
    steps::count(found.len() as u64);
    chain.gap = match (missing, unexplained) {
        (Some(link), _) => Some(MissingSegment { base: link.base, is_foreign }),
        (None, Some(unlinked)) => Some(MissingSegment { base: unlinked.header.base, is_foreign }),
        (None, None) if is_foreign => Some(MissingSegment { base: chain.first, is_foreign }),
        (None, None) => None,
    };
    chain
}

/// Returns, for each member, the highest epoch up to and including it.
fn epochs_up_to_each(members: &[Member]) -> Vec<u64> {
    let mut highest = 0;
    let epochs = members.iter().map(|member| {
        highest = highest.max(member.header.epoch);
        highest
    });
    epochs.collect()
}

impl Chain {
    /// Returns whether a user's truncation, and not a recovery, replaced an obsolete segment.
    ///
    /// `false` if the replacing member is gone.
    pub(crate) fn is_truncated(&self, obsolete: &SegmentHeader) -> bool {
        let replaces =
            |header: &&SegmentHeader| header.epoch > obsolete.epoch && header.base <= obsolete.base;
        let later = self.members.iter().map(|member| &member.header).filter(replaces);
        later.min_by_key(|header| header.epoch).is_some_and(|header| header.by_truncation)
    }

    /// Returns whether a cut left the segment `sequence`, whose header is unreadable.
    ///
    /// True if the segment was begun before a cut and the log continued in a higher epoch after it.
    /// Such a segment is no evidence of durable records.
    pub(super) fn was_cut_away(&self, sequence: Sequence) -> bool {
        let after = self.members.iter().find(|member| member.sequence > sequence);
        let before = self.members.iter().rfind(|member| member.sequence < sequence);
        let epoch = before.map_or(1, |before| before.header.epoch);
        after.is_some_and(|after| after.header.epoch > epoch)
    }

    /// Raises the beginning of the log to `first`. Moves the members that end at or below `first`
    /// to `purged`, except those from the segment of the slots records on that opening reads.
    pub(crate) fn begin_at(&mut self, first: Lsn) {
        self.first = self.first.max(first);
        let slots = self.members.last().and_then(|newest| newest.header.extension.slots);
        let needed = slots.map_or(self.first, |slots| slots.min(self.first));
        let begins_later =
            |pair: &[Member]| pair.last().is_some_and(|next| next.header.base > needed);
        let purged = self.members.windows(2).position(begins_later);
        let count = purged.unwrap_or(self.members.len().saturating_sub(1));
        self.purged.extend(self.members.drain(..count));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::format::header::{Link, tests::sample};

    /// `(sequence, base, epoch, incarnation, previous (base, incarnation), first)`
    pub(in crate::recovery) type Row = (u64, u64, u64, u64, Option<(u64, u64)>, u64);

    pub(in crate::recovery) fn members(rows: &[Row]) -> Vec<Member> {
        let member = |&(sequence, base, epoch, incarnation, previous, first): &Row| Member {
            sequence: Sequence(sequence),
            bytes: 1 << 20,
            header: SegmentHeader {
                sequence,
                base: Lsn::new(base),
                epoch,
                incarnation,
                previous: previous
                    .map(|(base, incarnation)| Link { base: Lsn::new(base), incarnation }),
                first: Lsn::new(first),
                synced: Lsn::ZERO,
                ..sample()
            },
        };
        rows.iter().map(member).collect()
    }

    /// Returns the sequences of the members and of the obsolete segments, and the gap's base.
    fn outcome(rows: &[Row]) -> (Vec<u64>, Vec<u64>, Option<u64>) {
        let chain = link_up(&members(rows), Lsn::ZERO);
        let sequences = |of: &[Member]| of.iter().map(|member| member.sequence.0).collect();
        let gap = chain.gap.map(|gap| gap.base.as_u64());
        (sequences(&chain.members), sequences(&chain.obsolete), gap)
    }

    #[test]
    fn link_up_table() {
        let one: Row = (1, 0, 1, 11, None, 0);
        let two: Row = (2, 100, 1, 12, Some((0, 11)), 0);
        let three: Row = (4, 200, 1, 14, Some((100, 12)), 0);
        assert_eq!(outcome(&[]), (vec![], vec![], None));
        assert_eq!(outcome(&[one]), (vec![1], vec![], None), "a log of one segment");
        assert_eq!(outcome(&[one, two, three]), (vec![1, 2, 4], vec![], None), "a gap in names");
        assert_eq!(outcome(&[one, three]).2, Some(100), "one in the middle is missing");
        assert_eq!(outcome(&[two, three]).2, Some(0), "the oldest is missing");
        let copied: Row = (3, 100, 1, 12, Some((0, 11)), 0);
        assert!(outcome(&[one, two, copied]).2.is_some(), "a segment exists twice");
        let begun_at_100: Row = (4, 200, 1, 14, Some((100, 12)), 100);
        assert_eq!(outcome(&[two, begun_at_100]), (vec![2, 4], vec![], None), "a purged beginning");
        assert_eq!(outcome(&[one, two, begun_at_100]).2, None, "a removal that was interrupted");
    }

    #[test]
    fn cut_makes_replaced_segments_obsolete() {
        let one: Row = (1, 0, 1, 11, None, 0);
        let two: Row = (2, 100, 1, 12, Some((0, 11)), 0);
        let three: Row = (3, 200, 1, 13, Some((100, 12)), 0);
        let cut_at_150: Row = (4, 150, 2, 14, Some((100, 12)), 0);
        assert_eq!(outcome(&[one, two, three, cut_at_150]), (vec![1, 2, 4], vec![3], None));
        let cut_at_0: Row = (4, 0, 2, 14, None, 0);
        assert_eq!(outcome(&[one, two, three, cut_at_0]), (vec![4], vec![3, 2, 1], None));
    }

    #[test]
    fn segment_of_another_log_is_no_member() {
        let mut rows = members(&[
            (1, 0, 1, 11, None, 0),
            (2, 100, 1, 12, Some((0, 11)), 0),
            (3, 200, 1, 13, Some((100, 12)), 0),
        ]);
        rows[1].header.log_id = [0xff; 16];
        let gap = link_up(&rows, Lsn::ZERO).gap;
        assert_eq!(gap, Some(MissingSegment { base: Lsn::new(100), is_foreign: true }));
    }
}
