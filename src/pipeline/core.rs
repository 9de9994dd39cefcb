//! What all handles, tickets and jobs of one open log share.

use std::{
    any::Any,
    sync::{Arc, PoisonError, Weak},
};

use tokio::sync::{Semaphore, watch};

#[cfg(feature = "raft")]
use crate::pipeline::answers::Answers;
use crate::{
    error::Error,
    executor::Executor,
    format::{
        control::{CONTROL_PAYLOAD_BYTES, FIRST_PAYLOAD_BYTES},
        frame::frame_bytes,
    },
    lsn::Lsn,
    options::Config,
    pipeline::{
        append::Outside,
        epochs::{Epochs, Goal},
        filling::Filling,
        in_place::InPlace,
        linger::Habit,
        lock_cell::{LockCell, LockHeld},
        mark::{Answered, Mark},
        measures::Measures,
        open_log::OpenLog,
        purge::Purge,
        recycle::Recycled,
        ring::Ring,
        scheduled::Scheduled,
        space::Space,
        standing::Standing,
        status::Status,
        sync_in_place::LoneSyncs,
        writer::{Active, Writer},
    },
    segments::{SegmentInfo, SegmentSet, Sequence},
    storage::Storage,
    sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, fence},
    watermarks::Watermarks,
};

pub(crate) const CONTROL_FRAME_BYTES: u64 = frame_bytes(CONTROL_PAYLOAD_BYTES as u64);
pub(crate) const FIRST_FRAME_BYTES: u64 = frame_bytes(FIRST_PAYLOAD_BYTES as u64);

/// Room that records leave: for one truncation of a log that has no space, and for closing it.
pub(crate) const CONTROL_ROOM_BYTES: u64 = 2 * FIRST_FRAME_BYTES + CONTROL_FRAME_BYTES;

/// The unit of the ring's permits, so that a ring of a gibibyte fits their 32 bits.
const PERMIT_BYTES: u64 = 8;

/// One open log.
///
/// Lock order: none of these locks is taken while another is held, but for `preparing` in
/// [`Space`] and the writer's, which may be held while the others' short ones are taken.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) config: Config,
    pub(crate) log_id: [u8; 16],
    pub(crate) epochs: Epochs,
    pub(crate) purge: Purge,
    pub(crate) recycled: Recycled,
    pub(crate) ring: Arc<Ring>,
    pub(crate) permits: Semaphore,
    pub(crate) written: Mark,
    pub(crate) synced: Mark,
    pub(crate) status: Status,
    pub(crate) space: Space,
    pub(super) filling: Filling,
    pub(crate) segments: SegmentSet,
    pub(crate) counters: Counters,
    pub(crate) measures: Measures,
    pub(super) standing: Standing,
    /// Held by whoever moves bytes from the ring to a file, and never across a wait for anything
    /// but that I/O. Poisoned by a panic, which stops the log.
    pub(super) writer: Mutex<Writer>,
    pub(super) writer_scheduled: Scheduled,
    pub(super) sync_scheduled: Scheduled,
    /// Whether it pays that a write job stays, and that a sync job waits for those it answered.
    pub(super) lingering: Habit,
    pub(super) regrouping: Habit,
    pub(super) lone_syncs: LoneSyncs,
    pub(super) in_place: InPlace,
    #[cfg(feature = "raft")]
    pub(super) answers: Answers,
    /// For the next segment's header: a position that a user wants to find again without reading
    /// the log (`u64::MAX` for none).
    hint: AtomicU64,
    /// What the newest header tells of it.
    told_hint: AtomicU64,
    /// The highest position that anybody wants synced.
    pub(super) sync_demand: AtomicU64,
    /// Where the newest mark frame stands. If it is the last thing in the log, nobody waits for it.
    pub(super) trailing_mark: AtomicU64,
    /// Where the close frame stands (`u64::MAX` for none yet).
    pub(super) close_frame: AtomicU64,
    /// Where the last clean close was written; while it is the end, the log is still clean. Or
    /// `u64::MAX`.
    clean_end: AtomicU64,
    /// A unit too large for the ring, and where it stands (`u64::MAX` for none).
    pub(super) outside: Mutex<Option<Outside>>,
    pub(super) outside_at: AtomicU64,
    /// The highest `reserved` that was shown. The marks move back under this lock, and nothing is
    /// read or moved up under it that must not be of two epochs.
    reserved_shown: Mutex<Lsn>,
    /// What jobs hold: while there is one, the log is not abandoned.
    pub(super) open: Weak<OpenLog>,
    lock: LockCell,
    is_watched: AtomicBool,
    /// `None` once the log has stopped.
    watch: Mutex<Option<watch::Sender<Watermarks>>>,
}

