//! Segments that a truncation drops, kept to be used again.
//!
//! Their blocks are allocated, their extents written and their pages cached, so that the next segment
//! costs no file, no allocation and no first touch of memory. No file with a segment's name ever holds
//! another segment's bytes: it is renamed durably, then overwritten with zeros, synced, and only then
//! given the next number. So recovery knows nothing of this but a name to remove.
//! `docs/DURABILITY.md`, "Using segments again", has each step's crash states.

use std::sync::PoisonError;

use crate::{
    error::{Error, Result},
    format::header::SEGMENT_HEADER_BYTES,
    pipeline::core::Core,
    sabotage::{self, Sabotage},
    segments::{Beside, SegmentFile, Sequence, blank_by_pieces, prepare, sync_directory},
    storage::{StorageFile, uninterrupted, write_full},
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
};

/// The files that wait to be segments again.
#[derive(Debug)]
pub(crate) struct Recycled {
    state: Mutex<State>,
    reused_count: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// By the segment that each was; all blank, durably. The warmest last.
    waiting: Vec<Sequence>,
    /// How many may wait, or be on their way to that.
    room: usize,
    is_closed: bool,
}

impl Recycled {
    pub(crate) fn new(count: usize) -> Self {
        let state = State { waiting: Vec::new(), room: count, is_closed: false };
        Recycled { state: Mutex::new(state), reused_count: AtomicU64::new(0) }
    }

    pub(crate) fn reused_count(&self) -> u64 {
        self.reused_count.load(Ordering::Relaxed)
    }

    /// No I/O runs under this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for one more, if there is any.
    fn take_room(&self) -> bool {
        let mut state = self.state();
        let has_room = state.room > 0 && !state.is_closed;
        state.room -= usize::from(has_room);
        has_room
    }

    fn give_room(&self) {
        self.state().room += 1;
    }

    /// Notes a file that is ready, in the place that was taken for it; not once the log was closed.
    fn keep(&self, sequence: Sequence) -> bool {
        let mut state = self.state();
        if !state.is_closed {
            state.waiting.push(sequence);
        }
        !state.is_closed
    }

    fn take(&self) -> Option<Sequence> {
        let mut state = self.state();
        let taken = state.waiting.pop();
        state.room += usize::from(taken.is_some());
        taken
    }
}

impl Core {
    /// Keeps a segment's file that is no part of the log any more, and that it is past finding by
    /// readers: `false` if it is still there to be removed. Blocks.
    pub(super) fn recycle(&self, sequence: Sequence) -> bool {
        if self.status.check().is_err() || !self.recycled.take_room() {
            return false;
        }
        let (old, kept) = (sequence.file_name(), sequence.recycled_name());
        if let Err(error) = self.storage.rename(&old, &kept) {
            self.recycled.give_room();
            tracing::debug!(segment = old, %error, "can't be kept to be used again");
            return false;
        }
        match self.make_blank(sequence, &kept) {
            Ok(None) if self.recycled.keep(sequence) => {
                tracing::debug!(segment = old, "kept, to be used again");
                return true;
            }
            Ok(reason) => {
                let reason = reason.unwrap_or("the log is being closed");
                tracing::debug!(segment = old, reason, "removed: it can't be used again");
            }
            Err(error) => {
                tracing::warn!(segment = old, %error, "removed: it can't be used again");
            }
        }
        self.recycled.give_room();
        self.discard(&kept);
        true
    }

    /// What has its new name becomes a file of durable zeros. Gives why not, if it must stay as it is.
    fn make_blank(&self, sequence: Sequence, kept: &str) -> Result<Option<&'static str>> {
        let failed = |operation, error| Error::io(operation, kept.to_owned(), None, error);
        let file = self.storage.open(kept).map_err(|error| failed("opening", error))?;
        let bytes = file.len().map_err(|error| failed("reading the length of", error))?;
        if let Some(reason) = self.why_not(sequence, file.as_ref(), bytes) {
            return Ok(Some(reason));
        }
        // Under its old name it may still be where recovery begins to walk: it must not come back
        // with other bytes.
        if !sabotage::is_on(Sabotage::RecycleBeforeFlush) {
            sync_directory(self.storage.as_ref())?;
        }
        let spared =
            if sabotage::is_on(Sabotage::RecycleHeader) { SEGMENT_HEADER_BYTES } else { 0 };
        let write = |zeros: &[u8], offset| {
            write_full(file.as_ref(), zeros, offset).map_err(|error| failed("writing", error))
        };
        let flush = || uninterrupted(|| file.sync_data()).map_err(|error| failed("syncing", error));
        blank_by_pieces(spared..bytes, write, flush)?;
        if !sabotage::is_on(Sabotage::RecycleUnflushed) {
            flush()?;
        }
        Ok(None)
    }

    /// Why a file must not be written to, if so. Asked when nobody of ours can open it any more.
    fn why_not(
        &self,
        sequence: Sequence,
        file: &dyn StorageFile,
        bytes: u64,
    ) -> Option<&'static str> {
        if bytes != self.config.segment_bytes {
            return Some("it has another size than new segments");
        }
        if self.segments.is_in_use(sequence) && !sabotage::is_on(Sabotage::RecycleOpen) {
            return Some("somebody reads it");
        }
        // Where names can't be counted there may be others.
        if !matches!(file.link_count(), Ok(1)) && !sabotage::is_on(Sabotage::RecycleShared) {
            return Some("it may have another name");
        }
        None
    }

    /// The file of the next segment: one that waits to be used again, if it has this size, or a new
    /// one. Blocks.
    pub(super) fn next_file(&self, sequence: Sequence, bytes: u64) -> Result<SegmentFile> {
        let fits = bytes == self.config.segment_bytes;
        if let Some(waiting) = fits.then(|| self.recycled.take()).flatten() {
            let (kept, name) = (waiting.recycled_name(), sequence.file_name());
            match self.storage.rename(&kept, &name) {
                Ok(()) => {
                    sync_directory(self.storage.as_ref())?;
                    let file = SegmentFile::open(self.storage.as_ref(), sequence)?;
                    self.recycled.reused_count.fetch_add(1, Ordering::Relaxed);
                    return Ok(file);
                }
                Err(error) => {
                    tracing::warn!(name = kept, %error, "can't be used again");
                    self.discard(&kept);
                }
            }
        }
        let (storage, preallocation) = (self.storage.as_ref(), self.next_preallocation());
        prepare(storage, sequence, bytes, preallocation, Beside::Commits)
    }

    /// Gives the space of all files that wait back to the device; says whether there were any.
    pub(super) fn give_back_recycled(&self) -> bool {
        let mut count = 0;
        while let Some(waiting) = self.recycled.take() {
            self.discard(&waiting.recycled_name());
            count += 1;
        }
        count > 0
    }

    /// A closed log keeps no file that isn't part of it.
    pub(super) fn close_recycled(&self) {
        self.recycled.state().is_closed = true;
        self.give_back_recycled();
    }

    /// Not vital: what stays is removed by the next opening.
    fn discard(&self, kept: &str) {
        if let Err(error) = self.storage.remove(kept) {
            tracing::warn!(name = kept, %error, "stays until the log is opened again");
        }
    }
}
