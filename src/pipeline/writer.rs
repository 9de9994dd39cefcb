//! The writer: moves the published prefix of the ring to the active segment, and rotates.
//!
//! Whoever finds work takes the writer's lock and does it: a write job, or a sync job on its way to
//! the flush. The lock is only ever held by running code, so nobody waits for a job that is queued.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{
        frame::Seed,
        header::{Link, SEGMENT_HEADER_BYTES, SegmentHeader},
    },
    lsn::Lsn,
    pipeline::{
        append::Outside,
        core::Core,
        job::Job,
        ring::{Drainer, Taken},
        space::Spare,
    },
    sabotage::{self, Sabotage},
    segments::{SegmentFile, SegmentInfo},
    sync::{AtomicU64, Ordering},
    turn::lock_over_io,
};

/// One write call takes about this much: more hardly makes it cheaper, and waits longer.
const WRITE_BYTES: u64 = 1 << 20;

/// After so many writes a job hands over to a new one, so that it never holds up a shutdown.
const WRITES_PER_JOB: u32 = 64;

#[derive(Debug)]
pub(crate) struct Writer {
    drainer: Drainer,
    active: Active,
    /// Sealed and not synced yet. At most one: the next rotation waits for it.
    sealed: Option<Arc<SegmentFile>>,
}

/// The segment that is appended to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) link: Link,
    /// The size of the file.
    pub(crate) bytes: u64,
}

impl Active {
    pub(crate) fn base(&self) -> Lsn {
        self.link.base
    }

    /// One past the last LSN that fits.
    pub(crate) fn end(&self) -> Lsn {
        self.link.base.plus(self.bytes.saturating_sub(SEGMENT_HEADER_BYTES))
    }

    fn offset(&self, lsn: Lsn) -> u64 {
        lsn.since(self.link.base) + SEGMENT_HEADER_BYTES
    }
}

/// What a flush has to cover.
pub(super) struct Unsynced {
    pub(super) end: Lsn,
    pub(super) sealed: Option<Arc<SegmentFile>>,
    pub(super) active: Arc<SegmentFile>,
}

/// What one step wrote.
pub(super) struct Step {
    end: Lsn,
    permit_count: u32,
    rotated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    Wrote,
    Idle,
    Stopped,
}

impl Writer {
    pub(super) fn new(drainer: Drainer, active: Active) -> Self {
        Writer { drainer, active, sealed: None }
    }

    /// Everything written so far, and the files that hold what may not be synced of it.
    pub(super) fn unsynced(&self) -> Unsynced {
        Unsynced {
            end: self.drainer.at(),
            sealed: self.sealed.clone(),
            active: Arc::clone(&self.active.file),
        }
    }

    /// The file that was sealed when `unsynced` was taken has been synced since. One that was
    /// active then and is sealed now has not: it may have been written to meanwhile.
    pub(super) fn sealed_is_synced(&mut self, file: &Arc<SegmentFile>) {
        self.sealed.take_if(|sealed| Arc::ptr_eq(sealed, file));
    }

    fn step(&mut self, core: &Core) -> Result<Option<Step>> {
        let mut rotated = false;
        loop {
            let room_bytes = self.room_bytes();
            match self.drainer.take(WRITE_BYTES, room_bytes) {
                Taken::Units { end, frame_count } => {
                    return self.write_units(core, end, frame_count, rotated).map(Some);
                }
                Taken::DoesNotFit { unit_bytes } => {
                    self.rotate(core, unit_bytes)?;
                    rotated = true;
                }
                Taken::Nothing => {
                    let Some(unit) = core.take_outside(self.drainer.at()) else {
                        return Ok(None);
                    };
                    if unit.bytes > room_bytes {
                        self.rotate(core, unit.bytes)?;
                        rotated = true;
                    }
                    return self.write_outside(core, &unit, rotated).map(Some);
                }
            }
        }
    }

    fn write_units(&mut self, core: &Core, end: Lsn, frames: u64, rotated: bool) -> Result<Step> {
        self.write_taken(core, |file, piece, offset| file.write_at(piece, offset).map(|()| true))?;
        Ok(self.wrote_units(core, end, frames, rotated))
    }

    /// Writes what was taken, in one or two pieces, and says whether all of it: `write` says so of
    /// each.
    pub(super) fn write_taken(
        &self,
        core: &Core,
        write: impl Fn(&SegmentFile, &[u8], u64) -> Result<bool>,
    ) -> Result<bool> {
        let active = &self.active;
        let mut is_whole = true;
        self.drainer.read_taken(|lsn, piece| {
            if is_whole {
                core.counters.writes.fetch_add(1, Ordering::Relaxed);
                is_whole = write(&active.file, piece, active.offset(lsn))?;
            }
            Ok(())
        })?;
        Ok(is_whole)
    }

