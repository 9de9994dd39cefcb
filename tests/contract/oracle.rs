//! What was asked of a log and what it answered, and whether a log may be what is left of it.

use std::collections::{BTreeMap, BTreeSet};

use highwater::Lsn;

use super::{Found, copies::Copy, frame_bytes_min};

/// When something was noted: the count of disk operations by then, and of notes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    operation: u64,
    note: u64,
}

/// A record whose place is known.
#[derive(Clone)]
struct Placed {
    lsn: Lsn,
    payload: Vec<u8>,
    began: Moment,
    noted: Moment,
}

/// Everything below `end` was acknowledged.
#[derive(Clone)]
struct Acknowledged {
    end: Lsn,
    began: Moment,
    noted: Moment,
}

/// A truncation, of the beginning or of the end.
#[derive(Clone)]
struct Truncation {
    /// Where the log begins, or ends.
    to: Lsn,
    asked: Moment,
    answered: Option<Moment>,
    /// When its future was dropped: what began later came before it, or behind it.
    dropped: Option<Moment>,
    /// Nothing was changed: it was told so.
    is_refused: bool,
    /// What an opening found cut is gone or not; what was truncated on request must be.
    is_certain: bool,
}

impl Truncation {
    /// Whether it may have had its effect after operation `at`, on what began then.
    fn may_concern(&self, began: Moment, at: u64) -> bool {
        let is_before = |moment: Moment| moment.note < began.note;
        let came_before = self.answered.is_some_and(is_before);
        !self.is_refused && self.asked.operation <= at && !came_before
    }

    /// Whether it had its effect by operation `at`, on what was answered then.
    fn has_taken(&self, noted: Moment, at: u64) -> bool {
        let is_over = self.answered.is_some_and(|answered| answered.operation <= at);
        self.is_certain && !self.is_refused && is_over && noted.note < self.asked.note
    }
}

#[derive(Clone, Default)]
pub(crate) struct Oracle {
    notes: u64,
    placed: Vec<Placed>,
    /// The same by place. Positions are used again after a cut.
    at: BTreeMap<Lsn, Vec<usize>>,
    pub(crate) attempted: BTreeSet<Vec<u8>>,
    pub(crate) attempted_batches: Vec<Vec<Vec<u8>>>,
    /// What is on stable storage.
    synced: Vec<Acknowledged>,
    /// What is with the operating system.
    written: Vec<Acknowledged>,
    firsts: Vec<Truncation>,
    cuts: Vec<Truncation>,
    /// After which operation a close was answered.
    pub(crate) closed: Vec<u64>,
    /// Whether the medium lies. Then what a recovery cuts is gone, by all rights: it may take an
    /// acknowledged group for a torn tail if nothing that survived commits it.
    pub(crate) is_lied_to: bool,
    /// Copies that were asked for.
    pub(crate) copies: Vec<Copy>,
    /// Places that were answered twice, or beside each other.
    pub(crate) contradictions: Vec<String>,
}

