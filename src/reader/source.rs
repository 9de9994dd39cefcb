//! Where a reader's records come from: the segments of a view, which may be gone by the time they
//! are read.

use std::{
    io,
    sync::{Arc, PoisonError},
};

use crate::{
    error::{Error, Result},
    format::scan::{Place, Stop},
    lsn::Lsn,
    options::Config,
    reader::view::{Tracker, View},
    recovery::Member,
    replay::{ChunkSource, damage, explain_named},
    segments::{SegmentReader, SegmentSet},
    storage::Storage,
    sync::Mutex,
};

/// A view, and its files as they are opened.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) view: View,
    segments: SegmentSet,
    record_bytes_max: u64,
}

impl Held {
    pub(super) fn new(storage: &Arc<dyn Storage>, config: &Config, view: View) -> Self {
        let infos = view.members.iter().map(Member::info);
        let segments = SegmentSet::new(Arc::clone(storage), infos.collect());
        Held { view, segments, record_bytes_max: config.record_bytes_max }
    }

    /// A later view, with the files that are open: they can be read for as long as they are, also
    /// where a cut has replaced them.
    pub(super) fn successor(
        &self,
        storage: &Arc<dyn Storage>,
        config: &Config,
        view: View,
    ) -> Self {
        let held = Held::new(storage, config, view);
        let is_same = |sequence| {
            let find = |view: &View| {
                view.members.iter().find(|member| member.sequence == sequence).copied()
            };
            let incarnation = |view| find(view).map(|member| member.header.incarnation);
            incarnation(&self.view) == incarnation(&held.view)
        };
        held.segments.adopt(&self.segments, is_same);
        held
    }

    /// The reader of the segment that holds `lsn`.
    pub(super) fn reader(&self, lsn: Lsn, until: Lsn) -> Result<SegmentReader> {
        let (first, end) = (self.view.first, until);
        let found = self.segments.find(lsn).filter(|_| lsn >= first);
        let Some((info, successor)) = found else {
            return Err(Error::OutOfRange { lsn, first, end });
        };
        let place = Place {
            seed: info.seed,
            end: successor.unwrap_or(until),
            record_bytes_max: self.record_bytes_max,
        };
        Ok(SegmentReader { file: self.segments.open(info.sequence)?, base: info.base, place })
    }
}

/// The segments of the view that was last taken.
#[derive(Debug)]
pub(super) struct ViewSource {
    held: Mutex<Arc<Held>>,
    /// The position that a user named: the only one that may be no boundary.
    named: Lsn,
    /// Looks again where a file is gone; `None` for who does so by himself.
    tracker: Option<Mutex<Tracker>>,
}

impl ViewSource {
    /// One that stays with its view, and looks for what has become of it where a file is gone.
    pub(super) fn fixed(held: Arc<Held>, named: Lsn, tracker: Tracker) -> Self {
        ViewSource { held: Mutex::new(held), named, tracker: Some(Mutex::new(tracker)) }
    }

    /// One that is [told](ViewSource::take) of each new view.
    pub(super) fn moving(held: Arc<Held>, named: Lsn) -> Self {
        ViewSource { held: Mutex::new(held), named, tracker: None }
    }

    pub(super) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn take(&self, held: Arc<Held>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// A segment is gone: the log begins later now, or was cut and the same records stand elsewhere.
    fn look_again(&self, lsn: Lsn, until: Lsn, gone: Error) -> Result<SegmentReader> {
        let Some(tracker) = &self.tracker else { return Err(gone) };
        let (view, replaced, storage, config) = {
            let mut tracker = tracker.lock().unwrap_or_else(PoisonError::into_inner);
            let replaced = tracker.rejudge()?;
            let storage = Arc::clone(&tracker.storage);
            (tracker.view.clone(), replaced, storage, tracker.config)
        };
        if let Some(to) = replaced.filter(|&from| from < until) {
            return Err(Error::Truncated { to });
        }
        let held = Arc::new(Held::new(&storage, &config, view));
        let reader = held.reader(lsn, until)?;
        self.take(held);
        Ok(reader)
    }
}

impl ChunkSource for ViewSource {
    fn segment_at(&self, lsn: Lsn, until: Lsn) -> Result<SegmentReader> {
        match self.held().reader(lsn, until) {
            Err(Error::Io { source, operation, path, offset })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                self.look_again(lsn, until, Error::Io { operation, path, offset, source })
            }
            reader => reader,
        }
    }

    fn explain(&self, reader: &SegmentReader, lsn: Lsn, until: Lsn, stop: Stop) -> Error {
        let synced = self.held().view.committed;
        let error = if lsn == self.named {
            explain_named(reader, lsn, until, stop, synced).unwrap_or_else(|error| error)
        } else {
            damage(reader, lsn, stop, synced)
        };
        let is_doubtful = error.is_corrupt() || matches!(error, Error::NotABoundary { .. });
        // What was truncated may be in use again, and who had it open reads what it is now. It has
        // lost its name before that, for good.
        let gone = self.held().segments.gone(reader.file.sequence());
        match gone.filter(|_| is_doubtful) {
            None => error,
            Some(gone) => match self.look_again(lsn, until, gone.clone()) {
                Ok(_) => gone,
                Err(told) => told,
            },
        }
    }
}