/// Everything recovery hands over.
pub(crate) struct Start {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) config: Config,
    pub(crate) log_id: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) first: Lsn,
    /// What the active segment's header says of it.
    pub(crate) known_first: Lsn,
    /// The end of the log: all below is in the files and synced.
    pub(crate) end: Lsn,
    pub(crate) is_clean: bool,
    /// What the newest header tells.
    pub(crate) hint: Option<Lsn>,
    /// Whether records were written anew that nothing commits yet.
    pub(crate) needs_mark: bool,
    pub(crate) active: Active,
    pub(crate) segments: Vec<SegmentInfo>,
    pub(crate) next_sequence: Sequence,
    pub(crate) lock: Option<Box<dyn Any + Send + Sync>>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) frames: AtomicU64,
    /// Control frames among them, counted when they are published.
    pub(crate) controls: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) rotations: AtomicU64,
}

impl Core {
    pub(crate) fn start(start: Start) -> Arc<OpenLog> {
        OpenLog::new(|open| Core::new(start, open))
    }

    fn new(start: Start, open: Weak<OpenLog>) -> Self {
        let active_capacity =
            start.config.segment_bytes - crate::format::header::SEGMENT_HEADER_BYTES;
        // At most half a segment less a control record, as the arithmetic of `space` demands.
        let half = (active_capacity - CONTROL_ROOM_BYTES) / 2;
        let ring_bytes = start.config.ring_bytes.min(half);
        let ring_bytes = 1 << ring_bytes.ilog2();
        let (ring, drainer) = Ring::new(ring_bytes, start.end);
        let space = Space::new(ring_bytes, start.next_sequence);
        space.rotated(start.active.base(), start.active.end());
        let permits = usize::try_from(ring_bytes / PERMIT_BYTES).unwrap_or(Semaphore::MAX_PERMITS);
        let marks = Watermarks {
            first: start.first,
            synced: start.end,
            written: start.end,
            reserved: start.end,
        };
        let segments = SegmentSet::new(Arc::clone(&start.storage), start.segments);
        segments.note_user(&start.active.file);
        Core {
            segments,
            storage: start.storage,
            executor: start.executor,
            log_id: start.log_id,
            epochs: Epochs::new(start.log_id, start.epoch),
            purge: Purge::new(start.first, start.known_first),
            recycled: Recycled::new(start.config.recycle_segments),
            ring,
            permits: Semaphore::new(permits),
            written: Mark::new(start.end),
            synced: Mark::new(start.end),
            status: Status::default(),
            space,
            filling: Filling::default(),
            counters: Counters::default(),
            measures: Measures::default(),
            standing: Standing::new(),
            writer: Mutex::new(Writer::new(drainer, start.active)),
            writer_scheduled: Scheduled::new(),
            sync_scheduled: Scheduled::new(),
            lingering: Habit::new(),
            regrouping: Habit::new(),
            lone_syncs: LoneSyncs::default(),
            in_place: InPlace::new(start.config.inline_bytes_max),
            config: start.config,
            #[cfg(feature = "raft")]
            answers: Answers::default(),
            hint: AtomicU64::new(start.hint.map_or(u64::MAX, Lsn::as_u64)),
            told_hint: AtomicU64::new(start.hint.map_or(u64::MAX, Lsn::as_u64)),
            sync_demand: AtomicU64::new(start.end.as_u64()),
            trailing_mark: AtomicU64::new(u64::MAX),
            close_frame: AtomicU64::new(u64::MAX),
            clean_end: AtomicU64::new(if start.is_clean { start.end.as_u64() } else { u64::MAX }),
            outside: Mutex::new(None),
            outside_at: AtomicU64::new(u64::MAX),
            reserved_shown: Mutex::new(start.end),
            open,
            lock: LockCell::new(start.lock),
            is_watched: AtomicBool::new(false),
            watch: Mutex::new(Some(watch::Sender::new(marks))),
        }
    }

