//! Opens a log: finds its end, judges it, and makes the log writable.
//!
//! [`Opening::begin`] reads and changes nothing. [`Opening::finish`] changes the log and never
//! replaces a durable byte by another. Bytes above the highest commitment are written again, in
//! place or in a fresh segment under the next epoch. `docs/DURABILITY.md` has the steps and their
//! crash states.

mod aside;
mod chain;
mod cut;
mod damage_cut;
mod gap;
mod headless;
mod judged;
mod last_frame;
mod leftovers;
mod rebuild;
mod report;
mod resume;
mod scan;
mod slots;
mod slots_read;
mod survey;
mod time_marks;

use std::{any::Any, sync::Arc, time::Duration};

pub(crate) use chain::{Chain, Member, link_up};
pub(crate) use judged::Judged;
pub use report::{Cut, CutCopy, DurableCut, RecoveryReport, Warning};
pub(crate) use scan::first_recorded_in;
pub(crate) use survey::{list, read_header, refuse_unsupported};
pub(crate) use time_marks::{newest_time_mark, position_at_time, unix_ms_of};

use crate::{
    error::{Error, Result, listed},
    executor::Executor,
    format::{
        header::{SegmentHeader, file_offset},
        judge::Verdict,
        last_close::LastClose,
        scan::{Stop, WalkBounds},
    },
    lsn::Lsn,
    options::{Config, OnDamage},
    pipeline::{RecoveredSlots, Start},
    recovery::{
        damage_cut::judge_or_cut,
        judged::judge_log,
        slots::recover_slots,
        survey::{Survey, SurveyedSegment, survey},
    },
    replay::{ChunkSource, damage},
    segments::{
        LAST_CLOSE, STANDBY, SegmentReader, SegmentSet, Sequence, UNFINISHED_COPY, is_kept_cut,
        is_receiving, is_recycled, sync_directory,
    },
    storage::{Locking, Storage},
    turn::pause,
};

/// A log that was read and judged, and is still unchanged.
#[derive(Debug)]
pub(crate) struct Opening {
    storage: Arc<dyn Storage>,
    config: Config,
    lock: Option<Box<dyn Any + Send + Sync>>,
    /// `None` if the directory has no log yet.
    judged: Option<Judged>,
    survey: Survey,
    pub(crate) report: RecoveryReport,
}

impl Opening {
    /// Locks, reads and judges the log. Blocking. Changes only the lock file.
    pub(crate) fn begin(storage: Arc<dyn Storage>, config: Config, lock: bool) -> Result<Self> {
        // The span adds the log's location to all events below.
        let log = storage.location();
        let _opening = tracing::debug_span!("opening", log).entered();
        Self::begin_in(storage, config, lock).map_err(|error| error.in_log(&log))
    }

    fn begin_in(storage: Arc<dyn Storage>, config: Config, lock: bool) -> Result<Self> {
        // Before the lock, because locking creates a file, and the directory may not be a log's.
        refuse_foreign(storage.as_ref())?;
        if config.promote_to.is_none() {
            refuse_standby(storage.as_ref())?;
        }
        let lock = if lock { Some(take_lock(storage.as_ref())?) } else { None };
        // Again: another process may have made the log a standby before it gave the lock back.
        if config.promote_to.is_none() {
            refuse_standby(storage.as_ref())?;
        }
        let Assessment { survey, judged, report } = assess(storage.as_ref(), &config)?;
        Ok(Opening { storage, config, lock, judged, survey, report })
    }

    pub(crate) fn location(&self) -> String {
        self.storage.location()
    }

    /// Returns the source of the log's records, its first position and its end.
    pub(crate) fn source(&self) -> (Arc<dyn ChunkSource>, Lsn, Lsn) {
        let members = self.judged.iter().flat_map(|judged| &judged.chain.members);
        let infos = members.map(Member::info);
        let segments = SegmentSet::new(Arc::clone(&self.storage), infos.collect());
        let record_bytes_max = self.config.record_bytes_max;
        let synced = self.report.committed;
        let source = UnopenedSource { segments, record_bytes_max, synced };
        (Arc::new(source), self.report.first, self.report.end)
    }

