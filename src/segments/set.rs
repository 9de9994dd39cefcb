//! The segments of a log, by LSN.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use crate::{
    error::{Error, Result},
    format::{
        frame::Seed,
        header::{Link, SegmentHeader},
    },
    lsn::Lsn,
    segments::{file::SegmentFile, name::Sequence},
    storage::Storage,
    sync::{LockAlways, Mutex, MutexGuard, ReadWriteAlways, RwLock},
};

/// How many files stay open for reading. Other files are opened for each read.
const OPEN_FILES_MAX: usize = 16;

/// Everything that is needed to find and read a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentInfo {
    pub(crate) sequence: Sequence,
    pub(crate) base: Lsn,
    pub(crate) incarnation: u64,
    pub(crate) epoch: u64,
    pub(crate) seed: Seed,
    pub(crate) created_unix_ms: u64,
    /// The length of the file when it was prepared.
    pub(crate) file_bytes: u64,
}

impl SegmentInfo {
    /// Returns the segment with this header.
    pub(crate) fn of(header: &SegmentHeader) -> Self {
        SegmentInfo {
            sequence: Sequence(header.sequence),
            base: header.base,
            incarnation: header.incarnation,
            epoch: header.epoch,
            seed: Seed::new(header.log_id, header.epoch),
            created_unix_ms: header.created_unix_ms,
            file_bytes: header.file_bytes,
        }
    }

    /// Returns the link by which the next segment names this one.
    pub(crate) fn link(&self) -> Link {
        Link { base: self.base, incarnation: self.incarnation }
    }
}

/// The segments, in the order of their LSNs.
#[derive(Debug)]
pub(crate) struct SegmentSet {
    storage: Arc<dyn Storage>,
    segments: RwLock<Vec<SegmentInfo>>,
    recent: Mutex<VecDeque<Arc<SegmentFile>>>,
    users: Mutex<Users>,
}

