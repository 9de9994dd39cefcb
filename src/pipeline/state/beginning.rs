//! The beginning of the log: its position, what holds it back, and the files to remove.
//!
//! A truncation is a control record like any other frame: ordered, written and synced with the
//! rest. `first` moves before the synced mark passes that record. A later rotation reads `synced`,
//! then `first`. So the new segment's header names every truncation below its `synced`, and
//! recovery learns later ones from the records themselves. Files are removed only when the record
//! is durable, oldest first, a few at a time.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    error::{Error, Result},
    lsn::{AtomicLsn, AtomicOptionLsn, Lsn, Start},
    pipeline::state::{holds::Holds, slots::Settled},
    segments::{SegmentInfo, Sequence},
    sync::{AtomicU64, LockAlways, Mutex, MutexGuard, Ordering},
};

/// The log's first position, and the removal of the segments before it.
#[derive(Debug)]
pub(crate) struct Beginning {
    first: AtomicLsn,
    /// The `first` in the latest segment header.
    recorded_first: AtomicLsn,
    state: Mutex<BeginningState>,
    /// The end of the oldest record in `ordered`. Flushes read it without the lock.
    awaited: AtomicOptionLsn,
    removed_count: AtomicU64,
    /// The base of the next segment, by the last record of each segment that this process ended.
    /// Keeps one segment that ends at or before `first`, and all later ones.
    ends: Mutex<BTreeMap<Lsn, Lsn>>,
}

#[derive(Debug, Default)]
struct BeginningState {
    /// Truncations not known to be durable: the end of the control record, and the new first LSN.
    ordered: VecDeque<(Lsn, Lsn)>,
    /// Segments below this position may be removed, if nothing holds them.
    durable_first: Lsn,
    holds: Holds,
    /// Segments that a truncation of the end took out of the log.
    dropped: VecDeque<Sequence>,
    is_removing: bool,
    /// The end of the truncation that used the space kept for control records. `None` again once a
    /// truncation finds space, or the log continues in another segment.
    reserve_used_at: Option<Lsn>,
}

impl BeginningState {
    /// Returns the position below which files may be removed.
    fn horizon(&self) -> Lsn {
        self.holds.horizon(self.durable_first)
    }

    /// Returns the oldest readable position of a log that begins at `first`.
    fn readable_first(&self, first: Lsn) -> Lsn {
        self.holds.oldest_lease().map_or(first, |leased| leased.min(first))
    }
}

/// The next file for a removal job.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Removal {
    /// A segment that a truncation of the end dropped. A reader may still use it, so its file is
    /// never recycled.
    Dropped(Sequence),
    /// The oldest segment of the log, and its end.
    Oldest(SegmentInfo, Lsn),
}

/// Whether a truncation passes slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passing {
    /// Only a slot that gives way because it is too far behind.
    NoSlot,
    /// Any slot: it is lost.
    Slots,
}

/// The result of moving `first`.
pub(crate) enum Moved<R> {
    Now(R),
    /// Another truncation has moved it as far.
    Before,
    /// A slot that was made meanwhile is in the way.
    Held,
}

impl Beginning {
    /// Returns the beginning of a log at `first`. `recorded_first` is the value in its latest
    /// header. `reserve_used_at` is the log's end if an earlier process used the space kept for
    /// control records.
    pub(crate) fn new(first: Lsn, recorded_first: Lsn, reserve_used_at: Option<Lsn>) -> Self {
        let state =
            BeginningState { durable_first: first, reserve_used_at, ..BeginningState::default() };
        Beginning {
            first: AtomicLsn::new(first),
            recorded_first: AtomicLsn::new(recorded_first),
            state: Mutex::new(state),
            awaited: AtomicOptionLsn::new(None),
            removed_count: AtomicU64::new(0),
            ends: Mutex::default(),
        }
    }

    pub(crate) fn first(&self) -> Lsn {
        self.first.load(Ordering::Acquire)
    }

    /// Returns the oldest readable position: `first`, or a leased position before it.
    pub(crate) fn readable_first(&self) -> Lsn {
        self.state().readable_first(self.first())
    }

