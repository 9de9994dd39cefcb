//! Which segments the log has, and which of them holds an LSN.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, Weak},
};

use crate::{
    error::{Error, Result},
    format::{frame::Seed, header::Link},
    lsn::Lsn,
    segments::{file::SegmentFile, name::Sequence},
    storage::Storage,
    sync::{Mutex, MutexGuard, RwLock},
};

/// Open files kept for reading; others are opened when they are read.
const OPEN_FILES_MAX: usize = 16;

/// What it takes to find and read a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentInfo {
    pub(crate) sequence: Sequence,
    pub(crate) base: Lsn,
    pub(crate) incarnation: u64,
    pub(crate) epoch: u64,
    pub(crate) seed: Seed,
}

impl SegmentInfo {
    /// As its successor names it.
    pub(crate) fn link(&self) -> Link {
        Link { base: self.base, incarnation: self.incarnation }
    }
}

/// The segments in the order of their LSNs.
#[derive(Debug)]
pub(crate) struct SegmentSet {
    storage: Arc<dyn Storage>,
    segments: RwLock<Vec<SegmentInfo>>,
    recent: Mutex<VecDeque<Arc<SegmentFile>>>,
    users: Mutex<Users>,
}

/// Which files somebody reads, or is about to.
#[derive(Debug, Default)]
struct Users {
    opening: Vec<Sequence>,
    open: Vec<Weak<SegmentFile>>,
}

impl SegmentSet {
    pub(crate) fn new(storage: Arc<dyn Storage>, segments: Vec<SegmentInfo>) -> Self {
        SegmentSet {
            storage,
            segments: RwLock::new(segments),
            recent: Mutex::default(),
            users: Mutex::default(),
        }
    }

    /// Keeps open what another set had open, if it is a segment of this one too.
    pub(crate) fn adopt(&self, other: &SegmentSet, is_kept: impl Fn(Sequence) -> bool) {
        let open: Vec<_> = {
            let recent = other.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.iter().filter(|file| is_kept(file.sequence())).map(Arc::clone).collect()
        };
        open.into_iter().for_each(|file| self.keep_open(file));
    }

    /// Adds the segment that follows all others.
    pub(crate) fn push(&self, info: SegmentInfo, file: Arc<SegmentFile>) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).push(info);
        self.keep_open(file);
    }

    /// The newest segment that begins below `lsn`.
    pub(crate) fn last_below(&self, lsn: Lsn) -> Option<SegmentInfo> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.iter().rfind(|segment| segment.base < lsn).copied()
    }

    /// Adds the segment that takes the place of all that begin where it does, or later, and gives
    /// those. Who has one of them open can still read it.
    pub(crate) fn replace(&self, info: SegmentInfo, file: Arc<SegmentFile>) -> Vec<SegmentInfo> {
        let dead = {
            let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
            let kept = segments.partition_point(|segment| segment.base < info.base);
            let dead = segments.split_off(kept);
            segments.push(info);
            dead
        };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|file| dead.iter().all(|info| info.sequence != file.sequence()));
        drop(recent);
        self.keep_open(file);
        dead
    }

    /// Whether the oldest segment ends at `lsn` or before, and isn't the only one.
    pub(crate) fn has_below(&self, lsn: Lsn) -> bool {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.get(1).is_some_and(|second| second.base <= lsn)
    }

    /// Takes the oldest segment away, if [`has_below`](SegmentSet::has_below) says so. Who has it
    /// open can still read it.
    pub(crate) fn take_below(&self, lsn: Lsn) -> Option<Sequence> {
        let oldest = {
            let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
            let is_below = segments.get(1).is_some_and(|second| second.base <= lsn);
            is_below.then(|| segments.remove(0))
        }?;
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|file| file.sequence() != oldest.sequence);
        Some(oldest.sequence)
    }

    /// The oldest segment behind `sequence` that another follows and that holds something at or after
    /// `from`, and where the other begins.
    pub(crate) fn sealed_after(
        &self,
        sequence: Option<Sequence>,
        from: Lsn,
    ) -> Option<(SegmentInfo, Lsn)> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let pairs = segments.iter().zip(segments.iter().skip(1));
        let mut sealed = pairs.map(|(info, next)| (*info, next.base));
        sealed.find(|(info, end)| Some(info.sequence) > sequence && *end > from)
    }

    /// The segments that hold `first..end`, and never none.
    pub(crate) fn holding(&self, first: Lsn, end: Lsn) -> Vec<SegmentInfo> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let from = segments.partition_point(|segment| segment.base <= first).saturating_sub(1);
        let until = segments.partition_point(|segment| segment.base < end).max(from + 1);
        segments.get(from..until).unwrap_or_default().to_vec()
    }

    pub(crate) fn count(&self) -> usize {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The segment that holds `lsn`, and its successor's base, if it has one.
    pub(crate) fn find(&self, lsn: Lsn) -> Option<(SegmentInfo, Option<Lsn>)> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let after = segments.partition_point(|segment| segment.base <= lsn);
        let info = segments.get(after.checked_sub(1)?)?;
        Some((*info, segments.get(after).map(|next| next.base)))
    }

    pub(crate) fn open(&self, sequence: Sequence) -> Result<Arc<SegmentFile>> {
        {
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(file) = recent.iter().find(|file| file.sequence() == sequence) {
                return Ok(Arc::clone(file));
            }
        }
        // Noted before: whoever asks meanwhile whether it is in use must not get a no.
        self.users().opening.push(sequence);
        let opened = SegmentFile::open(self.storage.as_ref(), sequence).map(Arc::new);
        if let Ok(file) = &opened {
            self.keep_open(Arc::clone(file));
        }
        let mut users = self.users();
        if let Some(at) = users.opening.iter().position(|opening| *opening == sequence) {
            users.opening.swap_remove(at);
        }
        opened
    }

    /// The error of who opens it, if the file isn't there any more, whoever still has it open.
    pub(crate) fn gone(&self, sequence: Sequence) -> Option<Error> {
        let opened = SegmentFile::open(self.storage.as_ref(), sequence);
        opened.err().filter(Error::is_not_found)
    }

    /// Whether anybody has the file open that was got from here. The answer is for good if it can't
    /// be opened by its name any more.
    pub(crate) fn is_in_use(&self, sequence: Sequence) -> bool {
        let users = self.users();
        let is_it = |file: &Weak<SegmentFile>| {
            file.upgrade().is_some_and(|file| file.sequence() == sequence)
        };
        users.opening.contains(&sequence) || users.open.iter().any(is_it)
    }

    /// Notes a file that wasn't opened here.
    pub(crate) fn note_user(&self, file: &Arc<SegmentFile>) {
        let mut users = self.users();
        users.open.retain(|user| user.strong_count() > 0);
        users.open.push(Arc::downgrade(file));
    }

    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_open(&self, file: Arc<SegmentFile>) {
        self.note_user(&file);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back(file);
        if recent.len() > OPEN_FILES_MAX {
            recent.pop_front();
        }
    }

    /// Closes the files kept open, so that nothing of the log stays in use after it was closed.
    pub(crate) fn close_files(&self) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