impl Oracle {
    /// A log that recovery has just opened: all of it counts as synced.
    pub(crate) fn recovered(found: Found, end: Lsn) -> Self {
        let mut oracle = Oracle::default();
        let began = oracle.now(0);
        for (lsn, payload) in found {
            oracle.place(lsn, &payload, began, 0);
        }
        oracle.synced(end, began, 0);
        oracle
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

    /// The records that should be there, if nothing was cut.
    pub(crate) fn holds_exactly(&self, found: &Found) -> bool {
        let placed: BTreeMap<Lsn, &Vec<u8>> =
            self.placed.iter().map(|placed| (placed.lsn, &placed.payload)).collect();
        found.iter().map(|(lsn, payload)| (*lsn, payload)).eq(placed)
    }

    /// One of the records that should be there, and the end of its frame, or what it is at least.
    pub(crate) fn pick(&self, pick: usize) -> Option<(Lsn, Lsn)> {
        let there: Vec<&Placed> = self
            .placed
            .iter()
            .filter(|placed| !self.may_be_cut(placed.lsn, placed.began, u64::MAX))
            .collect();
        let placed = there.get(pick % there.len().max(1))?;
        Some((placed.lsn, Lsn::new(placed.lsn.as_u64() + frame_bytes_min(&placed.payload))))
    }

    /// The newest of the records that should be there, and the end of its frame.
    pub(crate) fn newest(&self) -> Option<(Lsn, Lsn)> {
        let there = self.placed.iter().filter(|it| !self.may_be_cut(it.lsn, it.began, u64::MAX));
        let newest = there.max_by_key(|placed| placed.lsn)?;
        Some((newest.lsn, Lsn::new(newest.lsn.as_u64() + frame_bytes_min(&newest.payload))))
    }

    fn truncation(&mut self, to: Lsn, operation: u64) -> Truncation {
        let asked = self.now(operation);
        Truncation { to, asked, answered: None, dropped: None, is_refused: false, is_certain: true }
    }

    /// The log is to begin at `lsn`. Gives what is answered with.
    pub(crate) fn ask_first(&mut self, lsn: Lsn, operation: u64) -> usize {
        let asked = self.truncation(lsn, operation);
        self.firsts.push(asked);
        self.firsts.len() - 1
    }

    /// The log is to end at `to` or, if that isn't known, somewhere behind.
    pub(crate) fn ask_cut(&mut self, to: Lsn, operation: u64) -> usize {
        let asked = self.truncation(to, operation);
        self.cuts.push(asked);
        self.cuts.len() - 1
    }

    pub(crate) fn answer_first(&mut self, index: usize, is_done: bool, operation: u64) {
        let now = self.now(operation);
        self.firsts[index].answered = Some(now);
        self.firsts[index].is_refused = !is_done;
    }

    /// `to`: where the log ends now; `None` if nothing was changed.
    pub(crate) fn answer_cut(&mut self, index: usize, to: Option<Lsn>, operation: u64) {
        let now = self.now(operation);
        let cut = &mut self.cuts[index];
        cut.answered = Some(now);
        match to {
            Some(to) => cut.to = to,
            None => cut.is_refused = true,
        }
    }

    /// Nobody waits for its answer any more.
    pub(crate) fn drop_cut(&mut self, index: usize, operation: u64) {
        let now = self.now(operation);
        let cut = &mut self.cuts[index];
        if cut.answered.is_none() {
            cut.dropped = Some(now);
        }
    }

    /// The log was opened again on the same boot, and ends here. What was only ordered when it had
    /// stopped is gone, and its place is free; what was acknowledged in any way is not.
    pub(crate) fn opened(&mut self, end: Lsn, operation: u64) {
        let acknowledged = self.acknowledged(u64::MAX, true);
        if end < acknowledged && !self.is_lied_to {
            let what = format!("reopened, ends at {end}, acknowledged up to {acknowledged}");
            self.contradictions.push(what);
        }
        let cut = self.truncation(end, operation);
        let answered = Some(cut.asked);
        for pending in self.cuts.iter_mut().filter(|pending| pending.answered.is_none()) {
            // What it did, it has done.
            *pending = Truncation { answered, is_certain: false, ..pending.clone() };
        }
        self.cuts.push(Truncation { answered, is_certain: false, ..cut });
    }

    /// Whether what stood at `lsn` since `began` may have been cut by operation `at`.
    fn may_be_cut(&self, lsn: Lsn, began: Moment, at: u64) -> bool {
        // A medium that lies may have lost the cut itself, and what stood behind it.
        let is_lost = |cut: &Truncation| self.is_lied_to && cut.is_certain && !cut.is_refused;
        // Its job holds all permits from before the drop on, or there is none.
        let is_behind = |cut: &Truncation| cut.dropped.is_some_and(|it| it.note < began.note);
        let mut cuts = self.cuts.iter().filter(|cut| cut.to <= lsn);
        cuts.any(|cut| (cut.may_concern(began, at) && !is_behind(cut)) || is_lost(cut))
    }

    /// Up to where the log has to reach, by what it answered until operation `at`.
    fn acknowledged(&self, at: u64, process_only: bool) -> Lsn {
        let written = if process_only { self.written.as_slice() } else { &[] };
        let by_then = self.synced.iter().chain(written).filter(|it| it.noted.operation <= at);
        let still = by_then.filter(|it| {
            let mut cuts = self.cuts.iter();
            !cuts.any(|cut| cut.to < it.end && cut.may_concern(it.began, at))
        });
        still.map(|it| it.end).max().unwrap_or(Lsn::ZERO)
    }

    /// Whether `found`, a log that ends at `end`, is what may be left after operation `at`: by a
    /// loss of power, or by the end of the process only.
    pub(crate) fn check(
        &self,
        found: &Found,
        end: Lsn,
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
        let answered = |it: &&Truncation| it.answered.is_some_and(|when| when.operation <= at);
        let first = self.firsts.iter().filter(|it| !it.is_refused).filter(answered);
        let first = first.map(|it| it.to).max().unwrap_or(Lsn::ZERO);
        if let Some((lsn, _)) = found.first().filter(|(lsn, _)| *lsn < first) {
            return Err(format!("{lsn} is back: the log was to begin at {first}"));
        }
        // Past the last record there may be marks of a recovery, where lost records had been.
        let whole_below = found.last().map_or(acknowledged, |(lsn, _)| acknowledged.max(*lsn));
        match self.first_missing(found, whole_below, at) {
            Some(gone) => {
                Err(format!("{gone} is missing: ends at {end}, acknowledged up to {acknowledged}"))
            }
            None => self.check_batches(found),
        }
    }

    /// The first record below `end` that should be in a copy that was asked for at `began`, and isn't.
    pub(crate) fn first_missing_of_copy(
        &self,
        found: &Found,
        end: Lsn,
        began: Moment,
    ) -> Option<Lsn> {
        // What a cut has taken since may be in it or not, and what came behind that isn't.
        let is_older = |placed: &Placed| placed.began.note < began.note;
        self.first_missing_of(found, end, u64::MAX, is_older)
    }

    /// The first record below `end` that should be there after operation `at` and isn't.
    fn first_missing(&self, found: &Found, end: Lsn, at: u64) -> Option<Lsn> {
        self.first_missing_of(found, end, at, |_| true)
    }

    fn first_missing_of(
        &self,
        found: &Found,
        end: Lsn,
        at: u64,
        counts: impl Fn(&Placed) -> bool,
    ) -> Option<Lsn> {
        let lsns: BTreeSet<Lsn> = found.iter().map(|(lsn, _)| *lsn).collect();
        let asked = self.firsts.iter().filter(|it| !it.is_refused && it.asked.operation <= at);
        let first = asked.map(|it| it.to).max().unwrap_or(Lsn::ZERO);
        let expected = self.at.range(first.min(end)..end).flat_map(|(_, there)| there);
        let mut expected = expected.map(|&index| &self.placed[index]).filter(|placed| {
            placed.began.operation <= at
                && counts(placed)
                && !self.may_be_cut(placed.lsn, placed.began, at)
        });
        expected.find(|placed| !lsns.contains(&placed.lsn)).map(|placed| placed.lsn)
    }

    /// Whether all of `found` was appended, and all that was appended below `committed` is there:
    /// all that can be asked of a medium that lies.
    pub(crate) fn check_genuine(&self, found: &Found, committed: Lsn) -> Result<(), String> {
        self.check_records(found, u64::MAX)?;
        match self.first_missing(found, committed, u64::MAX) {
            Some(gone) => Err(format!("{gone} is lost in silence, committed to {committed}")),
            None => Ok(()),
        }
    }

    /// Nothing that was never appended, nothing twice, nothing over something else, and nothing that
    /// was truncated by operation `at`.
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
            // An empty record may have been cut, and another one appended in its place.
            match takers.min_by_key(Option::is_some) {
                Some(Some(cut)) => {
                    return Err(format!("{lsn} is back: the log was cut at {}", cut.to));
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
            // Shorter ones may be alike.
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
                return Err(format!("{there} of a batch of {}", batch.len()));
            }
        }
        Ok(())
    }
}