/// The files that have a user, or are just being opened.
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

    /// Keeps those files of another set open that are segments of this set too.
    pub(crate) fn adopt(&self, other: &SegmentSet, is_kept: impl Fn(Sequence) -> bool) {
        let open: Vec<_> = {
            let recent = other.recent.lock_always();
            recent.iter().filter(|file| is_kept(file.sequence())).map(Arc::clone).collect()
        };
        open.into_iter().for_each(|file| self.keep_open(file));
    }

    /// Adds a segment after all others.
    pub(crate) fn push(&self, info: SegmentInfo, file: Arc<SegmentFile>) {
        self.segments.write_always().push(info);
        self.keep_open(file);
    }

    /// Returns the newest segment that begins below `lsn`.
    pub(crate) fn last_below(&self, lsn: Lsn) -> Option<SegmentInfo> {
        let segments = self.segments.read_always();
        segments.iter().rfind(|segment| segment.base < lsn).copied()
    }

    /// Adds a segment. Removes and returns all segments that begin at its base or later. Their open
    /// files stay readable.
    pub(crate) fn replace(&self, info: SegmentInfo, file: Arc<SegmentFile>) -> Vec<SegmentInfo> {
        let dead = {
            let mut segments = self.segments.write_always();
            let kept = segments.partition_point(|segment| segment.base < info.base);
            let dead = segments.split_off(kept);
            segments.push(info);
            dead
        };
        let mut recent = self.recent.lock_always();
        recent.retain(|file| dead.iter().all(|info| info.sequence != file.sequence()));
        drop(recent);
        self.keep_open(file);
        dead
    }

    /// Returns whether the oldest segment ends at or below `lsn` and is not the only one.
    pub(crate) fn has_below(&self, lsn: Lsn) -> bool {
        let segments = self.segments.read_always();
        segments.get(1).is_some_and(|second| second.base <= lsn)
    }

    /// Removes the oldest segment, if [`has_below`](SegmentSet::has_below) returns true. Returns it
    /// and its end. Its open file stays readable.
    pub(crate) fn take_below(&self, lsn: Lsn) -> Option<(SegmentInfo, Lsn)> {
        let (oldest, end) = {
            let mut segments = self.segments.write_always();
            let end = segments.get(1).map(|second| second.base).filter(|&end| end <= lsn)?;
            (segments.remove(0), end)
        };
        let mut recent = self.recent.lock_always();
        recent.retain(|file| file.sequence() != oldest.sequence);
        Some((oldest, end))
    }

    /// Returns the oldest segment after `sequence` that has a successor and holds positions at or
    /// after `from`. Also returns the successor's base.
    pub(crate) fn sealed_after(
        &self,
        sequence: Option<Sequence>,
        from: Lsn,
    ) -> Option<(SegmentInfo, Lsn)> {
        let segments = self.segments.read_always();
        let pairs = segments.iter().zip(segments.iter().skip(1));
        let mut sealed = pairs.map(|(info, next)| (*info, next.base));
        sealed.find(|(info, end)| Some(info.sequence) > sequence && *end > from)
    }

    /// Returns the segments that hold `first..end`; at least one.
    pub(crate) fn holding(&self, first: Lsn, end: Lsn) -> Vec<SegmentInfo> {
        let segments = self.segments.read_always();
        let from = segments.partition_point(|segment| segment.base <= first).saturating_sub(1);
        let until = segments.partition_point(|segment| segment.base < end).max(from + 1);
        segments.get(from..until).unwrap_or_default().to_vec()
    }

    pub(crate) fn list(&self) -> Vec<SegmentInfo> {
        self.segments.read_always().clone()
    }

    /// Returns the sum of the lengths of all files, which are those of their preparation.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.segments.read_always().iter().map(|segment| segment.file_bytes).sum()
    }

    pub(crate) fn count(&self) -> usize {
        self.segments.read_always().len()
    }

    /// Returns the segment that holds `lsn`, and its successor's base if there is a successor.
    pub(crate) fn find(&self, lsn: Lsn) -> Option<(SegmentInfo, Option<Lsn>)> {
        let segments = self.segments.read_always();
        let after = segments.partition_point(|segment| segment.base <= lsn);
        let info = segments.get(after.checked_sub(1)?)?;
        Some((*info, segments.get(after).map(|next| next.base)))
    }

    pub(crate) fn open(&self, sequence: Sequence) -> Result<Arc<SegmentFile>> {
        {
            let recent = self.recent.lock_always();
            if let Some(file) = recent.iter().find(|file| file.sequence() == sequence) {
                return Ok(Arc::clone(file));
            }
        }
        // Noted before the opening, so that a concurrent `is_in_use` returns `true`.
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

    /// Returns the error of opening the file if its name is gone. Readers may still have it open.
    pub(crate) fn gone(&self, sequence: Sequence) -> Option<Error> {
        let opened = SegmentFile::open(self.storage.as_ref(), sequence);
        opened.err().filter(Error::is_not_found)
    }

    /// Returns whether a file of this set is open. If the file's name is gone, a result of `false`
    /// never changes.
    pub(crate) fn is_in_use(&self, sequence: Sequence) -> bool {
        let users = self.users();
        let is_it = |file: &Weak<SegmentFile>| {
            file.upgrade().is_some_and(|file| file.sequence() == sequence)
        };
        users.opening.contains(&sequence) || users.open.iter().any(is_it)
    }

    /// Notes a user of a file that was opened elsewhere.
    pub(crate) fn note_user(&self, file: &Arc<SegmentFile>) {
        let mut users = self.users();
        users.open.retain(|user| user.strong_count() > 0);
        users.open.push(Arc::downgrade(file));
    }

    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock_always()
    }

    fn keep_open(&self, file: Arc<SegmentFile>) {
        self.note_user(&file);
        let mut recent = self.recent.lock_always();
        recent.push_back(file);
        if recent.len() > OPEN_FILES_MAX {
            recent.pop_front();
        }
    }

    /// Closes the files that are kept open, so that a closed log uses no file.
    pub(crate) fn close_files(&self) {
        self.recent.lock_always().clear();
    }
}
