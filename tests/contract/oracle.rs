//! The oracle: the requests to a log, its results, and the states that a crash may leave.

use std::collections::{BTreeMap, BTreeSet};

use highwater::Lsn;

use super::{Found, copies::Copy, frame_bytes_min, retained_bytes, slots::SlotNotes};

/// The time of a note: the number of disk operations, and of notes, by then.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    pub(super) operation: u64,
    pub(super) note: u64,
}

/// A record whose position is known.
#[derive(Clone)]
struct Placed {
    lsn: Lsn,
    payload: Vec<u8>,
    began: Moment,
    noted: Moment,
}

/// A note that everything below `end` was acknowledged.
#[derive(Clone)]
struct Acknowledged {
    end: Lsn,
    began: Moment,
    noted: Moment,
}

/// A truncation of the beginning or of the end.
#[derive(Clone)]
struct Truncation {
    /// The new beginning, or the new end.
    to: Lsn,
    requested: Moment,
    returned: Option<Moment>,
    /// The time when its future was dropped. A record that began later is before or after the
    /// truncation.
    dropped: Option<Moment>,
    /// The call failed without a change.
    is_refused: bool,
    /// True if the truncated records must be gone. After a reopening they may be gone or not.
    is_certain: bool,
}

impl Truncation {
    /// Returns whether it may have affected a record that began at `began`, by operation `at`.
    fn may_concern(&self, began: Moment, at: u64) -> bool {
        let is_before = |moment: Moment| moment.note < began.note;
        let came_before = self.returned.is_some_and(is_before);
        !self.is_refused && self.requested.operation <= at && !came_before
    }

    /// Returns whether it must have affected a record noted at `noted`, by operation `at`.
    fn has_taken(&self, noted: Moment, at: u64) -> bool {
        let is_over = self.returned.is_some_and(|returned| returned.operation <= at);
        self.is_certain && !self.is_refused && is_over && noted.note < self.requested.note
    }
}

#[derive(Clone, Default)]
pub(crate) struct Oracle {
    notes: u64,
    placed: Vec<Placed>,
    /// Indexes into `placed` by position. Positions are reused after a truncation.
    at: BTreeMap<Lsn, Vec<usize>>,
    pub(crate) attempted: BTreeSet<Vec<u8>>,
    pub(crate) attempted_batches: Vec<Vec<Vec<u8>>>,
    /// Acknowledgements of synced records.
    synced: Vec<Acknowledged>,
    /// Observed synced marks, which are ends of flushed groups, with the operation of the
    /// observation.
    group_ends: Vec<(Lsn, u64)>,
    /// Acknowledgements of written records.
    written: Vec<Acknowledged>,
    firsts: Vec<Truncation>,
    cuts: Vec<Truncation>,
    /// The operations after which a `close` returned.
    pub(crate) closed: Vec<u64>,
    /// True if the disk lies. Then a recovery may take an acknowledged group for a torn tail, if
    /// nothing that survived commits to it.
    pub(crate) is_lied_to: bool,
    /// The copies that were begun.
    pub(crate) copies: Vec<Copy>,
    pub(crate) slots: SlotNotes,
    /// Contradictory results, such as one position for two records.
    pub(crate) contradictions: Vec<String>,
}

impl Oracle {
    /// Returns the oracle of a log that was just opened: all of it counts as synced.
    pub(crate) fn recovered(found: Found, end: Lsn) -> Self {
        let mut oracle = Oracle::default();
        let began = oracle.now(0);
        for (lsn, payload) in found {
            oracle.place(lsn, &payload, began, 0);
        }
        oracle.synced(end, began, 0);
        oracle.saw_synced_mark(end, 0);
        oracle
    }

    /// Notes that the synced mark was `mark`: a flushed group ends there.
    pub(crate) fn saw_synced_mark(&mut self, mark: Lsn, operation: u64) {
        self.group_ends.push((mark, operation));
    }

