//! Opening: finds the end of the log, judges it, and makes it writable again.
//!
//! Reading comes first and changes nothing ([`Opening::begin`]); what changes the log
//! ([`Opening::finish`]) never overwrites: what lies above the highest commitment is written anew,
//! under the next epoch, into a fresh segment. `docs/DURABILITY.md` has the steps and their crash
//! states.

mod chain;
mod headless;
mod judged;
mod keep;
mod rebuild;
mod report;
mod salvage;
mod scan;
mod survey;

use std::{any::Any, sync::Arc, time::Duration};

pub(crate) use chain::{Chain, Member, link_up};
pub use report::{Cut, CutCopy, DurableCut, RecoveryReport, Warning};
pub(crate) use scan::first_told_by;
pub(crate) use survey::{list, read_header};

use crate::{
    error::{Error, Result},
    executor::Executor,
    format::{
        judge::Verdict,
        scan::{Place, Stop},
    },
    lsn::Lsn,
    options::{Config, OnDamage},
    pipeline::Start,
    recovery::{
        judged::{Judged, judge_log},
        salvage::judge_or_cut,
        survey::{Survey, survey},
    },
    replay::{ChunkSource, damage},
    segments::{SegmentReader, SegmentSet, Sequence, UNFINISHED_COPY, is_kept_cut, is_recycled},
    storage::{Locking, Storage},
    turn::pause,
};

/// A log that was found and judged, and not changed yet.
#[derive(Debug)]
pub(crate) struct Opening {
    storage: Arc<dyn Storage>,
    config: Config,
    lock: Option<Box<dyn Any + Send + Sync>>,
    /// `None` if there is no log yet.
    judged: Option<Judged>,
    survey: Survey,
    pub(crate) report: RecoveryReport,
}

impl Opening {
    /// Locks, reads and judges. Blocks; changes nothing but the lock file.
    pub(crate) fn begin(storage: Arc<dyn Storage>, config: Config, lock: bool) -> Result<Self> {
        // What is said of single files below belongs to this log.
        let _opening = tracing::debug_span!("opening", log = storage.location()).entered();
        // Before the lock, which leaves a file: not in a directory that is none of ours.
        refuse_foreign(storage.as_ref())?;
        let lock = if lock { Some(take_lock(storage.as_ref())?) } else { None };
        let Looked { survey, judged, report } = look(storage.as_ref(), &config)?;
        Ok(Opening { storage, config, lock, judged, survey, report })
    }

    /// What is to be read: from the first record to the end.
    pub(crate) fn source(&self) -> (Arc<dyn ChunkSource>, Lsn, Lsn) {
        let members = self.judged.iter().flat_map(|judged| &judged.chain.members);
        let infos = members.map(Member::info);
        let segments = SegmentSet::new(Arc::clone(&self.storage), infos.collect());
        let record_bytes_max = self.config.record_bytes_max;
        let synced = self.report.committed;
        let source = FoundSource { segments, record_bytes_max, synced };
        (Arc::new(source), self.report.first, self.report.end)
    }