    /// What was taken has been written.
    pub(super) fn wrote_units(
        &mut self,
        core: &Core,
        end: Lsn,
        frames: u64,
        rotated: bool,
    ) -> Step {
        let bytes = end.since(self.drainer.at());
        core.counters.frames.fetch_add(frames, Ordering::Relaxed);
        core.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Before the permits go back, to those who will take these bytes again.
        self.drainer.release();
        Step { end, permit_count: Core::permits_for(bytes), rotated }
    }

    /// The next LSN to write out.
    pub(super) fn at(&self) -> Lsn {
        self.drainer.at()
    }

    /// What the active segment still has room for.
    pub(super) fn room_bytes(&self) -> u64 {
        self.active.end().since(self.drainer.at())
    }

    pub(super) fn take(&mut self, wanted_bytes: u64, room_bytes: u64) -> Taken {
        self.drainer.take(wanted_bytes, room_bytes)
    }

    fn write_outside(&mut self, core: &Core, unit: &Outside, rotated: bool) -> Result<Step> {
        let mut offset = self.active.offset(self.drainer.at());
        for piece in &unit.pieces {
            core.counters.writes.fetch_add(1, Ordering::Relaxed);
            self.active.file.write_at(piece, offset)?;
            offset += piece.len() as u64;
        }
        core.counters.frames.fetch_add(unit.frame_count, Ordering::Relaxed);
        core.counters.bytes.fetch_add(unit.bytes, Ordering::Relaxed);
        self.drainer.skip(unit.bytes);
        Ok(Step { end: self.drainer.at(), permit_count: core.permits_all(), rotated })
    }

    /// Seals the active segment and begins the next, which has room for `unit_bytes`.
    fn rotate(&mut self, core: &Core, unit_bytes: u64) -> Result<()> {
        // At most two segments are ever unsynced: recovery looks no further back. Usually the
        // background has synced it long ago.
        if let Some(sealed) = &self.sealed {
            core.flush(sealed)?;
            self.sealed = None;
        }
        let spare = take_spare(core, unit_bytes)?;
        let base = self.drainer.at();
        let (synced, first) = core.synced_and_first();
        let header = SegmentHeader {
            log_id: core.log_id,
            base,
            epoch: core.epochs.current(),
            by_truncation: false,
            incarnation: incarnation(random(core)?),
            previous: Some(self.active.link),
            first,
            synced: synced.min(base),
            created_unix_ms: core.storage.unix_ms(),
            hint: core.hint(),
            file_bytes: spare.bytes,
        };
        // Before any of its frames, so that `written` never passes into a segment without one.
        spare.file.write_at(&header.block(), 0)?;
        core.purge.told(first);
        core.hint_is_told(header.hint);
        let (next, info) = begun(spare, &header);
        core.segments.push(info, Arc::clone(&next.file));
        core.space.rotated(base, next.end());
        core.counters.rotations.fetch_add(1, Ordering::Relaxed);
        let sealed = self.active.file.name();
        tracing::debug!(segment = next.file.name(), %base, sealed, "rotated");
        self.sealed = Some(std::mem::replace(&mut self.active, next).file);
        Ok(())
    }

    /// Has the log end at `cut`, below which all is synced, and go on in a fresh segment of the next
    /// epoch. The caller holds all permits of the ring.
    pub(super) fn begin_epoch(&mut self, core: &Core, cut: Lsn) -> Result<()> {
        let spare = take_spare(core, 0)?;
        let epoch = core.epochs.current().saturating_add(1);
        let first = core.purge.first();
        let header = SegmentHeader {
            log_id: core.log_id,
            base: cut,
            epoch,
            by_truncation: true,
            incarnation: incarnation(random(core)?),
            previous: core.segments.last_below(cut).map(|info| info.link()),
            first,
            synced: cut,
            created_unix_ms: core.storage.unix_ms(),
            hint: core.hint().filter(|hint| *hint < cut),
            file_bytes: spare.bytes,
        };
        spare.file.write_at(&header.block(), 0)?;
        if !sabotage::is_on(Sabotage::CutBeforeFlush) {
            core.flush(&spare.file)?;
        }
        let (next, info) = begun(spare, &header);
        let old_end = self.drainer.at();
        // Before the mark moves back, so that no later flush is taken for that of an older record.
        core.purge.told(first);
        core.hint_is_told(header.hint);
        core.truncations_are_told();
        let mut dead = Vec::new();
        core.lower_marks(epoch, cut, || {
            self.drainer.rewind(cut);
            // Behind the epoch: whoever finds the new one must know that it is of a new epoch.
            dead = core.segments.replace(info, Arc::clone(&next.file));
        });
        core.space.rotated(cut, next.end());
        let segment = next.file.name();
        tracing::info!(segment, epoch, %cut, %old_end, dead = dead.len(), "truncated the end");
        core.leave_to_removal(dead);
        self.sealed = None;
        self.active = next;
        Ok(())
    }
}

