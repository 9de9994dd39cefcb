//! The beginning of the log: where it is, what holds it back, and the removal of what lies before.
//!
//! A truncation is a control record like any other frame: ordered, written and synced with the rest.
//! The first LSN moves before the synced mark passes that record, so a segment header that begins
//! later (which takes `synced`, then `first`) always tells of every truncation below its `synced`;
//! recovery learns those above it from the records themselves. Files are removed only when the
//! record is durable, oldest first, a few at a time: nobody waits for it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tokio::sync::SemaphorePermit;

use crate::{
    error::{Error, Result},
    format::control::Control,
    lsn::Lsn,
    pipeline::{
        core::{Core, FIRST_FRAME_BYTES},
        epochs::Goal,
        job::Job,
    },
    sabotage::{self, Sabotage},
    segments::{SegmentInfo, Sequence},
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
};

/// After so many files a job hands over to a new one, so that it never holds up a flush for long.
const REMOVALS_PER_JOB: usize = 8;

/// Where the log begins.
#[derive(Debug)]
pub(crate) struct Purge {
    first: AtomicU64,
    /// What the newest segment's header tells.
    known_first: AtomicU64,
    /// One truncation at a time. Held across its waits.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// The end of the first of `ordered`; `u64::MAX` for none. Spares flushes the lock.
    awaited: AtomicU64,
    removed_count: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Truncations that aren't known to be durable: the end of the control record, and the LSN.
    ordered: VecDeque<(Lsn, Lsn)>,
    /// What lies below may be removed, if no lease holds it.
    durable_first: Lsn,
    /// How many leases there are from a position on.
    leases: BTreeMap<Lsn, usize>,
    /// Segments that a cut took out of the log.
    dead: VecDeque<Sequence>,
    is_removing: bool,
    /// Whether a truncation has used the room that records leave, since there was space last.
    used_reserve: bool,
}

impl Purge {
    /// A log that begins at `first`, of which the newest header says that it is `known_first`.
    pub(crate) fn new(first: Lsn, known_first: Lsn) -> Self {
        let state = State { durable_first: first, ..State::default() };
        Purge {
            first: AtomicU64::new(first.as_u64()),
            known_first: AtomicU64::new(known_first.as_u64()),
            turn: tokio::sync::Mutex::new(()),
            state: Mutex::new(state),
            awaited: AtomicU64::new(u64::MAX),
            removed_count: AtomicU64::new(0),
        }
    }

    pub(crate) fn first(&self) -> Lsn {
        Lsn::new(self.first.load(Ordering::Acquire))
    }

    /// Whether no header tells where the log begins.
    pub(super) fn is_untold(&self) -> bool {
        self.first() > Lsn::new(self.known_first.load(Ordering::Acquire))
    }

    /// A header that tells `first` was written.
    pub(super) fn told(&self, first: Lsn) {
        self.known_first.store(first.as_u64(), Ordering::Release);
    }

    /// The oldest position that can be read: the first, or what a lease holds before it.
    pub(crate) fn readable_first(&self) -> Lsn {
        let leased = self.state().leases.keys().next().copied();
        leased.map_or(self.first(), |leased| leased.min(self.first()))
    }

    pub(crate) fn removed_count(&self) -> u64 {
        self.removed_count.load(Ordering::Relaxed)
    }

    pub(crate) fn lease_count(&self) -> u64 {
        self.state().leases.values().map(|&count| count as u64).sum()
    }

    /// No user code and no I/O runs under this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn publish_awaited(&self, state: &State) {
        let awaited = state.ordered.front().map_or(u64::MAX, |(end, _)| end.as_u64());
        self.awaited.store(awaited, Ordering::Release);
    }

    /// Below this, files may go.
    fn horizon(state: &State) -> Lsn {
        let leased = state.leases.keys().next().copied().unwrap_or(state.durable_first);
        leased.min(state.durable_first)
    }
}

