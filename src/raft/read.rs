//! Reading entries: what is cached at once, the rest from the files.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{Stream, stream};

use crate::{
    error::{Error, Result},
    executor::start,
    lsn::Lsn,
    pipeline::{Core, Goal},
    raft::{entry::Entry, group::RaftGroup, index::Place, record::EntriesRecord},
    replay::read_records,
    wal::RUNTIME_GONE,
};

/// So many records are read from the files at once.
const RECORDS_PER_READ: usize = 256;

/// So much is read for one item of a stream's hidden buffer.
const STREAM_BYTES: u64 = 1 << 20;

/// Holds the files of what is about to be read, without being a handle of the log.
struct Hold {
    core: Arc<Core>,
    lsn: Lsn,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.core.release_lease(self.lsn);
    }
}

/// Entries on their way to who asked for them.
struct Wanted {
    entries: Vec<Entry>,
    bytes: u64,
    bytes_max: u64,
}

impl Wanted {
    fn new(bytes_max: u64) -> Self {
        Wanted { entries: Vec::new(), bytes: 0, bytes_max }
    }

    /// Takes the entries of one record; `false` if no more are wanted.
    fn take(&mut self, place: &Place, payload: Bytes) -> Result<bool> {
        let bad = |reason| Error::BadRaftRecord { lsn: place.lsn, reason };
        let (_, record) = EntriesRecord::parse(payload).map_err(bad)?;
        for entry in record.entries() {
            let entry = entry.map_err(bad)?;
            if entry.index >= place.indexes.end {
                break;
            }
            if entry.index < place.indexes.start {
                continue;
            }
            let bytes = entry.payload.len() as u64;
            if !self.entries.is_empty() && self.bytes.saturating_add(bytes) > self.bytes_max {
                return Ok(false);
            }
            self.bytes = self.bytes.saturating_add(bytes);
            self.entries.push(entry);
        }
        Ok(self.bytes < self.bytes_max)
    }
}

/// Where the next entries stand, what of them is cached, and what holds the rest.
struct Step {
    parts: Vec<(Place, Option<Bytes>)>,
    hold: Option<Hold>,
    /// The same as long as no entry takes the place of another.
    generation: u64,
}

impl RaftGroup {
    /// The entries of a range of indexes that are in memory: as [`read`](RaftGroup::read), without
    /// waiting; `None` if the first of them has to be read from the files. Where a later one has to,
    /// it ends there, so what it gives may be a part of what was asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Purged`] if the range begins below the first entry.
    pub fn try_read(&self, indexes: Range<u64>, bytes_max: u64) -> Result<Option<Vec<Entry>>> {
        let mut wanted = Wanted::new(bytes_max);
        let mut generation = None;
        let mut from = indexes.start;
        while from < indexes.end {
            let step = match self.step(from..indexes.end, bytes_max, false) {
                Err(_) if !wanted.entries.is_empty() => break,
                step => step?,
            };
            if step.parts.is_empty()
                || *generation.get_or_insert(step.generation) != step.generation
            {
                break;
            }
            for (place, payload) in step.parts {
                let Some(payload) = payload else {
                    return Ok((!wanted.entries.is_empty()).then_some(wanted.entries));
                };
                if !wanted.take(&place, payload)? {
                    return Ok(Some(wanted.entries));
                }
                from = place.indexes.end;
            }
        }
        Ok(Some(wanted.entries))
    }

    /// The entries of a range of indexes, as far as there are any: also those that aren't durable yet.
    /// It ends before the payloads exceed `bytes_max`, but gives one entry at least if there is one.
    /// What it gives stood there at one moment; if the group is truncated meanwhile it may end
    /// sooner.
    ///
    /// What is cached is given without waiting; the rest is read from the files, with few reads.
    ///
    /// # Errors
    ///
    /// [`Error::Purged`] if the range begins below the first entry; [`Error::Corrupt`],
    /// [`Error::Io`]; [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only reads.
    pub async fn read(&self, indexes: Range<u64>, bytes_max: u64) -> Result<Vec<Entry>> {
        let mut wanted = Wanted::new(bytes_max);
        let mut generation = None;
        let mut from = indexes.start;
        while from < indexes.end {
            let step = match self.step(from..indexes.end, bytes_max, true) {
                Err(_) if !wanted.entries.is_empty() => break,
                step => step?,
            };
            if step.parts.is_empty()
                || *generation.get_or_insert(step.generation) != step.generation
            {
                break;
            }
            for (place, payload) in self.fill(step).await? {
                if !wanted.take(&place, payload)? {
                    return Ok(wanted.entries);
                }
                from = place.indexes.end;
            }
        }
        Ok(wanted.entries)
    }