    /// Makes the log writable: creates it, continues its newest segment, or begins an epoch.
    /// Blocking.
    pub(crate) fn finish(self, executor: Arc<dyn Executor>) -> Result<(Start, RecoveryReport)> {
        let log = self.storage.location();
        let _opening = tracing::debug_span!("opening", log).entered();
        self.finish_in(executor).map_err(|error| error.in_log(&log))
    }

    /// Creates the log, continues it where it ends, or begins an epoch.
    fn make_writable(&self, report: &mut RecoveryReport) -> Result<rebuild::Ready> {
        let (storage, config) = (self.storage.as_ref(), &self.config);
        let Some(judged) = &self.judged else {
            return rebuild::create(storage, config, &self.survey, report);
        };
        if config.promote_to.is_some() {
            return cut::begin_epoch(storage, config, judged, &self.survey, report);
        }
        let is_closed = judged.verdict == Verdict::CleanClose;
        if is_closed && !rebuild::is_linked_elsewhere(storage, judged)? {
            return rebuild::continue_closed(storage, judged, report);
        }
        if resume::can_resume(storage, judged, &self.survey)? {
            let ready = resume::resume(storage, config, judged, report)?;
            // Only after `resume` has made the `first` record durable: without it, the removed
            // segments would be missing.
            aside::clear(storage, &judged.leftovers, report)?;
            return Ok(ready);
        }
        cut::begin_epoch(storage, config, judged, &self.survey, report)
    }

    fn finish_in(mut self, executor: Arc<dyn Executor>) -> Result<(Start, RecoveryReport)> {
        let mut report = std::mem::take(&mut self.report);
        // First, because the device may be full.
        aside::remove_recycled(self.storage.as_ref(), &self.survey, &mut report)?;
        let ready = self.make_writable(&mut report)?;
        remove_standby(self.storage.as_ref(), &self.config)?;
        report.segment_count = ready.segments.len();
        let last = self.survey.sequence_max;
        let rewrote_records =
            |judged: &Judged| report.rewritten_bytes > 0 && judged.records_end > judged.commitment;
        let slots = self.judged.as_mut().map(|judged| std::mem::take(&mut judged.slots));
        let slots = slots.unwrap_or_default();
        let newest = self.judged.as_ref().and_then(|judged| judged.chain.members.last());
        let times = self.judged.as_ref().map(|judged| judged.times).unwrap_or_default();
        let start = Start {
            times,
            // The first record may be below a named position that was never durable.
            slots: RecoveredSlots {
                floor: ready
                    .slots_floor
                    .map(|floor| slots.from.map_or(floor, |from| from.min(floor))),
                ..slots
            },
            hint: newest.and_then(|newest| newest.header.hint),
            // Control records alone need no mark. Otherwise each opening of an unclosed log would
            // keep the segment that the opening before it began.
            needs_mark: self.config.promote_to.is_some()
                || self.judged.as_ref().is_some_and(rewrote_records),
            next_sequence: last.max(ready.active.file.sequence()).next(),
            storage: self.storage,
            executor,
            config: self.config,
            log_id: ready.log_id,
            epoch: ready.epoch,
            first: report.first,
            known_first: ready.known_first,
            end: report.end,
            is_clean: report.was_closed,
            active: ready.active,
            segments: ready.segments,
            lock: self.lock,
        };
        if report.warnings.is_empty() {
            tracing::info!(log = start.storage.location(), "{report}");
        } else {
            tracing::warn!(log = start.storage.location(), "{report}");
        }
        Ok((start, report))
    }
}

/// A log's survey, verdict and report, from reading alone.
#[derive(Debug)]
pub(crate) struct Assessment {
    survey: Survey,
    /// `None` if the directory has no log yet.
    pub(crate) judged: Option<Judged>,
    pub(crate) report: RecoveryReport,
}