impl Core {
    /// For a new segment's header: `synced`, and a first LSN that no truncation below it is missing
    /// from and that is not above it.
    pub(super) fn synced_and_first(&self) -> (Lsn, Lsn) {
        loop {
            let synced = self.synced.get();
            let first = self.purge.first();
            // It moved in between: what it moved to was synced before that.
            if first <= synced {
                return (synced, first);
            }
        }
    }

    /// Has the log begin at `lsn`, which in `epoch` was a boundary, written and not above the end.
    /// Resolves when that is durable.
    pub(crate) async fn begin_at(self: &Arc<Self>, lsn: Lsn, epoch: u64) -> Result<()> {
        let _turn = self.purge.turn.lock().await;
        if lsn <= self.purge.first() {
            // Asked for before, and perhaps not durable yet.
            let awaited = || self.purge.state().ordered.back().map(|(end, _)| *end);
            let goal = self.goal(|| awaited().unwrap_or(Lsn::ZERO));
            return self.wait_told(goal).await;
        }
        // A log never begins above what is durable of it.
        self.wait_synced(Goal { end: lsn, epoch }).await?;
        let permit = self.acquire(FIRST_FRAME_BYTES).await?;
        self.room_for_first().await?;
        self.status.check_new()?;
        // While we hold a permit nothing is cut.
        self.epochs.check(Goal { end: lsn, epoch })?;
        let goal = self.order_first(permit, lsn);
        self.wait_told(goal).await
    }

    /// Reserves and publishes the record that tells of the beginning. Nothing waits, and the
    /// truncation goes on by itself.
    fn order_first(self: &Arc<Self>, permit: SemaphorePermit<'_>, lsn: Lsn) -> Goal {
        permit.forget();
        let reserved = self.ring.reserve(FIRST_FRAME_BYTES);
        let end = reserved.end();
        let goal = Goal { end, epoch: self.epochs.current() };
        // Before the record can be written, and so before the synced mark passes it.
        self.purge.first.fetch_max(lsn.as_u64(), Ordering::AcqRel);
        {
            let mut state = self.purge.state();
            state.ordered.push_back((end, lsn));
            self.purge.publish_awaited(&state);
        }
        self.publish_control(reserved, Control::First(lsn));
        if sabotage::is_on(Sabotage::RemoveBeforeFlush) {
            self.carry_out_truncations(|| end);
        }
        self.publish_marks();
        goal
    }

    /// Waits until a record that tells of the beginning is durable. If it was cut, the header of
    /// the segment that begins there tells.
    async fn wait_told(self: &Arc<Self>, goal: Goal) -> Result<()> {
        match self.wait_synced(goal).await {
            Err(Error::Truncated { .. }) => Ok(()),
            answer => answer,
        }
    }

    /// A log without space can be truncated once in the room that records leave.
    async fn room_for_first(self: &Arc<Self>) -> Result<()> {
        match self.wait_for_room(None).await {
            Ok(()) => {
                self.purge.state().used_reserve = false;
                Ok(())
            }
            Err(full @ Error::NoSpace { .. }) => {
                let mut state = self.purge.state();
                if std::mem::replace(&mut state.used_reserve, true) { Err(full) } else { Ok(()) }
            }
            Err(error) => Err(error),
        }
    }

    /// A flush has moved the synced mark: what it made durable of truncations is carried out.
    pub(super) fn carry_out_truncations(self: &Arc<Self>, synced: impl Fn() -> Lsn) {
        if self.purge.awaited.load(Ordering::Acquire) > synced().as_u64() {
            return;
        }
        {
            let mut state = self.purge.state();
            // Under the lock: what stands here is of the epoch whose mark is read, as a cut takes
            // all of it away before it moves the mark back.
            let synced = synced();
            let durable = state.ordered.partition_point(|(end, _)| *end <= synced);
            let lsn = state.ordered.drain(..durable).next_back().map_or(Lsn::ZERO, |(_, lsn)| lsn);
            state.durable_first = state.durable_first.max(lsn);
            self.purge.publish_awaited(&state);
        }
        self.remove_segments();
    }