    /// The permits for `bytes` bytes of the ring.
    pub(super) fn permits_for(bytes: u64) -> u32 {
        u32::try_from(bytes / PERMIT_BYTES).unwrap_or(u32::MAX)
    }

    pub(super) fn permits_all(&self) -> u32 {
        Self::permits_for(self.ring.capacity_bytes())
    }

    /// What the next segment's header is to tell.
    pub(super) fn hint(&self) -> Option<Lsn> {
        Some(self.hint.load(Ordering::Acquire)).filter(|&hint| hint != u64::MAX).map(Lsn::new)
    }

    /// A header that tells it was written.
    pub(super) fn hint_is_told(&self, hint: Option<Lsn>) {
        self.told_hint.store(hint.map_or(u64::MAX, Lsn::as_u64), Ordering::Release);
    }

    /// What the newest header tells, which is durable when what is reserved from now on is.
    #[cfg(feature = "raft")]
    pub(crate) fn told_hint(&self) -> Option<Lsn> {
        Some(self.told_hint.load(Ordering::Acquire)).filter(|&hint| hint != u64::MAX).map(Lsn::new)
    }

    /// What the newest header tells is of no use: `lsn` is what has to be kept, and told from now on.
    #[cfg(feature = "raft")]
    pub(crate) fn correct_hint(&self, lsn: Lsn) {
        self.set_hint(lsn);
        self.hint_is_told(Some(lsn));
    }

    /// Has the headers of new segments tell `lsn`, which is durable.
    #[cfg(feature = "raft")]
    pub(crate) fn set_hint(&self, lsn: Lsn) {
        self.hint.store(lsn.as_u64(), Ordering::Release);
    }

    /// Stops the log for good: the first cause is kept, every waiter is woken to read it. Call it
    /// without any lock held.
    pub(crate) fn stop(&self, cause: Error) {
        if cause.is_closed() {
            tracing::debug!(log = self.storage.location(), %cause, "the log is closed");
            self.lock.release_when_idle();
        } else {
            tracing::error!(log = self.storage.location(), %cause, "the log has stopped");
        }
        self.set_stopped(cause);
        self.tell_stopped();
    }

    /// The first half of a stop: nothing new succeeds from here on.
    pub(super) fn set_stopped(&self, cause: Error) {
        self.status.stop(cause);
    }

    /// The second half: everybody who waits is woken to read why.
    fn tell_stopped(&self) {
        self.permits.close();
        self.written.wake_all();
        self.synced.wake_all();
        self.space.wake_all();
        self.publish_marks();
        // Without their sender, those who watch get an error after the last value.
        drop(self.watch().take());
        self.answer();
    }

    /// Nobody is left who could move the marks: those who wait for more are woken to read so.
    pub(super) fn abandon(&self) {
        self.status.abandon();
        self.written.wake_all();
        self.synced.wake_all();
        self.answer();
    }

    /// The synced mark has moved, or never will again: those who want to be told are.
    pub(super) fn answer(&self) {
        #[cfg(feature = "raft")]
        self.give_answers();
    }

    /// How many turns a job takes before it hands over to a new one, which in place would only nest.
    pub(super) fn turns(&self, turn_count: u32) -> u32 {
        if self.executor.runs_in_place() { u32::MAX } else { turn_count }
    }

    /// One past the last record, a trailing mark frame left out: nobody needs that one synced.
    pub(crate) fn records_end(&self) -> Lsn {
        let tail = self.ring.tail();
        // Stored after the mark was reserved, so that at worst it is taken for a record.
        let mark = Lsn::new(self.trailing_mark.load(Ordering::Acquire));
        if mark.plus(CONTROL_FRAME_BYTES) == tail { mark } else { tail }
    }