    /// Makes the log writable: creates it, goes on in its active segment or begins a new epoch.
    /// Blocks.
    pub(crate) fn finish(mut self, executor: Arc<dyn Executor>) -> Result<(Start, RecoveryReport)> {
        let _opening = tracing::debug_span!("opening", log = self.storage.location()).entered();
        let mut report = std::mem::take(&mut self.report);
        // First, as the device may be full.
        rebuild::remove_recycled(self.storage.as_ref(), &self.survey)?;
        let ready = match &self.judged {
            None => rebuild::create(self.storage.as_ref(), &self.config, &self.survey)?,
            Some(judged)
                if judged.verdict == Verdict::CleanClose
                    && !rebuild::is_shared(self.storage.as_ref(), judged)? =>
            {
                rebuild::go_on(self.storage.as_ref(), judged)?
            }
            Some(judged) => {
                let (storage, config) = (self.storage.as_ref(), &self.config);
                rebuild::begin_epoch(storage, config, judged, &self.survey, &mut report)?
            }
        };
        report.segment_count = ready.segments.len();
        let last = self.survey.sequence_max;
        let rewrote_records =
            |judged: &Judged| report.rewritten_bytes > 0 && judged.records_end > judged.commitment;
        let newest = self.judged.as_ref().and_then(|judged| judged.chain.members.last());
        let start = Start {
            hint: newest.and_then(|newest| newest.header.hint),
            // Control records alone need none: it would make each opening of an unclosed log keep
            // the segment that the one before began.
            needs_mark: self.judged.as_ref().is_some_and(rewrote_records),
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

/// What reading alone says of a log.
#[derive(Debug)]
pub(crate) struct Looked {
    survey: Survey,
    /// `None` if there is no log yet.
    pub(crate) judged: Option<Judged>,
    pub(crate) report: RecoveryReport,
}

/// Reads and judges. Blocks; changes nothing and takes no lock: the one judge of opening and of
/// inspecting.
pub(crate) fn look(storage: &dyn Storage, config: &Config) -> Result<Looked> {
    let survey = survey(storage)?;
    let mut report = RecoveryReport { warnings: survey.warnings.clone(), ..Default::default() };
    let judged = if rebuild::is_uncreated(storage, &survey)? {
        report.is_new = true;
        None
    } else {
        let judged = match config.on_damage {
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
        Some(judged)
    };
    Ok(Looked { survey, judged, report })
}

/// A directory that holds files, and none of a log, or a part of one.
pub(crate) fn refuse_foreign(storage: &dyn Storage) -> Result<()> {
    let names = list(storage)?;
    if names.iter().any(|name| name == UNFINISHED_COPY) {
        return Err(Error::UnfinishedCopy { path: storage.location() });
    }
    let is_ours =
        |name: &str| Sequence::parse(name).is_some() || is_kept_cut(name) || is_recycled(name);
    let is_foreign = |name: &&String| !is_ours(name);
    match names.iter().find(is_foreign) {
        Some(found) if names.iter().all(|name| is_foreign(&name)) => {
            Err(Error::NotALog { path: storage.location(), found: found.clone() })
        }
        _ => Ok(()),
    }
}

fn take_lock(storage: &dyn Storage) -> Result<Box<dyn Any + Send + Sync>> {
    let mut pause_ms = 1;
    loop {
        match storage.lock() {
            Ok(Locking::Held(lock)) => return Ok(lock),
            // A handle of this process that was just dropped keeps the lock until its last job has
            // ended: that is a matter of one write or flush.
            Ok(Locking::Busy { owner_pid })
                if owner_pid == Some(std::process::id())
                    && !storage.is_nonblocking()
                    && pause_ms <= LOCK_PAUSE_MS_MAX =>
            {
                pause(Duration::from_millis(pause_ms));
                pause_ms *= 2;
            }
            Ok(Locking::Busy { owner_pid }) => {
                return Err(Error::Locked { path: storage.location(), owner_pid });
            }
            Err(error) => return Err(Error::io("locking", storage.location(), None, error)),
        }
    }
}

/// The pauses double up to this one, so that all of them together take a quarter of a second.
const LOCK_PAUSE_MS_MAX: u64 = 128;

/// The segments of a log that isn't open for writing yet.
#[derive(Debug)]
struct FoundSource {
    segments: SegmentSet,
    record_bytes_max: u64,
    synced: Lsn,
}

impl ChunkSource for FoundSource {
    fn segment_at(&self, lsn: Lsn, until: Lsn) -> Result<SegmentReader> {
        let Some((info, successor)) = self.segments.find(lsn) else {
            return Err(Error::OutOfRange { lsn, first: Lsn::ZERO, end: until });
        };
        let place = Place {
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