    /// A header that is durable tells where the log begins, whatever was noted before.
    pub(super) fn truncations_are_told(&self) {
        let mut state = self.purge.state();
        state.ordered.clear();
        state.durable_first = self.purge.first();
        self.purge.publish_awaited(&state);
    }

    /// Segments that were taken out of the log wait for whoever removes others.
    pub(super) fn leave_to_removal(&self, dead: Vec<SegmentInfo>) {
        self.purge.state().dead.extend(dead.into_iter().map(|info| info.sequence));
    }

    /// Has the segments removed that nobody needs, by a job, unless one is at it.
    pub(super) fn remove_segments(self: &Arc<Self>) {
        let mut state = self.purge.state();
        let is_wanted = !state.dead.is_empty() || self.segments.has_below(Purge::horizon(&state));
        if is_wanted && !std::mem::replace(&mut state.is_removing, true) {
            drop(state);
            Job::new(Arc::clone(self), Core::remove_job).spawn();
        }
    }

    fn remove_job(self: &Arc<Self>) {
        for _ in 0..REMOVALS_PER_JOB {
            let oldest = {
                let mut state = self.purge.state();
                let oldest = match state.dead.pop_front() {
                    None => self.segments.take_below(Purge::horizon(&state)),
                    dead => dead,
                };
                state.is_removing = oldest.is_some();
                oldest
            };
            let Some(oldest) = oldest else { return };
            let name = oldest.file_name();
            match self.storage.remove(&name) {
                Ok(()) => {
                    tracing::debug!(segment = name, "removed: it is no part of the log any more");
                    self.purge.removed_count.fetch_add(1, Ordering::Relaxed);
                }
                // What stays is removed by the next opening.
                Err(error) => tracing::warn!(segment = name, %error, "can't be removed for now"),
            }
        }
        Job::new(Arc::clone(self), Core::remove_job).spawn();
    }

    /// Keeps what stands from `lsn` on readable until it is released.
    pub(crate) fn lease(self: &Arc<Self>, lsn: Lsn) -> Result<()> {
        self.status.check_read()?;
        let end = self.records_end();
        let mut state = self.purge.state();
        let leased = state.leases.keys().next().copied();
        let first = leased.map_or(self.purge.first(), |leased| leased.min(self.purge.first()));
        if lsn < first || lsn > end {
            return Err(Error::OutOfRange { lsn, first, end });
        }
        *state.leases.entry(lsn).or_default() += 1;
        Ok(())
    }

    /// As [`lease`](Core::lease), for who holds one on the same position or before: it can't fail.
    pub(crate) fn lease_further(&self, lsn: Lsn) {
        *self.purge.state().leases.entry(lsn).or_default() += 1;
    }

    /// Keeps all that is durable now until it is released; says where that begins, as it tells
    /// itself, and where it ends.
    pub(crate) fn lease_durable(&self) -> Result<(Lsn, Lsn)> {
        self.status.check_read()?;
        let mut state = self.purge.state();
        let end = self.synced.get();
        // Truncations whose records lie below the end, carried out or not.
        let ordered = state.ordered.iter().filter(|(record_end, _)| *record_end <= end);
        let told = ordered.map(|(_, lsn)| *lsn).max().unwrap_or(Lsn::ZERO);
        let first = state.durable_first.max(told);
        *state.leases.entry(first).or_default() += 1;
        Ok((first, end))
    }

    pub(crate) fn release_lease(self: &Arc<Self>, lsn: Lsn) {
        {
            let mut state = self.purge.state();
            if let Some(count) = state.leases.get_mut(&lsn) {
                *count -= 1;
                if *count == 0 {
                    state.leases.remove(&lsn);
                }
            }
        }
        if self.status.check().is_ok() {
            self.remove_segments();
        }
    }
}
