//! What goes on in the background: state records, the beginning of the log, and the entries that would
//! hold it back for ever. Never on a caller's task.
//!
//! The log begins at the segment that holds the oldest live entry or the state record that the newest
//! durable header names, whichever is older; so opening always finds that state record, and what
//! follows it. A purge is a record of the stream, and the record by which the log's beginning moves
//! stands behind it: no file goes before the purge is durable.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{
    error::{Error, Result},
    lsn::Lsn,
    pipeline::Core,
    raft::{
        checkpoint::Packer,
        group::RaftGroup,
        index::Place,
        log::{Group, Store},
        record::{Change, EntriesHead, Kind, Record},
        task::Background,
    },
    sabotage::{self, Sabotage},
};

/// A state record is written in parts of about this size, or a quarter of the ring.
const PART_BYTES: u64 = 32 << 10;

/// Of what is written at most one part in so many is state.
const STATE_SHARE: u64 = 8;

/// So much is copied before it is looked again at what is alive.
const COPY_BYTES: u64 = 1 << 20;

/// When which work is due, and what was done.
pub(super) struct Keeper {
    background: Arc<Background>,
    checkpoint_bytes: u64,
    rewrite_above_bytes: u64,
    /// The rotations that were seen by a look for work.
    seen_rotations: AtomicU64,
    /// Where the newest state record begins, and how large it is.
    newest: AtomicU64,
    newest_bytes: AtomicU64,
    /// Whether there is to be a state record whatever was written.
    is_due: AtomicBool,
    pub(super) checkpoint_count: AtomicU64,
    pub(super) copied_bytes: AtomicU64,
}

impl Keeper {
    pub(super) fn new(core: &Arc<Core>, checkpoint: Option<u64>, rewrite: Option<u64>) -> Self {
        let segment_bytes = core.config.segment_bytes;
        Keeper {
            background: Background::new(Arc::clone(core)),
            checkpoint_bytes: checkpoint.unwrap_or(segment_bytes),
            rewrite_above_bytes: rewrite.unwrap_or(segment_bytes.saturating_mul(4)),
            seen_rotations: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            newest_bytes: AtomicU64::new(0),
            is_due: AtomicBool::new(false),
            checkpoint_count: AtomicU64::new(0),
            copied_bytes: AtomicU64::new(0),
        }
    }

    /// What opening has found: the state record that it began with, and how much it had to read.
    pub(super) fn opened(&self, begin: Lsn, end: Lsn) {
        self.newest.store(begin.as_u64(), Ordering::Relaxed);
        self.is_due.store(end.since(begin) > self.checkpoint_bytes * 2, Ordering::Relaxed);
    }
}

impl Store {
    /// Called after each change, without any lock: a few loads, unless there is work.
    pub(super) fn look_for_work(self: &Arc<Self>, is_wanted: bool) {
        self.wal.core().write_later();
        let keeper = &self.keeper;
        let rotations = self.wal.core().counters.rotations.load(Ordering::Relaxed);
        let has_rotated = keeper.seen_rotations.swap(rotations, Ordering::Relaxed) != rotations;
        if has_rotated || is_wanted || keeper.background.is_left_waiting() {
            let store = Arc::downgrade(self);
            // In place it is polled within a task of a runtime, whose budget is none of its concern.
            let work = move || tokio::task::unconstrained(Store::tend(store));
            keeper.background.begin(move || Box::pin(work()));
        }
    }

    async fn tend(store: Weak<Store>) {
        // Held for as long as it takes: who has dropped the last handle has left work to be done.
        let Some(store) = store.upgrade() else { return };
        match store.tend_to_it().await {
            Ok(()) | Err(Error::Closed { .. } | Error::Poisoned { .. }) => {}
            // What is left undone is done by the next look; no space is such a case.
            Err(error) => {
                let log = store.wal.core().storage.location();
                tracing::warn!(log, %error, "a Raft log's upkeep was put off");
            }
        }
    }

    async fn tend_to_it(self: &Arc<Self>) -> Result<()> {
        if self.wants_checkpoint() {
            self.write_checkpoint().await?;
        }
        while self.rewrite_what_lags().await? {}
        self.move_beginning().await
    }

    fn wants_checkpoint(&self) -> bool {
        let keeper = &self.keeper;
        let core = self.wal.core();
        let newest = Lsn::new(keeper.newest.load(Ordering::Relaxed));
        let state_bytes = keeper.newest_bytes.load(Ordering::Relaxed);
        let enough = keeper.checkpoint_bytes.max(state_bytes.saturating_mul(STATE_SHARE));
        let is_next_segment =
            core.segments.find(core.written.get()).is_none_or(|(info, _)| info.base > newest);
        keeper.is_due.load(Ordering::Relaxed)
            || is_next_segment && core.records_end().since(newest) >= enough
    }

    /// Orders a record of the log's own.
    async fn write(self: &Arc<Self>, record: &Record) -> Result<(Lsn, crate::pipeline::Goal)> {
        let core = self.wal.core();
        let unit = core.unit(vec![record.encode().into()])?;
        let room = core.room_for(&unit).await?;
        let span = core.publish(room, unit);
        core.kick_writer();
        Ok((span.lsn, span.goal))
    }