/// Reads and judges a log. Blocking. Changes nothing and takes no lock.
///
/// Opening and inspecting a log both use this judge.
pub(crate) fn assess(storage: &dyn Storage, config: &Config) -> Result<Assessment> {
    assess_in(storage, config).map_err(|error| error.in_log(&storage.location()))
}

fn assess_in(storage: &dyn Storage, config: &Config) -> Result<Assessment> {
    let survey = survey(storage)?;
    refuse_last_numbers(&survey)?;
    let mut report = RecoveryReport { warnings: survey.warnings.clone(), ..Default::default() };
    let judged = if rebuild::is_uncreated(storage, &survey)? {
        if let Some(closed) = &survey.last_close {
            refuse_emptied(storage, config, closed, &mut report)?;
        }
        report.is_new = true;
        None
    } else {
        let mut judged = match config.on_damage {
            OnDamage::Strict => judge_log(storage, &survey, config)?,
            OnDamage::TruncateAtDamage => judge_or_cut(storage, &survey, config)?,
        };
        report.was_closed = judged.verdict == Verdict::CleanClose;
        report.first = judged.chain.first;
        report.end = judged.end;
        report.committed = judged.commitment;
        report.segment_count = judged.chain.members.len();
        report.scanned_bytes = judged.scanned_bytes;
        report.cut = judged.cut.clone();
        report.warnings.extend(judged.warnings.iter().cloned());
        report.warnings.extend(unexpected_lengths(&survey, &judged.chain));
        let recovered = recover_slots(storage, &judged, config.on_damage)?;
        report.warnings.extend(recovered.warning);
        report.scanned_bytes += recovered.read_bytes;
        judged.slots = recovered.slots;
        judged.times = recovered.times;
        Some(judged)
    };
    Ok(Assessment { survey, judged, report })
}

/// Returns a warning for each file whose length is not the one in its header.
///
/// A segment whose unused end was given back to the file system gets none: its successor begins
/// within the file.
fn unexpected_lengths(survey: &Survey, chain: &Chain) -> Vec<Warning> {
    let is_given_back = |segment: &SurveyedSegment, header: &SegmentHeader| {
        let successor = chain
            .members
            .iter()
            .find(|member| member.header.previous.is_some_and(|link| link == header.link()));
        let used = successor.map(|next| file_offset(header.base, next.header.base));
        used.is_some_and(|used| (used..header.file_bytes).contains(&segment.bytes))
    };
    let unexpected = survey.segments.iter().filter_map(|segment| {
        let header = segment.header.filter(|header| header.file_bytes != segment.bytes)?;
        (!is_given_back(segment, &header)).then(|| Warning::UnexpectedLength {
            name: segment.sequence.file_name(),
            bytes: segment.bytes,
            expected_bytes: header.file_bytes,
        })
    });
    unexpected.collect()
}

/// Refuses a directory without segments in which a log with records was closed.
///
/// With [`OnDamage::TruncateAtDamage`] this is a warning.
fn refuse_emptied(
    storage: &dyn Storage,
    config: &Config,
    closed: &LastClose,
    report: &mut RecoveryReport,
) -> Result<()> {
    if closed.end == Lsn::ZERO {
        return Ok(());
    }
    if config.on_damage == OnDamage::TruncateAtDamage {
        report.warnings.push(Warning::DurableDataCut { lsn: Lsn::ZERO, synced: closed.end });
        return Ok(());
    }
    Err(Error::Corrupt {
        directory: String::new(),
        lsn: Lsn::ZERO,
        segment: Sequence(closed.sequence).file_name(),
        offset: 0,
        synced: closed.end,
        reason: format!(
            "no segment holds a record, but {} shows that a log was closed here; to begin a new \
             log in {}, remove {0}",
            LAST_CLOSE,
            storage.location()
        ),
    })
}