/// Usually there is one.
fn take_spare(core: &Core, unit_bytes: u64) -> Result<Spare> {
    loop {
        match core.space.take_spare(unit_bytes) {
            Some(spare) => return Ok(spare),
            None => core.prepare_spare(unit_bytes)?,
        }
    }
}

fn random(core: &Core) -> Result<[u8; 16]> {
    let place = core.storage.location();
    core.storage.random().map_err(|error| Error::io("drawing random bytes in", place, None, error))
}

/// A prepared file that has got its header.
fn begun(spare: Spare, header: &SegmentHeader) -> (Active, SegmentInfo) {
    let info = SegmentInfo {
        sequence: spare.file.sequence(),
        base: header.base,
        incarnation: header.incarnation,
        epoch: header.epoch,
        seed: Seed::new(header.log_id, header.epoch),
    };
    (Active { file: spare.file, link: header.link(), bytes: spare.bytes }, info)
}

/// Eight random bytes that aren't zero, which stands for "no segment".
pub(crate) fn incarnation(random: [u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = random;
    u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1)
}

impl Core {
    /// Writes out what is published, one write call's worth. Any failure stops the log.
    pub(super) fn drain_once(self: &Arc<Self>) -> Drained {
        let step = {
            // A panic under the lock left the writer half way; the job's guard stops the log.
            let Ok(mut writer) = lock_over_io(&self.writer) else {
                return Drained::Stopped;
            };
            if self.status.check().is_err() {
                return Drained::Stopped;
            }
            writer.step(self).inspect_err(|error| {
                // Under the lock: whoever waits for it must not write behind a failed write.
                self.set_stopped(error.clone().into_poison());
            })
        };
        match step {
            Ok(None) => Drained::Idle,
            Ok(Some(step)) => {
                self.tell_written(step);
                Drained::Wrote
            }
            Err(error) => {
                // Said aloud, and everybody woken, once the lock is free.
                self.stop(error.into_poison());
                Drained::Stopped
            }
        }
    }

    /// Moves the mark and wakes those who wait for it, gives the room back, and sees to what follows
    /// from a write. The writer's lock is free.
    pub(super) fn tell_written(self: &Arc<Self>, step: Step) {
        self.written.advance(step.end);
        if step.rotated {
            // The sealed segment is synced in the background, at once. Before the permits go back,
            // and a cut may come: what it takes is asked for by nobody.
            self.sync_demand.fetch_max(step.end.as_u64(), Ordering::AcqRel);
        }
        self.permits.add_permits(step.permit_count as usize);
        if self.ring.tail() == self.synced.get() {
            // A sync that overtook this found no room for its mark.
            self.leave_mark();
        }
        self.publish_marks();
        self.follow_orders(step.end);
        // Somebody may have been waiting for a sync behind a frame that was not published.
        self.start_sync_if_wanted();
        self.prepare_ahead(step.end);
    }

    /// Has what is published written, by the job that is at it or by a new one. The caller stored
    /// its frame's word before.
    pub(crate) fn kick_writer(self: &Arc<Self>) {
        if self.writer_scheduled.claim(|| true) {
            Job::new(Arc::clone(self), Core::write_job).spawn();
        }
    }

    pub(super) fn write_job(self: &Arc<Self>) {
        for _ in 0..self.turns(WRITES_PER_JOB) {
            match self.drain_once() {
                Drained::Wrote => {}
                Drained::Stopped => return,
                Drained::Idle => {
                    if self.lingers() {
                        continue;
                    }
                    if !self.writer_scheduled.let_go(|| self.has_left()) {
                        return;
                    }
                }
            }
        }
        Job::new(Arc::clone(self), Core::write_job).spawn();
    }

    /// As `has_published`, and exact: nobody else drains while this looks. A sync job that is just at
    /// it doesn't come back for what is published behind what it took.
    fn has_left(&self) -> bool {
        // A panic under the lock stops the log.
        lock_over_io(&self.writer).is_ok_and(|writer| self.is_left(&writer))
    }

    pub(super) fn is_left(&self, writer: &Writer) -> bool {
        writer.drainer.is_ready() || self.is_outside_at(writer.drainer.at())
    }

    pub(super) fn is_outside_at(&self, at: Lsn) -> bool {
        self.outside_at.load(Ordering::Acquire) == at.as_u64()
    }

    /// Whether there is something to write. While somebody drains it may say either.
    pub(super) fn has_published(&self) -> bool {
        self.ring.is_ready() || self.is_outside_at(self.ring.drained())
    }

    fn take_outside(&self, at: Lsn) -> Option<Outside> {
        let here: &AtomicU64 = &self.outside_at;
        if !self.is_outside_at(at) {
            return None;
        }
        let unit = self.outside.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        here.store(u64::MAX, Ordering::Release);
        unit
    }
}