    /// Drops the groups, because a full disk has no space for claims.
    pub(crate) fn forget_groups(&mut self) {
        self.group_ends.clear();
        self.slots.closed.clear();
    }

    /// Checks that the disk claims all flushed groups except the last one.
    pub(crate) fn check_claims(&self, committed: Lsn, at: u64) -> Result<(), String> {
        // Reused positions belong to other groups.
        if self.is_lied_to || self.cuts.iter().any(|cut| !cut.is_refused) {
            return Ok(());
        }
        let by_then = self.group_ends.iter().filter(|(_, operation)| *operation <= at);
        let ends: BTreeSet<Lsn> = by_then.map(|(end, _)| *end).collect();
        match ends.iter().rev().nth(1) {
            Some(end) if *end > committed => Err(format!(
                "two flushed groups are unclaimed: one ends at {end}, the claims at {committed}"
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn now(&mut self, operation: u64) -> Moment {
        self.notes += 1;
        Moment { operation, note: self.notes }
    }

    pub(crate) fn place(&mut self, lsn: Lsn, payload: &[u8], began: Moment, operation: u64) {
        let noted = self.now(operation);
        let others = self.at.get(&lsn).into_iter().flatten().map(|&index| &self.placed[index]);
        let mut still = others.filter(|other| !self.may_be_cut(other.lsn, other.began, u64::MAX));
        if still.any(|other| other.payload != payload) {
            self.contradictions.push(format!("{lsn} was given to two records"));
        }
        self.at.entry(lsn).or_default().push(self.placed.len());
        self.placed.push(Placed { lsn, payload: payload.to_vec(), began, noted });
    }

    pub(crate) fn synced(&mut self, end: Lsn, began: Moment, operation: u64) {
        let noted = self.now(operation);
        self.synced.push(Acknowledged { end, began, noted });
    }

    pub(crate) fn wrote(&mut self, end: Lsn, began: Moment, operation: u64) {
        let noted = self.now(operation);
        self.written.push(Acknowledged { end, began, noted });
    }

    /// Returns whether `found` is exactly the placed records. Ignores truncations.
    pub(crate) fn holds_exactly(&self, found: &Found) -> bool {
        let placed: BTreeMap<Lsn, &Vec<u8>> =
            self.placed.iter().map(|placed| (placed.lsn, &placed.payload)).collect();
        found.iter().map(|(lsn, payload)| (*lsn, payload)).eq(placed)
    }

    /// Returns one of the remaining records and the end of its frame, or a lower bound of it.
    pub(crate) fn pick(&self, pick: usize) -> Option<(Lsn, Lsn)> {
        let there: Vec<&Placed> = self
            .placed
            .iter()
            .filter(|placed| !self.may_be_cut(placed.lsn, placed.began, u64::MAX))
            .collect();
        let placed = there.get(pick % there.len().max(1))?;
        Some((placed.lsn, Lsn::new(placed.lsn.as_u64() + frame_bytes_min(&placed.payload))))
    }

    /// Returns the newest of the remaining records, and the end of its frame.
    pub(crate) fn newest(&self) -> Option<(Lsn, Lsn)> {
        let there = self.placed.iter().filter(|it| !self.may_be_cut(it.lsn, it.began, u64::MAX));
        let newest = there.max_by_key(|placed| placed.lsn)?;
        Some((newest.lsn, Lsn::new(newest.lsn.as_u64() + frame_bytes_min(&newest.payload))))
    }

    fn truncation(&mut self, to: Lsn, operation: u64) -> Truncation {
        let requested = self.now(operation);
        Truncation {
            to,
            requested,
            returned: None,
            dropped: None,
            is_refused: false,
            is_certain: true,
        }
    }

    /// Notes that `truncate_before(lsn)` was called. Returns the index for its result.
    pub(crate) fn begin_truncate_before(&mut self, lsn: Lsn, operation: u64) -> usize {
        let requested = self.truncation(lsn, operation);
        self.firsts.push(requested);
        self.firsts.len() - 1
    }

    /// Notes that `truncate_after` was called: the log will end at `to`, or later if that is
    /// unknown.
    pub(crate) fn begin_truncate_after(&mut self, to: Lsn, operation: u64) -> usize {
        let requested = self.truncation(to, operation);
        self.cuts.push(requested);
        self.cuts.len() - 1
    }

    /// Notes the result of `truncate_before`: the new beginning, or `None` without a change.
    pub(crate) fn end_truncate_before(&mut self, index: usize, first: Option<Lsn>, operation: u64) {
        let now = self.now(operation);
        let truncation = &mut self.firsts[index];
        truncation.returned = Some(now);
        truncation.is_refused = first.is_none();
        // A slot may have kept the beginning below the requested position.
        truncation.to = first.map_or(truncation.to, |first| first.min(truncation.to));
    }

    /// Checks the slots of a log that was opened after operation `at`.
    pub(crate) fn check_slots(
        &self,
        found: &[highwater::SlotInfo],
        first: Lsn,
        at: u64,
    ) -> Result<(), String> {
        if self.is_lied_to {
            return Ok(());
        }
        let cut_below = |began: Moment| {
            let cuts = self.cuts.iter().filter(|cut| cut.may_concern(began, at));
            cuts.map(|cut| cut.to).min()
        };
        self.slots.check(found, first, at, cut_below)
    }

    /// Notes the result of `truncate_after`: the new end, or `None` without a change.
    pub(crate) fn end_truncate_after(&mut self, index: usize, to: Option<Lsn>, operation: u64) {
        let now = self.now(operation);
        let cut = &mut self.cuts[index];
        cut.returned = Some(now);
        match to {
            Some(to) => cut.to = to,
            None => cut.is_refused = true,
        }
    }

    /// Notes that the future of a truncation was dropped.
    pub(crate) fn drop_truncate_after(&mut self, index: usize, operation: u64) {
        let now = self.now(operation);
        let cut = &mut self.cuts[index];
        if cut.returned.is_none() {
            cut.dropped = Some(now);
        }
    }

    /// Notes that the log was reopened on the same boot and ends at `end`. Records without any
    /// acknowledgement are gone, and their positions are free.
    pub(crate) fn opened(&mut self, end: Lsn, operation: u64) {
        let acknowledged = self.acknowledged(u64::MAX, true);
        if end < acknowledged && !self.is_lied_to {
            let what = format!("reopened with end {end}, but acknowledged up to {acknowledged}");
            self.contradictions.push(what);
        }
        let cut = self.truncation(end, operation);
        let returned = Some(cut.requested);
        for pending in self.cuts.iter_mut().filter(|pending| pending.returned.is_none()) {
            // It took effect before the reopening, or never.
            *pending = Truncation { returned, is_certain: false, ..pending.clone() };
        }
        self.cuts.push(Truncation { returned, is_certain: false, ..cut });
    }

    /// Returns whether a record at `lsn` since `began` may have been truncated by operation `at`.
    fn may_be_cut(&self, lsn: Lsn, began: Moment, at: u64) -> bool {
        // A lying disk may have lost the truncation, and the records after it.
        let is_lost = |cut: &Truncation| self.is_lied_to && cut.is_certain && !cut.is_refused;
        // The truncation's job holds all permits when its future is dropped, or there is no job.
        let is_behind = |cut: &Truncation| cut.dropped.is_some_and(|it| it.note < began.note);
        let mut cuts = self.cuts.iter().filter(|cut| cut.to <= lsn);
        cuts.any(|cut| (cut.may_concern(began, at) && !is_behind(cut)) || is_lost(cut))
    }

    /// Returns whether any record must be there after operation `at`.
    pub(crate) fn demands(&self, at: u64, process_only: bool) -> bool {
        self.acknowledged(at, process_only) > Lsn::ZERO
    }

    /// Returns whether the record may have got its position only after a truncation that was
    /// requested after its append began and after operation `at`: an append that waits for space
    /// lets truncations go first.
    fn may_be_ordered_later(&self, placed: &Placed, at: u64) -> bool {
        let between = placed.began.note..placed.noted.note;
        let mut cuts = self.cuts.iter().filter(|cut| !cut.is_refused && cut.to <= placed.lsn);
        at < placed.noted.operation && cuts.any(|cut| between.contains(&cut.requested.note))
    }

    /// Returns the end up to which records were acknowledged by operation `at`.
    fn acknowledged(&self, at: u64, process_only: bool) -> Lsn {
        let written = if process_only { self.written.as_slice() } else { &[] };
        let by_then = self.synced.iter().chain(written).filter(|it| it.noted.operation <= at);
        let still = by_then.filter(|it| {
            let mut cuts = self.cuts.iter();
            !cuts.any(|cut| cut.to < it.end && cut.may_concern(it.began, at))
        });
        still.map(|it| it.end).max().unwrap_or(Lsn::ZERO)
    }

    /// Checks whether `found`, a log from `first` to `end`, may be left after operation `at`: by a
    /// power cut, or only by the end of the process.
    pub(crate) fn check(
        &self,
        found: &Found,
        (begins_at, end): (Lsn, Lsn),
        at: u64,
        process_only: bool,
    ) -> Result<(), String> {
        if let Some(what) = self.contradictions.first() {
            return Err(what.clone());
        }
        let acknowledged = self.acknowledged(at, process_only);
        if end < acknowledged {
            return Err(format!("ends at {end}, acknowledged up to {acknowledged}"));
        }
        self.check_records(found, at)?;
        let returned = |it: &&Truncation| it.returned.is_some_and(|when| when.operation <= at);
        let first = self.firsts.iter().filter(|it| !it.is_refused).filter(returned);
        let first = first.map(|it| it.to).max().unwrap_or(Lsn::ZERO);
        if let Some((lsn, _)) = found.first().filter(|(lsn, _)| *lsn < first) {
            return Err(format!("{lsn} is back, but the log was truncated before {first}"));
        }
        // Beyond the last record, recovery may have written marks where lost records were.
        let whole_below = found.last().map_or(acknowledged, |(lsn, _)| acknowledged.max(*lsn));
        let dropped_to = self.check_retention(begins_at, end, at)?;
        match self.first_missing(found, (dropped_to, whole_below), at) {
            Some(gone) => Err(format!(
                "{gone} is missing: the log ends at {end}, acknowledged up to {acknowledged}"
            )),
            None => self.check_batches(found),
        }
    }

    /// Checks that the log has not dropped more by itself than its retention permits. Returns the
    /// position below which it may have dropped records.
    fn check_retention(&self, begins_at: Lsn, end: Lsn, at: u64) -> Result<Lsn, String> {
        let Some(bytes) = retained_bytes() else { return Ok(Lsn::ZERO) };
        let is_cut = self.cuts.iter().any(|cut| !cut.is_refused);
        let kept = end.as_u64() - begins_at.as_u64();
        if begins_at > self.requested_first(at) && kept < bytes && !is_cut {
            return Err(format!("only {kept} bytes are kept, from {begins_at} to {end}"));
        }
        Ok(begins_at)
    }

    /// Returns the highest position to which a truncation was requested by operation `at`.
    fn requested_first(&self, at: u64) -> Lsn {
        let requested =
            self.firsts.iter().filter(|it| !it.is_refused && it.requested.operation <= at);
        requested.map(|it| it.to).max().unwrap_or(Lsn::ZERO)
    }

    /// Returns the first record below `end` that a copy begun at `began` must have but lacks.
    pub(crate) fn first_missing_of_copy(
        &self,
        found: &Found,
        end: Lsn,
        began: Moment,
    ) -> Option<Lsn> {
        // Records truncated since may be in the copy; records appended after the truncation are
        // not.
        let is_older = |placed: &Placed| placed.began.note < began.note;
        self.first_missing_of(found, (Lsn::ZERO, end), u64::MAX, is_older)
    }

    /// Returns the first record from `first` to `end` that must be there after operation `at`, but
    /// is missing.
    fn first_missing(&self, found: &Found, between: (Lsn, Lsn), at: u64) -> Option<Lsn> {
        self.first_missing_of(found, between, at, |_| true)
    }

    fn first_missing_of(
        &self,
        found: &Found,
        (first, end): (Lsn, Lsn),
        at: u64,
        counts: impl Fn(&Placed) -> bool,
    ) -> Option<Lsn> {
        let lsns: BTreeSet<Lsn> = found.iter().map(|(lsn, _)| *lsn).collect();
        let first = first.max(self.requested_first(at));
        let expected = self.at.range(first.min(end)..end).flat_map(|(_, there)| there);
        let mut expected = expected.map(|&index| &self.placed[index]).filter(|placed| {
            placed.began.operation <= at
                && counts(placed)
                && !self.may_be_ordered_later(placed, at)
                && !self.may_be_cut(placed.lsn, placed.began, at)
        });
        expected.find(|placed| !lsns.contains(&placed.lsn)).map(|placed| placed.lsn)
    }

    /// Checks that each record of `found` was appended, and that none below `committed` is missing.
    /// A lying disk cannot promise more.
    pub(crate) fn check_genuine(&self, found: &Found, committed: Lsn) -> Result<(), String> {
        self.check_records(found, u64::MAX)?;
        match self.first_missing(found, (Lsn::ZERO, committed), u64::MAX) {
            Some(gone) => {
                Err(format!("{gone} is lost without an error, committed up to {committed}"))
            }
            None => Ok(()),
        }
    }

    /// Checks that no record is foreign, duplicate, overlapping, or truncated by operation `at`.
    pub(crate) fn check_records(&self, found: &Found, at: u64) -> Result<(), String> {
        for window in found.windows(2) {
            let after = window[0].0.as_u64() + frame_bytes_min(&window[0].1);
            if window[1].0.as_u64() < after {
                return Err(format!("{} overlaps {}", window[1].0, window[0].0));
            }
        }
        let mut seen = BTreeMap::new();
        for (lsn, payload) in found {
            let there = self.at.get(lsn).into_iter().flatten().map(|&index| &self.placed[index]);
            let there: Vec<&Placed> = there.collect();
            let alike = there.iter().filter(|placed| placed.payload == *payload);
            let takers = alike.map(|placed| {
                let taken = |cut: &&Truncation| cut.to <= *lsn && cut.has_taken(placed.noted, at);
                self.cuts.iter().find(taken).filter(|_| !self.is_lied_to)
            });
            // An empty record may have been truncated, and another one appended at its position.
            match takers.min_by_key(Option::is_some) {
                Some(Some(cut)) => {
                    return Err(format!("{lsn} is back, but the log was truncated at {}", cut.to));
                }
                Some(None) => {}
                None if there.iter().any(|placed| {
                    placed.began.operation <= at && !self.may_be_cut(*lsn, placed.began, at)
                }) =>
                {
                    return Err(format!("other bytes at {lsn}"));
                }
                None if self.attempted.contains(payload) => {}
                None => return Err(format!("never appended: {} bytes at {lsn}", payload.len())),
            }
            // Payloads shorter than an id may be equal.
            let before = (payload.len() >= 8).then(|| seen.insert(payload, lsn)).flatten();
            if let Some(before) = before {
                return Err(format!("{lsn} is a second copy of {before}"));
            }
        }
        Ok(())
    }

    fn check_batches(&self, found: &Found) -> Result<(), String> {
        let payloads: BTreeSet<&Vec<u8>> = found.iter().map(|(_, payload)| payload).collect();
        for batch in &self.attempted_batches {
            let there = batch.iter().filter(|part| payloads.contains(part)).count();
            if there != 0 && there != batch.len() {
                return Err(format!("{there} records of a batch of {}", batch.len()));
            }
        }
        Ok(())
    }
}