/// Refuses a file whose number leaves too few numbers for later segments.
fn refuse_last_numbers(survey: &Survey) -> Result<()> {
    if survey.sequence_max.leaves_room() {
        return Ok(());
    }
    let reason = "the file's number leaves too few numbers for later segments; if the file is not \
                  part of this log, move it out of the directory";
    Err(Error::Corrupt {
        directory: String::new(),
        lsn: Lsn::ZERO,
        segment: survey.sequence_max.file_name(),
        offset: 0,
        synced: Lsn::ZERO,
        reason: reason.to_owned(),
    })
}

/// Refuses to write to a standby. Its epochs and records come from another log.
fn refuse_standby(storage: &dyn Storage) -> Result<()> {
    match list(storage)?.iter().any(|name| name == STANDBY) {
        true => Err(Error::Standby { path: storage.location() }),
        false => Ok(()),
    }
}

/// Makes a promoted standby a log that is opened as any other.
///
/// The header of the new term is durable. A crash before the removal leaves a standby that is
/// promoted again.
fn remove_standby(storage: &dyn Storage, config: &Config) -> Result<()> {
    if config.promote_to.is_none() || list(storage)?.iter().all(|name| name != STANDBY) {
        return Ok(());
    }
    let removed = storage.remove(STANDBY);
    removed.map_err(|error| Error::io("removing", STANDBY, None, error))?;
    sync_directory(storage)
}

/// Refuses a directory that holds only foreign files, or an unfinished copy of a log.
pub(crate) fn refuse_foreign(storage: &dyn Storage) -> Result<()> {
    let names = list(storage)?;
    if names.iter().any(|name| name == UNFINISHED_COPY) {
        return Err(Error::UnfinishedCopy { path: storage.location() });
    }
    let is_ours = |name: &str| {
        Sequence::parse(name).is_some()
            || is_kept_cut(name)
            || is_recycled(name)
            || is_receiving(name)
            || name == LAST_CLOSE
            || name == STANDBY
    };
    if names.is_empty() || names.iter().any(|name| is_ours(name)) {
        return Ok(());
    }
    let found: Vec<_> = names.iter().map(String::as_str).collect();
    Err(Error::NotALog { path: storage.location(), found: listed(&found) })
}

fn take_lock(storage: &dyn Storage) -> Result<Box<dyn Any + Send + Sync>> {
    let mut pause_ms = 1;
    loop {
        match storage.lock() {
            Ok(Locking::Held(lock)) => return Ok(lock),
            // A handle of this process that was just dropped keeps the lock until its last job
            // ends. That takes one write or flush.
            Ok(Locking::Busy { owner })
                if owner.is_brief()
                    && !storage.is_nonblocking()
                    && pause_ms <= LOCK_PAUSE_MS_MAX =>
            {
                pause(Duration::from_millis(pause_ms));
                pause_ms *= 2;
            }
            Ok(Locking::Busy { owner }) => {
                return Err(Error::Locked { path: storage.location(), owner });
            }
            Err(error) => return Err(Error::io("locking", storage.location(), None, error)),
        }
    }
}

/// The longest pause. The pauses double from 1 ms and take 255 ms in total.
const LOCK_PAUSE_MS_MAX: u64 = 128;

/// The segments of a log that is not open for writing yet.
#[derive(Debug)]
struct UnopenedSource {
    segments: SegmentSet,
    record_bytes_max: u64,
    synced: Lsn,
}

impl ChunkSource for UnopenedSource {
    fn segment_at(&self, lsn: Lsn, until: Lsn) -> Result<SegmentReader> {
        let Some((info, successor)) = self.segments.find(lsn) else {
            return Err(Error::outside(lsn, Lsn::ZERO, until));
        };
        let place = WalkBounds {
            seed: info.seed,
            end: successor.unwrap_or(until),
            record_bytes_max: self.record_bytes_max,
        };
        Ok(SegmentReader { file: self.segments.open(info.sequence)?, base: info.base, place })
    }

    fn explain(&self, reader: &SegmentReader, lsn: Lsn, _until: Lsn, stop: Stop) -> Error {
        damage(reader, lsn, stop, self.synced)
    }
}
