//! The log of a node as replication sees it: epochs, records, the synced mark, the common point.
//!
//! One record takes one LSN. A record's bytes are its epoch and its id, because a frame is sealed
//! for its epoch: the same payload has other bytes in another epoch.

/// An epoch. The derived order is the order of the numbers in segment headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Epoch {
    /// The number of promotions.
    pub(crate) term: u8,
    /// Random. Two promotions to the same term have different tags.
    pub(crate) tag: u8,
    /// The number of cuts, by a recovery or a truncation, since the promotion.
    pub(crate) cuts: u8,
}

impl Epoch {
    /// Returns whether both were begun by different promotions to the same term.
    pub(crate) fn is_rival_of(self, other: Self) -> bool {
        self.term == other.term && self.tag != other.tag
    }
}

/// The frame of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) epoch: Epoch,
    pub(crate) id: u8,
}

/// The log of a node. `synced <= records.len()`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    /// The epochs and their first LSNs, in order.
    pub(crate) history: Vec<(Epoch, usize)>,
    pub(crate) records: Vec<Record>,
    pub(crate) synced: usize,
}

impl Log {
    /// Returns an empty log in `epoch`.
    pub(crate) fn begun(epoch: Epoch) -> Self {
        Self { history: vec![(epoch, 0)], ..Self::default() }
    }

    pub(crate) fn end(&self) -> usize {
        self.records.len()
    }

    /// Returns the newest epoch.
    pub(crate) fn epoch(&self) -> Epoch {
        self.history.last().map_or(Epoch::default(), |(epoch, _)| *epoch)
    }

    /// Returns the epoch of the last record, and the end.
    pub(crate) fn position(&self) -> (Epoch, usize) {
        (self.records.last().map_or(Epoch::default(), |record| record.epoch), self.end())
    }

    pub(crate) fn push(&mut self, id: u8) {
        self.records.push(Record { epoch: self.epoch(), id });
    }

    /// Begins `epoch` at `base`, as a recovery does: the records from there on are framed again.
    pub(crate) fn begin(&mut self, epoch: Epoch, base: usize) {
        self.history.retain(|(_, older)| *older < base);
        self.history.push((epoch, base));
        for record in self.records.iter_mut().skip(base) {
            record.epoch = epoch;
        }
    }

    /// Drops everything at or above `end`, with the epochs that begin there.
    pub(crate) fn cut(&mut self, end: usize) {
        self.records.truncate(end);
        self.synced = self.synced.min(end);
        self.history.retain(|(_, base)| *base < end);
    }

    /// Makes the log the same as `other` up to `end`, and syncs it.
    pub(crate) fn copy_from(&mut self, other: &Log, end: usize) {
        // The header of an epoch follows the last record before it.
        let begun = other.history.iter().filter(|(_, base)| *base <= end);
        self.history = begun.copied().collect();
        self.records = other.records.iter().copied().take(end).collect();
        self.synced = end;
    }

    /// Returns whether the record at `lsn` is synced and has this id.
    pub(crate) fn holds(&self, lsn: usize, id: u8) -> bool {
        lsn < self.synced && self.records.get(lsn).is_some_and(|record| record.id == id)
    }

    /// Returns whether each record is of the epoch that the history gives its place.
    ///
    /// A frame of another epoch does not hold there, so an opening would end before it.
    pub(crate) fn is_sound(&self) -> bool {
        self.records.iter().enumerate().all(|(lsn, record)| {
            let epoch = self.history.iter().rfind(|(_, base)| *base <= lsn);
            epoch.is_some_and(|(epoch, _)| *epoch == record.epoch)
        })
    }

    /// Returns the end of the part in the first `count` epochs.
    fn end_of(&self, count: usize) -> usize {
        self.history.get(count).map_or(self.end(), |(_, base)| *base)
    }
}

/// Returns the position up to which two logs are the same, by their histories.
///
/// The logs share the first epochs that both have with the same base. In the last of these, each
/// log ends at its next epoch or at its end. Logs that share no epoch share nothing. A node whose
/// log begins above the common point must refuse; here all logs begin at 0.
pub(crate) fn common_point(a: &Log, b: &Log) -> usize {
    let shared = a.history.iter().zip(&b.history).take_while(|(a, b)| a == b).count();
    if shared == 0 { 0 } else { a.end_of(shared).min(b.end_of(shared)) }
}

/// Returns whether two logs have the same bytes below their common point.
///
/// If not, they have diverged and no handshake detects it.
pub(crate) fn agree(a: &Log, b: &Log) -> bool {
    let common = common_point(a, b);
    a.records.iter().zip(&b.records).take(common).all(|(a, b)| a == b)
}

#[test]
fn common_point_ends_at_the_first_difference() {
    let first = Epoch { term: 1, ..Epoch::default() };
    let recovered = Epoch { cuts: 1, ..first };
    let promoted = Epoch { term: 2, tag: 1, cuts: 0 };
    let mut leader = Log::begun(first);
    (0..4).for_each(|id| leader.push(id));
    let mut follower = leader.clone();
    assert_eq!(common_point(&leader, &follower), 4, "equal logs");
    follower.cut(3);
    assert_eq!(common_point(&leader, &follower), 3, "a shorter one");
    let mut other = follower.clone();
    follower.begin(promoted, 3);
    follower.push(9);
    assert_eq!(common_point(&leader, &follower), 3, "a promotion");
    other.begin(recovered, 2);
    assert!(other.is_sound());
    assert_eq!(common_point(&other, &follower), 2, "a recovery and a promotion");
    assert!(agree(&other, &follower) && agree(&leader, &other));
    assert_eq!(common_point(&Log::begun(recovered), &Log::begun(promoted)), 0, "no shared epoch");
}