    /// No user code and no I/O runs under this lock.
    fn state(&self) -> MutexGuard<'_, BeginningState> {
        self.state.lock_always()
    }

    fn publish_awaited(&self, state: &BeginningState) {
        self.awaited.store(state.ordered.front().map(|(end, _)| *end), Ordering::Release);
    }

    // The ends of records, for readers that continue after the last record that they saw.

    /// Notes that a segment whose last record is at `last` is followed by one with this `base`.
    pub(crate) fn note_end(&self, last: Option<Lsn>, base: Lsn) {
        let first = self.first();
        let mut ends = self.ends.lock_always();
        while ends.values().nth(1).is_some_and(|&base| base <= first) {
            ends.pop_first();
        }
        ends.extend(last.map(|last| (last, base)));
    }

    /// Returns whether the last record before `base` is known.
    pub(crate) fn knows_end(&self, base: Lsn) -> bool {
        self.ends.lock_always().values().any(|&end| end == base)
    }

    /// Notes that no record is in the segment from `base` to `end`.
    pub(crate) fn note_empty(&self, base: Lsn, end: Lsn) {
        let mut ends = self.ends.lock_always();
        ends.values_mut().filter(|behind| **behind == base).for_each(|behind| *behind = end);
    }

    /// Forgets records at `cut` and later, whose positions are used again.
    pub(crate) fn forget_ends(&self, cut: Lsn) {
        self.ends.lock_always().retain(|last, _| *last < cut);
    }

    /// Returns the end of the segment whose last record a consumer has seen, if this process ended
    /// that segment.
    pub(crate) fn base_behind(&self, start: Start) -> Option<Lsn> {
        let ends = self.ends.lock_always();
        match start {
            Start::After(seen) => ends.get(&seen).copied(),
            // The position is behind the last record, among records of the log itself.
            Start::At(position) => {
                let (_, base) = ends.range(..position).next_back()?;
                (position <= *base).then_some(*base)
            }
        }
    }

    // The value in segment headers.

    /// Returns whether `first` is newer than the value in the latest segment header.
    pub(crate) fn first_is_unrecorded(&self) -> bool {
        self.first() > self.recorded_first.load(Ordering::Acquire)
    }

    /// Notes that the header of a segment at `base` was written, with `first`.
    pub(crate) fn first_recorded(&self, first: Lsn, base: Lsn) {
        self.recorded_first.store(first, Ordering::Release);
        let mut state = self.state();
        // The new segment keeps such space again.
        state.reserve_used_at = state.reserve_used_at.filter(|end| *end > base);
    }

    /// Notes that a durable header names `first`, so that no earlier truncation is awaited.
    pub(crate) fn first_is_durable(&self) {
        let mut state = self.state();
        state.ordered.clear();
        state.durable_first = self.first();
        // The header is that of a segment without any other record.
        state.reserve_used_at = None;
        self.publish_awaited(&state);
    }

    // Truncations.

    /// Moves `first` to `lsn`, and reserves the truncation record by `reserve`. The records of
    /// concurrent truncations are in the order of their positions. `reserve` returns the end of the
    /// record; it must not wait. `synced` is the synced mark.
    ///
    /// # Errors
    ///
    /// `full`, the reason why the log has no space, if a truncation has used the space kept for
    /// control records since. That space is enough for one truncation.
    pub(crate) fn move_first<R>(
        &self,
        (lsn, passing): (Lsn, Passing),
        full: Option<Error>,
        synced: Lsn,
        reserve: impl FnOnce() -> (R, Lsn),
    ) -> Result<Moved<R>> {
        let mut state = self.state();
        if lsn <= self.first() {
            return Ok(Moved::Before);
        }
        let slot = || state.holds.oldest_slot(self.first(), synced);
        if passing == Passing::NoSlot && slot().is_some_and(|(_, held)| held < lsn) {
            return Ok(Moved::Held);
        }
        let is_full = match full {
            Some(full) if state.reserve_used_at.is_some() => return Err(full),
            full => full.is_some(),
        };
        let (reserved, end) = reserve();
        state.reserve_used_at = is_full.then_some(end);
        // Before the record can be written, and so before the synced mark passes it.
        self.first.fetch_max(lsn, Ordering::AcqRel);
        state.ordered.push_back((end, lsn));
        self.publish_awaited(&state);
        Ok(Moved::Now(reserved))
    }

    /// Returns the end of the newest truncation record that is not known to be durable.
    pub(crate) fn last_ordered_end(&self) -> Option<Lsn> {
        self.state().ordered.back().map(|(end, _)| *end)
    }

    /// Returns whether the synced mark has passed a truncation record. Costs a load.
    pub(crate) fn is_awaited(&self, synced: Lsn) -> bool {
        self.awaited.load(Ordering::Acquire).is_some_and(|end| end <= synced)
    }

    /// Applies the truncations whose records are durable.
    pub(crate) fn apply_durable(&self, synced: impl FnOnce() -> Lsn) {
        let mut state = self.state();
        // Read under the lock. A truncation of the end clears `ordered` before it moves the mark
        // back, so the records here are of the mark's epoch.
        let synced = synced();
        let durable = state.ordered.partition_point(|(end, _)| *end <= synced);
        let lsn = state.ordered.drain(..durable).next_back().map_or(Lsn::ZERO, |(_, lsn)| lsn);
        state.durable_first = state.durable_first.max(lsn);
        self.publish_awaited(&state);
    }

    // Removal.

    /// Queues segments for the removal job, after a truncation of the end dropped them.
    pub(crate) fn add_dropped(&self, dropped: impl Iterator<Item = Sequence>) {
        self.state().dropped.extend(dropped);
    }

    /// Returns whether the caller has to start the removal job. `has_below` returns whether the log
    /// has a segment that ends at or below a position.
    pub(crate) fn claim_removal(&self, has_below: impl FnOnce(Lsn) -> bool) -> bool {
        let mut state = self.state();
        let is_wanted = !state.dropped.is_empty() || has_below(state.horizon());
        is_wanted && !std::mem::replace(&mut state.is_removing, true)
    }

    /// Returns the next file to remove. `None` ends the job. `take_below` takes the oldest segment
    /// out of the log if it ends at or below a position.
    pub(crate) fn next_removal(
        &self,
        take_below: impl FnOnce(Lsn) -> Option<(SegmentInfo, Lsn)>,
    ) -> Option<Removal> {
        let mut state = self.state();
        let removal = match state.dropped.pop_front() {
            Some(dropped) => Some(Removal::Dropped(dropped)),
            None => take_below(state.horizon()).map(|(info, end)| Removal::Oldest(info, end)),
        };
        state.is_removing = removal.is_some();
        removal
    }

    pub(crate) fn note_removed(&self) {
        self.removed_count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn removed_count(&self) -> u64 {
        self.removed_count.load(Ordering::Relaxed)
    }

    // Leases and slots.

    /// Keeps the log from `lsn` on readable until the lease is released.
    ///
    /// # Errors
    ///
    /// `BelowFirst` or `AboveEnd` if `lsn` is below the oldest readable position or above `end`.
    pub(crate) fn lease(&self, lsn: Lsn, end: Lsn) -> Result<()> {
        let mut state = self.state();
        let first = state.readable_first(self.first());
        if lsn < first || lsn > end {
            return Err(Error::outside(lsn, first, end));
        }
        state.holds.add_lease(lsn);
        Ok(())
    }

    /// As [`lease`](Beginning::lease), for a holder of a lease at `lsn` or before. It can't fail.
    pub(crate) fn lease_further(&self, lsn: Lsn) {
        self.state().holds.add_lease(lsn);
    }

    /// Leases everything that is durable, and keeps the files that opening it reads. Returns its
    /// beginning, its end, and the position from which on files are kept.
    pub(crate) fn lease_durable(&self, synced: impl FnOnce() -> Lsn) -> (Lsn, Lsn, Lsn) {
        let mut state = self.state();
        let end = synced();
        // Truncations whose records are below the end, applied or not.
        let ordered = state.ordered.iter().filter(|(record_end, _)| *record_end <= end);
        let truncated_to = ordered.map(|(_, lsn)| *lsn).max().unwrap_or(Lsn::ZERO);
        let first = state.durable_first.max(truncated_to);
        let from = state.holds.floor().map_or(first, |floor| floor.min(first));
        state.holds.add_lease(first);
        state.holds.add_pin(from);
        (first, end, from)
    }

    pub(crate) fn release_lease(&self, lsn: Lsn) {
        self.state().holds.remove_lease(lsn);
    }

    pub(crate) fn release_pin(&self, lsn: Lsn) {
        self.state().holds.remove_pin(lsn);
    }

    pub(crate) fn lease_count(&self) -> u64 {
        self.state().holds.lease_count()
    }

    /// Returns the oldest leased position, and the beginning of the durable log.
    pub(crate) fn oldest_lease(&self) -> Option<(Lsn, Lsn)> {
        let state = self.state();
        state.holds.oldest_lease().map(|oldest| (oldest, state.durable_first))
    }

    /// Has a new slot hold back truncations.
    ///
    /// # Errors
    ///
    /// `BelowFirst` or `AboveEnd` if `lsn` is below `first` or above `end`.
    pub(crate) fn hold_slot(&self, id: u32, lsn: Lsn, end: Lsn) -> Result<()> {
        let mut state = self.state();
        let first = self.first();
        if lsn < first || lsn > end {
            return Err(Error::outside(lsn, first, end));
        }
        state.holds.set_slot(id, lsn);
        Ok(())
    }

    /// Changes what slots hold, without a check.
    pub(crate) fn change_holds(&self, change: impl FnOnce(&mut Holds)) {
        change(&mut self.state().holds);
    }

    /// Has truncations and removals see the durable state of the slots.
    pub(crate) fn settle_slots(&self, settled: Settled) {
        self.change_holds(|holds| {
            for (id, position) in settled.moved {
                holds.set_slot(id, position);
            }
            settled.removed.into_iter().for_each(|id| holds.remove_slot(id));
            if let Some(floor) = settled.floor {
                holds.set_floor(floor);
            }
        });
    }

    /// Returns the positions between which only slots records hold segments, which the next
    /// segment's header replaces.
    pub(crate) fn held_by_slots_records(&self) -> (Lsn, Lsn) {
        let state = self.state();
        (state.horizon(), state.holds.horizon_without_floor(state.durable_first))
    }

    /// Returns the lowest position of a lease, or of a slot that truncations must not pass.
    pub(crate) fn lowest_hold(&self, synced: Lsn) -> Option<Lsn> {
        let state = self.state();
        let slot = state.holds.oldest_slot(self.first(), synced).map(|(_, position)| position);
        [slot, state.holds.oldest_lease()].into_iter().flatten().min()
    }

    /// Returns the lowest slot that truncations must not pass.
    pub(crate) fn oldest_slot(&self, synced: Lsn) -> Option<(u32, Lsn)> {
        self.state().holds.oldest_slot(self.first(), synced)
    }
}