    /// `lsn`, or the end of the log's own newest frames if they begin there: nobody has to read
    /// those to learn that no record is in them.
    pub(crate) fn past_control(&self, lsn: Lsn) -> Lsn {
        let mut at = lsn;
        for control in [&self.trailing_mark, &self.close_frame] {
            if control.load(Ordering::Acquire) == at.as_u64() {
                at = at.plus(CONTROL_FRAME_BYTES);
            }
        }
        at
    }

    /// Whether a clean close stands right before `end`, with nothing behind it since.
    pub(super) fn is_clean_end(&self, end: Lsn) -> bool {
        self.clean_end.load(Ordering::Acquire) == end.as_u64()
    }

    /// Everything below `end`, as it is now. Taken before `end` is looked up: if a cut comes between
    /// the two it is told as one that came later, and not waited for in vain.
    pub(crate) fn goal(&self, end: impl FnOnce() -> Lsn) -> Goal {
        let epoch = self.epoch();
        Goal { end: end(), epoch }
    }

    /// The epoch, for whoever begins something: with its marks, its tail and its segments. While a
    /// cut exchanges them there is no saying which epoch's they are.
    pub(crate) fn epoch(&self) -> u64 {
        let _no_cut = self.shown();
        self.epochs.current()
    }

    /// A flush of `epoch` has covered what is below `synced`; says whom that answered, if that still is
    /// the epoch.
    pub(super) fn raise_marks(&self, epoch: u64, synced: Lsn) -> Option<Answered> {
        {
            let _no_cut = self.shown();
            if self.epochs.current() != epoch {
                return None;
            }
            // Another job may have written these bytes and not have said so yet.
            self.written.raise(synced);
            self.synced.raise(synced);
        }
        self.written.wake_reached(synced);
        let answered = self.synced.wake_reached(synced);
        self.answer();
        Some(answered)
    }

    /// The log ends at `cut` and goes on in `epoch`: the marks move back, and the tail with them.
    /// The caller holds all permits of the ring, which is empty.
    pub(super) fn lower_marks(&self, epoch: u64, cut: Lsn, exchange: impl FnOnce()) {
        let mut shown = self.shown();
        self.epochs.begin(epoch, cut);
        exchange();
        self.written.lower(cut);
        self.synced.lower(cut);
        self.sync_demand.store(cut.as_u64(), Ordering::Release);
        self.trailing_mark.store(u64::MAX, Ordering::Release);
        self.clean_end.store(u64::MAX, Ordering::Release);
        *shown = cut;
    }

    fn shown(&self) -> MutexGuard<'_, Lsn> {
        self.reserved_shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn watermarks(&self) -> Watermarks {
        let mut shown = self.shown();
        // Read in this order: each can only have grown since the one before was read.
        let synced = self.synced.get();
        let written = self.written.get().max(synced);
        // While a mark frame is being reserved it may pass for a record: never show less than before.
        let reserved = self.records_end().max(synced).max(*shown);
        *shown = reserved;
        Watermarks { first: self.purge.first(), synced, written: written.min(reserved), reserved }
    }

    fn watch(&self) -> MutexGuard<'_, Option<watch::Sender<Watermarks>>> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Watermarks> {
        let receiver = match self.watch().as_ref() {
            Some(sender) => sender.subscribe(),
            None => watch::channel(self.watermarks()).1,
        };
        self.is_watched.store(true, Ordering::Release);
        self.publish_marks();
        receiver
    }

    /// Shows the marks to those who watch. Costs a fence and a load while nobody ever has.
    pub(crate) fn publish_marks(&self) {
        // Pairs with the fence of another caller: either we see that somebody watches, or the call
        // in `subscribe` sees the marks that we moved.
        fence(Ordering::SeqCst);
        if !self.is_watched.load(Ordering::Acquire) {
            return;
        }
        if let Some(sender) = self.watch().as_ref() {
            // Under our lock, so that what is shown never goes back; not under the channel's, which
            // those who look at it wait for.
            let now = self.watermarks();
            sender.send_if_modified(|shown| {
                let changed = now != *shown;
                *shown = now;
                changed
            });
        }
    }

    pub(super) fn lock_cell(&self) -> &LockCell {
        &self.lock
    }

    pub(super) fn hold_lock(&self) -> Option<LockHeld<'_>> {
        self.lock.hold()
    }
}
