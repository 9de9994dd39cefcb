//! What was asked of a log and what it answered, and whether a log may be what is left of it.

use std::collections::{BTreeMap, BTreeSet};

use highwater::Lsn;

use super::{Found, frame_bytes_min};

/// Each answer with the count of disk operations by then.
#[derive(Clone, Default)]
pub(crate) struct Oracle {
    /// Records whose place is known.
    pub(crate) placed: BTreeMap<Lsn, Vec<u8>>,
    pub(crate) attempted: BTreeSet<Vec<u8>>,
    pub(crate) attempted_batches: Vec<Vec<Vec<u8>>>,
    /// `(operation count, exclusive end)`: everything below is on stable storage.
    pub(crate) synced: Vec<(u64, Lsn)>,
    /// The same for what is with the operating system.
    pub(crate) written: Vec<(u64, Lsn)>,
    /// `(operation count, first)`: truncations of the beginning, when they were asked for.
    pub(crate) asked_first: Vec<(u64, Lsn)>,
    /// The same, when they were answered.
    pub(crate) first: Vec<(u64, Lsn)>,
    /// After which operation a close was answered.
    pub(crate) closed: Vec<u64>,
    /// Whether what a recovery cuts is gone, by all rights: on a medium that lies it may take an
    /// acknowledged group for a torn tail if nothing that survived commits it.
    pub(crate) believes_recovery: bool,
    /// Places that were answered twice, or beside each other.
    pub(crate) contradictions: Vec<String>,
}

impl Oracle {
    /// A log that recovery has just opened: all of it counts as synced.
    pub(crate) fn recovered(found: Found, end: Lsn) -> Self {
        Oracle { placed: found.into_iter().collect(), synced: vec![(0, end)], ..Default::default() }
    }

    pub(crate) fn place(&mut self, lsn: Lsn, payload: &[u8]) {
        if let Some(other) = self.placed.insert(lsn, payload.to_vec()) {
            if other != payload {
                self.contradictions.push(format!("{lsn} was given to two records"));
            }
        }
    }

    /// The log was opened again on the same boot, and ends here. What was only ordered when it had
    /// stopped is gone, and its place is free; what was acknowledged in any way is not.
    pub(crate) fn opened(&mut self, end: Lsn) {
        let acknowledged = self.acknowledged(u64::MAX, true);
        if end < acknowledged && !self.believes_recovery {
            let what = format!("reopened, ends at {end}, acknowledged up to {acknowledged}");
            self.contradictions.push(what);
        }
        self.placed.split_off(&end);
    }

    /// Up to where the log has to reach, by what it answered until operation `at`.
    fn acknowledged(&self, at: u64, process_only: bool) -> Lsn {
        let written = if process_only { self.written.as_slice() } else { &[] };
        let all = self.synced.iter().chain(written);
        all.filter(|(when, _)| *when <= at).map(|(_, end)| *end).max().unwrap_or(Lsn::ZERO)
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
        self.check_records(found)?;
        let highest = |of: &[(u64, Lsn)]| {
            let by_then = of.iter().filter(|(when, _)| *when <= at).map(|(_, lsn)| *lsn);
            by_then.max().unwrap_or(Lsn::ZERO)
        };
        let (first, asked_first) = (highest(&self.first), highest(&self.asked_first));
        if let Some((lsn, _)) = found.first().filter(|(lsn, _)| *lsn < first) {
            return Err(format!("{lsn} is back: the log was to begin at {first}"));
        }
        let lsns: BTreeSet<Lsn> = found.iter().map(|(lsn, _)| *lsn).collect();
        // Past the last record there may be marks of a recovery, where lost records had been.
        let whole_below = found.last().map_or(acknowledged, |(lsn, _)| acknowledged.max(*lsn));
        let mut expected = self.placed.range(asked_first.min(whole_below)..whole_below);
        if let Some((gone, _)) = expected.find(|(lsn, _)| !lsns.contains(lsn)) {
            return Err(format!(
                "{gone} is missing: ends at {end}, acknowledged up to {acknowledged}"
            ));
        }
        self.check_batches(found)
    }

    /// Whether all of `found` was appended, and all that was appended below `committed` is there:
    /// all that can be asked of a medium that lies.
    pub(crate) fn check_genuine(&self, found: &Found, committed: Lsn) -> Result<(), String> {
        self.check_records(found)?;
        let lsns: BTreeSet<Lsn> = found.iter().map(|(lsn, _)| *lsn).collect();
        let first = self.asked_first.iter().map(|(_, lsn)| *lsn).max().unwrap_or(Lsn::ZERO);
        match self
            .placed
            .range(first.min(committed)..committed)
            .find(|(lsn, _)| !lsns.contains(lsn))
        {
            Some((gone, _)) => Err(format!("{gone} is lost in silence, committed to {committed}")),
            None => Ok(()),
        }
    }

    /// Nothing that was never appended, nothing twice, nothing over something else.
    fn check_records(&self, found: &Found) -> Result<(), String> {
        for window in found.windows(2) {
            let after = window[0].0.as_u64() + frame_bytes_min(&window[0].1);
            if window[1].0.as_u64() < after {
                return Err(format!("{} overlaps {}", window[1].0, window[0].0));
            }
        }
        let mut seen = BTreeMap::new();
        for (lsn, payload) in found {
            match self.placed.get(lsn) {
                Some(expected) if expected == payload => {}
                Some(_) => return Err(format!("other bytes at {lsn}")),
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
