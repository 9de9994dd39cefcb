//! Which of the segments found make the log: the chain of headers, walked back from the newest.
//!
//! Pure. Each header names the one before it by base and incarnation, so a segment that is
//! missing, foreign or older than a cut is seen.

use crate::{
    format::{
        frame::Seed,
        header::{SEGMENT_HEADER_BYTES, SegmentHeader},
    },
    lsn::Lsn,
    segments::{SegmentInfo, Sequence},
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
    /// One past the last LSN that the file has room for. A file that was made longer since is taken
    /// as it was.
    pub(crate) fn file_end(&self) -> Lsn {
        let bytes = self.bytes.min(self.header.file_bytes);
        self.header.base.plus(bytes.saturating_sub(SEGMENT_HEADER_BYTES))
    }

    /// What it takes to find and read it.
    pub(crate) fn info(&self) -> SegmentInfo {
        SegmentInfo {
            sequence: self.sequence,
            base: self.header.base,
            incarnation: self.header.incarnation,
            epoch: self.header.epoch,
            seed: Seed::new(self.header.log_id, self.header.epoch),
        }
    }

    /// Whether the file is shorter than it was when its header was written: its length was durable
    /// before that, so no crash does it.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.bytes < self.header.file_bytes
    }
}

/// What the headers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The log, oldest first.
    pub(crate) members: Vec<Member>,
    /// Where the log begins.
    pub(crate) first: Lsn,
    /// Segments that lie before the beginning: a removal was interrupted.
    pub(crate) purged: Vec<Member>,
    /// Segments that a cut, or a removal, had done away with.
    pub(crate) dead: Vec<Member>,
    /// The newest members name a predecessor that isn't there: they hang in the air.
    pub(crate) broken: Option<Broken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Where the missing segment begins.
    pub(crate) base: Lsn,
    /// A segment of another log stands in its place.
    pub(crate) is_foreign: bool,
}

/// Walks back from the newest of `found`, which is in the order of the sequence. The log begins at
/// `first` or later: what control records tell, where headers don't know it yet.
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
            chain.dead.push(*candidate);
        }
    }
    chain.members.reverse();
    let missing = oldest.header.previous.filter(|_| oldest.header.base > chain.first);
    // A dead segment is one that a later epoch replaced, or that lies below the first LSN. Any
    // other that isn't linked shows that the chain is broken.
    let unexplained = chain.dead.iter().find(|dead| {
        let replaced = chain.members.iter().any(|member| {
            member.header.epoch > dead.header.epoch && member.header.base <= dead.header.base
        });
        !replaced && dead.header.base >= chain.first
    });
    chain.broken = match (missing, unexplained) {
        (Some(link), _) => Some(Broken { base: link.base, is_foreign }),
        (None, Some(dead)) => Some(Broken { base: dead.header.base, is_foreign }),
        (None, None) if is_foreign => Some(Broken { base: chain.first, is_foreign }),
        (None, None) => None,
    };
    chain
}

impl Chain {
    /// Whether a dead segment was dropped because a user asked for that, and not by a recovery, as
    /// far as the members still tell.
    pub(crate) fn is_truncated(&self, dead: &SegmentHeader) -> bool {
        let replaces =
            |header: &&SegmentHeader| header.epoch > dead.epoch && header.base <= dead.base;
        let later = self.members.iter().map(|member| &member.header).filter(replaces);
        later.min_by_key(|header| header.epoch).is_some_and(|header| header.by_truncation)
    }

    /// The log begins at `first`: members that end there or before are none any more.
    pub(crate) fn begin_at(&mut self, first: Lsn) {
        self.first = self.first.max(first);
        let begins_later =
            |pair: &[Member]| pair.last().is_some_and(|next| next.header.base > self.first);
        let purged = self.members.windows(2).position(begins_later);
        let count = purged.unwrap_or(self.members.len().saturating_sub(1));
        self.purged.extend(self.members.drain(..count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::header::{Link, tests::sample};

    /// `(sequence, base, epoch, incarnation, previous (base, incarnation), first)`
    type Row = (u64, u64, u64, u64, Option<(u64, u64)>, u64);

    fn members(rows: &[Row]) -> Vec<Member> {
        let member = |&(sequence, base, epoch, incarnation, previous, first): &Row| Member {
            sequence: Sequence(sequence),
            bytes: 1 << 20,
            header: SegmentHeader {
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

    /// The members' sequences, the dead ones' and where the chain is broken.
    fn outcome(rows: &[Row]) -> (Vec<u64>, Vec<u64>, Option<u64>) {
        let chain = link_up(&members(rows), Lsn::ZERO);
        let sequences = |of: &[Member]| of.iter().map(|member| member.sequence.0).collect();
        let broken = chain.broken.map(|broken| broken.base.as_u64());
        (sequences(&chain.members), sequences(&chain.dead), broken)
    }

    #[test]
    fn named_directories() {
        let one: Row = (1, 0, 1, 11, None, 0);
        let two: Row = (2, 100, 1, 12, Some((0, 11)), 0);
        let three: Row = (4, 200, 1, 14, Some((100, 12)), 0);
        assert_eq!(outcome(&[]), (vec![], vec![], None));
        assert_eq!(outcome(&[one]), (vec![1], vec![], None), "a log of one segment");
        assert_eq!(outcome(&[one, two, three]), (vec![1, 2, 4], vec![], None), "a gap in names");
        assert_eq!(outcome(&[one, three]).2, Some(100), "one in the middle is missing");
        assert_eq!(outcome(&[two, three]).2, Some(0), "the oldest is missing");
        let copied: Row = (3, 100, 1, 12, Some((0, 11)), 0);
        assert!(outcome(&[one, two, copied]).2.is_some(), "a segment stands there twice");
        let begun_at_100: Row = (4, 200, 1, 14, Some((100, 12)), 100);
        assert_eq!(outcome(&[two, begun_at_100]), (vec![2, 4], vec![], None), "a purged beginning");
        assert_eq!(outcome(&[one, two, begun_at_100]).2, None, "a removal that was interrupted");
    }

    #[test]
    fn a_cut_does_away_with_what_it_replaced() {
        let one: Row = (1, 0, 1, 11, None, 0);
        let two: Row = (2, 100, 1, 12, Some((0, 11)), 0);
        let three: Row = (3, 200, 1, 13, Some((100, 12)), 0);
        let cut_at_150: Row = (4, 150, 2, 14, Some((100, 12)), 0);
        assert_eq!(outcome(&[one, two, three, cut_at_150]), (vec![1, 2, 4], vec![3], None));
        let cut_at_0: Row = (4, 0, 2, 14, None, 0);
        assert_eq!(outcome(&[one, two, three, cut_at_0]), (vec![4], vec![3, 2, 1], None));
    }

    #[test]
    fn a_segment_of_another_log_is_never_taken() {
        let mut rows = members(&[
            (1, 0, 1, 11, None, 0),
            (2, 100, 1, 12, Some((0, 11)), 0),
            (3, 200, 1, 13, Some((100, 12)), 0),
        ]);
        rows[1].header.log_id = [0xff; 16];
        let broken = link_up(&rows, Lsn::ZERO).broken;
        assert_eq!(broken, Some(Broken { base: Lsn::new(100), is_foreign: true }));
    }
}