    /// Writes a state record, and has the next header tell of it once it is durable.
    async fn write_checkpoint(self: &Arc<Self>) -> Result<()> {
        let core = self.wal.core();
        let (begin, _) = self.write(&Record::CheckpointBegin { codec: self.codec }).await?;
        // Who comes later is replayed whole, from the begin on.
        let mut groups = self.all_groups().into_iter();
        let part_bytes = PART_BYTES.min(core.ring.capacity_bytes() / 4);
        let mut packer = Packer::new(usize::try_from(part_bytes).unwrap_or(usize::MAX));
        let (mut count, mut bytes) = (0, 0);
        let mut is_end = false;
        loop {
            while let Some(fragments) = packer.take(is_end) {
                bytes += fragments.len() as u64;
                let (begin, fragments) = (begin.as_u64(), fragments.into());
                self.write(&Record::CheckpointPart { begin, number: count, fragments }).await?;
                count += 1;
            }
            if is_end {
                break;
            }
            match groups.next() {
                Some(group) => {
                    // A few pointers: encoding it keeps nobody waiting.
                    let picture = group.lock().clone();
                    if !picture.is_blank() {
                        packer.add(group.id, &picture);
                    }
                }
                None => is_end = true,
            }
        }
        let end = Record::CheckpointEnd { begin: begin.as_u64(), count };
        let (_, goal) = self.write(&end).await?;
        core.wait_synced(goal).await?;
        core.set_hint(begin);
        let keeper = &self.keeper;
        keeper.newest.store(begin.as_u64(), Ordering::Relaxed);
        keeper.newest_bytes.store(bytes, Ordering::Relaxed);
        keeper.is_due.store(false, Ordering::Relaxed);
        keeper.checkpoint_count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The lowest LSN of a live entry, and about how many bytes are alive.
    fn live(&self) -> (Lsn, u64) {
        let (mut lowest, mut bytes) = (Lsn::new(u64::MAX), 0u64);
        for group in self.all_groups() {
            let index = {
                let state = group.lock();
                (state.index.clone(), state.first)
            };
            lowest = lowest.min(index.0.lowest(index.1).unwrap_or(lowest));
            bytes = bytes.saturating_add(index.0.live_bytes(index.1));
        }
        (lowest, bytes)
    }

    /// Lets the segments go that hold nothing any more.
    async fn move_beginning(self: &Arc<Self>) -> Result<()> {
        let core = self.wal.core();
        // Live entries are looked for after that: what is ordered since stands behind it.
        let mut needed = core.told_hint().unwrap_or(core.purge.first());
        if sabotage::is_on(Sabotage::ForgetState) {
            needed = core.written.get();
        }
        let needed = needed.min(self.live().0);
        // The base of a segment is where a unit begins, whatever stands there.
        let Some((segment, _)) = core.segments.find(needed) else { return Ok(()) };
        if segment.base > core.purge.first() {
            // The next header tells of the new beginning as soon as it is asked for. So what lets the
            // old one go, purges and copies and the header that names the state record, has to be
            // durable before that.
            if !sabotage::is_on(Sabotage::BeginBeforePurge) {
                core.sync().await?;
            }
            core.begin_at(segment.base, core.epoch()).await?;
        }
        Ok(())
    }

    /// Writes live entries of the oldest segment again, if the log is too large for what is alive;
    /// whether it should be looked at again.
    async fn rewrite_what_lags(self: &Arc<Self>) -> Result<bool> {
        let core = self.wal.core();
        let (lowest, live_bytes) = self.live();
        let bound = self.keeper.rewrite_above_bytes.max(live_bytes.saturating_mul(2));
        if core.records_end().since(lowest) <= bound {
            return Ok(false);
        }
        let Some((_, Some(end))) = core.segments.find(lowest) else { return Ok(false) };
        let mut copied = 0;
        for group in self.all_groups() {
            let places: Vec<Place> = {
                let state = group.lock();
                let live = state.first..state.next;
                state.index.places(live).filter(|place| place.lsn < end).take(256).collect()
            };
            for place in places {
                copied += self.copy(&group, place).await?;
                if copied >= COPY_BYTES {
                    break;
                }
            }
        }
        self.keeper.copied_bytes.fetch_add(copied, Ordering::Relaxed);
        Ok(copied > 0)
    }

    /// Writes a part of a record again, at the end of the log, if its entries still stand there.
    async fn copy(self: &Arc<Self>, group: &Arc<Group>, place: Place) -> Result<u64> {
        let indexes = place.indexes.clone();
        let reader = RaftGroup::new(Arc::clone(self), Arc::clone(group));
        let entries = match reader.read(indexes.clone(), u64::MAX).await {
            // Purged or cut meanwhile: then there is nothing to be copied.
            Err(Error::Purged { .. }) => return Ok(0),
            read => read?,
        };
        if entries.len() as u64 != indexes.end - indexes.start {
            return Ok(0);
        }
        let mut entries: crate::raft::entry::Entries = entries.into_iter().collect();
        let terms = entries.terms().to_vec();
        let core = self.wal.core();
        let records = entries.finish(group.id, Kind::Copy);
        let [record] = records.as_slice() else { return Ok(0) };
        let bytes = record.payload.len() as u64;
        let unit = core.unit(vec![(&record.payload).into()])?;
        let room = core.room_for(&unit).await?;
        let mut state = group.lock();
        // Now that nobody can change it: is it all still what was read, where it stood?
        let live = indexes.start.max(state.first)..indexes.end.min(state.next);
        let still = state.index.places(live.clone()).all(|now| now.lsn == place.lsn);
        if live.is_empty() || !still {
            return Ok(0);
        }
        let head = EntriesHead {
            group: group.id,
            first: indexes.start,
            count: indexes.end - indexes.start,
        };
        let change = Change::Entries(Kind::Copy, head, terms);
        let (ticket, dead) = self.publish(&mut state, room, unit, &[change], &[]);
        drop(state);
        drop((ticket, dead));
        Ok(bytes)
    }
}