    /// The last entry, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Io`]; [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only reads.
    pub async fn last_entry(&self) -> Result<Option<Entry>> {
        loop {
            let next = self.group.lock().next;
            let Some(last) = next.checked_sub(1) else { return Ok(None) };
            match self.read(last..next, u64::MAX).await {
                // It went meanwhile: then another is the last, or there is none.
                Err(Error::Purged { .. }) if self.group.lock().is_empty() => return Ok(None),
                Err(Error::Purged { .. }) => {}
                read => match read?.pop() {
                    Some(entry) => return Ok(Some(entry)),
                    None if self.group.lock().is_empty() => return Ok(None),
                    None => {}
                },
            }
        }
    }

    /// Streams the entries of a range of indexes, as far as there are any when it gets there, about
    /// a mebibyte at a time. An error ends it.
    pub fn stream(
        &self,
        indexes: Range<u64>,
    ) -> impl Stream<Item = Result<Entry>> + Send + Unpin + use<> {
        let read = {
            let group = self.clone();
            move |indexes: Range<u64>| {
                let group = group.clone();
                async move { group.read(indexes, STREAM_BYTES).await }
            }
        };
        Box::pin(stream::unfold(
            (indexes, Vec::new().into_iter(), read),
            |(indexes, mut ready, read)| async move {
                if ready.len() == 0 && !indexes.is_empty() {
                    match read(indexes.clone()).await {
                        Ok(entries) => ready = entries.into_iter(),
                        Err(error) => return Some((Err(error), (0..0, ready, read))),
                    }
                }
                let entry: Entry = ready.next()?;
                let rest = entry.index + 1..indexes.end;
                Some((Ok(entry), (rest, ready, read)))
            },
        ))
    }

    /// Looks up the next entries, and holds the files that those that aren't cached stand in.
    fn step(&self, indexes: Range<u64>, bytes_max: u64, holds: bool) -> Result<Step> {
        let state = self.group.lock();
        let generation = state.generation;
        let mut step = Step { parts: Vec::new(), hold: None, generation };
        if indexes.is_empty() || indexes.start >= state.next {
            return Ok(step);
        }
        if indexes.start < state.first {
            let (group, index, first) = (self.group.id, indexes.start, state.first);
            return Err(Error::Purged { group, index, first });
        }
        let end = indexes.end.min(state.next);
        let mut bytes = 0u64;
        let record_bytes = state.index.average_record_bytes();
        for place in state.index.places(indexes.start..end).take(RECORDS_PER_READ) {
            let payload = self.store.cache.get(place.lsn);
            bytes = bytes.saturating_add(payload.as_ref().map_or(record_bytes, |p| p.len() as u64));
            step.parts.push((place, payload));
            if bytes > bytes_max {
                break;
            }
        }
        let cold = step.parts.iter().filter(|(_, payload)| payload.is_none());
        if let Some(lsn) = cold.map(|(place, _)| place.lsn).min().filter(|_| holds) {
            let core: Arc<Core> = Arc::clone(&**self.store.wal.core());
            // Live entries are never below the beginning, so while the lock is held this works.
            core.lease(lsn)?;
            step.hold = Some(Hold { core, lsn });
        }
        Ok(step)
    }

    /// Reads what isn't cached.
    async fn fill(&self, step: Step) -> Result<Vec<(Place, Bytes)>> {
        let cold = step.parts.iter().filter(|(_, payload)| payload.is_none());
        let lsns: Vec<Lsn> = cold.map(|(place, _)| place.lsn).collect();
        let mut read = Vec::new().into_iter();
        if let Some(last) = lsns.iter().max() {
            let core = Arc::clone(self.store.wal.core());
            let epoch = core.epoch();
            // It may still be in the ring, with nobody who has asked for it.
            core.kick_writer();
            core.reach_written(Goal { end: last.plus(1), epoch }).await?;
            let live = Arc::clone(&core);
            let hold = step.hold;
            let job = start(core.executor.as_ref(), move || {
                let read = read_records(&live, &lsns, epoch);
                drop(hold);
                read
            });
            read = job.await.map_err(|_| Error::Closed { reason: RUNTIME_GONE })??.into_iter();
        }
        let filled = step.parts.into_iter();
        Ok(filled
            .filter_map(|(place, payload)| Some((place, payload.or_else(|| read.next())?)))
            .collect())
    }
}
