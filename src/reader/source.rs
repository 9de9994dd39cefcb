//! Reads the segments of a view, although the writer may have removed them.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{
        extension::TimeMark,
        scan::{Stop, WalkBounds},
    },
    lsn::{Lsn, Start},
    options::Config,
    reader::view::{Tracker, View},
    recovery::{Member, newest_time_mark, position_at_time},
    replay::{ChunkSource, damage, explain_named, has_seen_all},
    segments::{SegmentReader, SegmentSet},
    storage::Storage,
    sync::{LockAlways, Mutex},
};

/// A view and its open files.
#[derive(Debug)]
pub(super) struct OpenView {
    pub(super) view: View,
    segments: Arc<SegmentSet>,
    record_bytes_max: u64,
}

impl OpenView {
    pub(super) fn new(storage: &Arc<dyn Storage>, config: &Config, view: View) -> Self {
        let infos = view.members.iter().map(Member::info);
        let segments = Arc::new(SegmentSet::new(Arc::clone(storage), infos.collect()));
        OpenView { view, segments, record_bytes_max: config.record_bytes_max }
    }

    /// Returns a later view that shares the open files.
    ///
    /// Open files can be read even if a cut has replaced them.
    pub(super) fn successor(
        &self,
        storage: &Arc<dyn Storage>,
        config: &Config,
        view: View,
    ) -> Self {
        if Arc::ptr_eq(&self.view.members, &view.members) {
            let (segments, record_bytes_max) = (Arc::clone(&self.segments), self.record_bytes_max);
            return OpenView { view, segments, record_bytes_max };
        }
        let open_view = OpenView::new(storage, config, view);
        let is_same = |sequence| {
            let find = |view: &View| {
                view.members.iter().find(|member| member.sequence == sequence).copied()
            };
            let incarnation = |view| find(view).map(|member| member.header.incarnation);
            incarnation(&self.view) == incarnation(&open_view.view)
        };
        open_view.segments.adopt(&self.segments, is_same);
        open_view
    }

    /// Returns the position at which a consumer continues. `old` may still have the files of
    /// removed segments open. Blocking.
    ///
    /// # Errors
    ///
    /// `BelowFirst` if the consumer has missed a record.
    pub(super) fn position_after_seen(&self, start: Start, old: Option<&OpenView>) -> Result<Lsn> {
        let (lsn, first) = (start.lsn(), self.view.first);
        if lsn >= first {
            return Ok(lsn);
        }
        let reader_at = |lsn| {
            let mut views = std::iter::once(self).chain(old);
            views.find_map(|view| view.reader_of(lsn, first)?.ok())
        };
        match has_seen_all(start, first, reader_at) {
            true => Ok(first),
            false => Err(Error::BelowFirst { lsn, first }),
        }
    }

    /// Returns a position from which on all shown records since `unix_ms` are. Blocking.
    pub(super) fn position_at_time(&self, unix_ms: u64, shows_written: bool) -> Result<Lsn> {
        let first = self.view.first;
        let end = self.view.shown_end(shows_written).max(first);
        position_at_time(&self.segments, first, end, unix_ms)
    }

    /// Returns the newest time mark, whether or not it is known to be synced. Blocking.
    pub(super) fn newest_time_mark(&self) -> Result<Option<TimeMark>> {
        newest_time_mark(&self.segments, self.view.first, self.view.end)
    }

    /// Returns a reader of the segment that holds `lsn`, even below the log's beginning.
    fn reader_of(&self, lsn: Lsn, until: Lsn) -> Option<Result<SegmentReader>> {
        let (info, successor) = self.segments.find(lsn)?;
        let end = successor.unwrap_or(until);
        let place = WalkBounds { seed: info.seed, end, record_bytes_max: self.record_bytes_max };
        let file = self.segments.open(info.sequence);
        Some(file.map(|file| SegmentReader { file, base: info.base, place }))
    }

    /// Returns a reader of the segment that holds `lsn`.
    pub(super) fn reader(&self, lsn: Lsn, until: Lsn) -> Result<SegmentReader> {
        let (first, end) = (self.view.first, until);
        let is_there = (lsn >= first).then(|| self.reader_of(lsn, until)).flatten();
        is_there.unwrap_or(Err(Error::outside(lsn, first, end)))
    }
}

/// The segments of a view, as a source of chunks.
#[derive(Debug)]
pub(super) struct ViewSource {
    open_view: Mutex<Arc<OpenView>>,
    /// The start position of the caller. All other positions are boundaries.
    named: Lsn,
    /// Judges the log again if a file is missing. `None` if the caller does that.
    tracker: Option<Mutex<Tracker>>,
}

impl ViewSource {
    /// Returns a source with a fixed view.
    ///
    /// If a file is missing, the source judges the log again.
    pub(super) fn fixed(open_view: Arc<OpenView>, named: Lsn, tracker: Tracker) -> Self {
        ViewSource { open_view: Mutex::new(open_view), named, tracker: Some(Mutex::new(tracker)) }
    }

    /// Returns a source whose view the caller [replaces](ViewSource::replace).
    pub(super) fn moving(open_view: Arc<OpenView>, named: Lsn) -> Self {
        ViewSource { open_view: Mutex::new(open_view), named, tracker: None }
    }

    pub(super) fn open_view(&self) -> Arc<OpenView> {
        Arc::clone(&self.open_view.lock_always())
    }

    pub(super) fn replace(&self, open_view: Arc<OpenView>) {
        *self.open_view.lock_always() = open_view;
    }

    /// Judges the log again, because a segment is missing.
    ///
    /// The log begins later now, or a cut moved the records to another segment.
    fn rejudge(&self, lsn: Lsn, until: Lsn, gone: Error) -> Result<SegmentReader> {
        let Some(tracker) = &self.tracker else { return Err(gone) };
        let (view, replaced, storage, config) = {
            let mut tracker = tracker.lock_always();
            let replaced = tracker.rejudge()?;
            let storage = Arc::clone(&tracker.storage);
            (tracker.view.clone(), replaced, storage, tracker.config)
        };
        if let Some(to) = replaced.filter(|&from| from < until) {
            return Err(Error::Truncated { to });
        }
        let open_view = Arc::new(OpenView::new(&storage, &config, view));
        let reader = open_view.reader(lsn, until)?;
        self.replace(open_view);
        Ok(reader)
    }
}

impl ChunkSource for ViewSource {
    fn segment_at(&self, lsn: Lsn, until: Lsn) -> Result<SegmentReader> {
        match self.open_view().reader(lsn, until) {
            Err(gone) if gone.is_not_found() => self.rejudge(lsn, until, gone),
            reader => reader,
        }
    }

    fn explain(&self, reader: &SegmentReader, lsn: Lsn, until: Lsn, stop: Stop) -> Error {
        let synced = self.open_view().view.committed;
        let error = if lsn == self.named {
            explain_named(reader, lsn, until, stop, synced).unwrap_or_else(|error| error)
        } else {
            damage(reader, lsn, stop, synced)
        };
        let is_doubtful = error.is_corrupt() || matches!(error, Error::NotABoundary { .. });
        // A truncated file may be reused, and an open handle then reads its new contents. The file
        // loses its name permanently before that.
        let gone = self.open_view().segments.gone(reader.file.sequence());
        match gone.filter(|_| is_doubtful) {
            None => error,
            Some(gone) => match self.rejudge(lsn, until, gone.clone()) {
                Ok(_) => gone,
                Err(explained) => explained,
            },
        }
    }
}
