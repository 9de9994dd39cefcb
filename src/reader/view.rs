//! Holds the reader's knowledge of a log, and updates it.
//!
//! The first look reads the whole state, as opening does. Later looks read the changes.
//!
//! The writer neither waits for the reader nor knows of it. This is safe because of the order in
//! which the writer writes. A unit is written before the claim that commits it. All units of a
//! segment are written before the header of the next segment. The units of a new epoch are written
//! before the header of its first segment. So a look reads in the opposite order: the headers
//! first, then the units before them. If something is invalid that should be valid, the look is
//! repeated. Only the judge of opening decides that bytes are damaged.

use std::{io, sync::Arc, time::Duration};

use crate::{
    error::{ClosedBy, Error, Result},
    format::{
        frame::Seed,
        header::ParsedHeader,
        scan::{self, Stop, to_usize},
    },
    inspect::Frozen,
    lsn::Lsn,
    options::Config,
    reader::listed::Listed,
    recovery::{
        Chain, Member, RecoveryReport, assess, first_recorded_in, link_up, list, read_header,
        refuse_foreign, refuse_unsupported,
    },
    replay::damage,
    sabotage::{self, Sabotage},
    segments::{Chunk, SegmentFile, SegmentReader, Sequence},
    storage::{Place, Storage},
    turn::pause,
};

/// The number of looks before damage counts, because it may be a write in progress.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(3);
/// The number of attempts with a missing file before the log is judged again.
const ATTEMPTS: u32 = 4;
/// The number of consecutive looks with the same doubtful bytes before the first judgement.
const DOUBTFUL_LOOKS_MIN: u64 = 4;
/// The maximum number of looks between two judgements. The number doubles up to this value.
const DOUBTFUL_LOOKS_MAX: u64 = 512;
const CHUNK_BYTES: u64 = 256 << 10;
/// The bytes that are read of a log that has not grown.
const GLANCE_BYTES: u64 = 4 << 10;

/// The knowledge of a reader about a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// The segments, oldest first. Empty if there is no log yet.
    pub(super) members: Arc<Vec<Member>>,
    pub(super) first: Lsn,
    /// The first position without a valid unit.
    pub(super) end: Lsn,
    /// The highest position that a header or a frame before `end` claims was synced.
    pub(super) committed: Lsn,
}

impl View {
    /// Returns the end of what a reader shows.
    pub(super) fn shown_end(&self, shows_written: bool) -> Lsn {
        let is_all = shows_written || sabotage::is_on(Sabotage::FollowUnsynced);
        if is_all { self.end } else { self.committed }
    }
}

/// Judges the log as opening does. Repeats that while an error may be a race.
pub(super) fn judge(storage: &Arc<dyn Storage>, config: &Config) -> Result<(View, RecoveryReport)> {
    refuse_foreign(storage.as_ref())?;
    let mut look_count = 0;
    loop {
        look_count += 1;
        let names = list(storage.as_ref())?;
        let assessed = match look_count {
            // A frozen storage costs a read of the end of each file, so it is used only from the
            // second look on.
            1 => assess(storage.as_ref(), config),
            _ => Frozen::new(Arc::clone(storage)).and_then(|frozen| assess(&frozen, config)),
        };
        match assessed {
            Ok(assessed) => {
                let chain = assessed.judged.map(|judged| judged.chain).unwrap_or_default();
                let report = assessed.report;
                let (first, end, committed) = (report.first, report.end, report.committed);
                let members = Arc::new(chain.members);
                return Ok((View { members, first, end, committed }, report));
            }
            Err(error) if look_count == LOOKS || !may_be_a_race(&error) => {
                let is_doubtful = error.is_corrupt();
                let gone = gone_since(storage.as_ref(), &names)?.filter(|_| is_doubtful);
                return Err(gone.unwrap_or(error));
            }
            Err(_) if look_count > 1 && !storage.is_nonblocking() => pause(PAUSE),
            Err(_) => {}
        }
    }
}

/// Returns an error if one of the files was removed.
///
/// Such a file may have been reused, so its contents prove nothing.
fn gone_since(storage: &dyn Storage, names: &[String]) -> Result<Option<Error>> {
    let now = list(storage)?;
    let gone = names.iter().find(|name| !now.contains(name));
    let error = |name: &String| {
        let error = Error::io("reading", name.clone(), None, io::ErrorKind::NotFound.into());
        error.in_log(&storage.location())
    };
    Ok(gone.map(error))
}

fn may_be_a_race(error: &Error) -> bool {
    error.is_corrupt() || error.is_not_found()
}

fn is_same(one: &Member, other: &Member) -> bool {
    one.sequence == other.sequence && one.header.incarnation == other.header.incarnation
}

/// Returns the position from which on a cut has replaced records of `old`.
fn replaced_from(old: &View, new: &View) -> Option<Lsn> {
    let newest = old.members.last()?;
    let place = |of: &Member| new.members.iter().position(|member| is_same(of, member));
    let common = old.members.iter().rev().find_map(place);
    let next = new.members.get(common.map_or(0, |at| at + 1))?;
    let is_cut = next.header.epoch > newest.header.epoch && next.header.base < old.end;
    is_cut.then_some(next.header.base)
}

/// Polls the directory and tracks changes.
#[derive(Clone, Debug)]
pub(super) struct Tracker {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) config: Config,
    pub(super) view: View,
    /// The position of doubtful bytes, and the number of consecutive looks that met them.
    doubt: (Lsn, u64),
    listed: Listed,
}

impl Tracker {
    pub(super) fn new(storage: Arc<dyn Storage>, config: Config, view: View) -> Self {
        Tracker { storage, config, view, doubt: (Lsn::ZERO, 0), listed: Listed::default() }
    }

    /// Reads the changes. Returns the position from which on a cut has replaced known records.
    /// Blocking.
    ///
    /// # Errors
    ///
    /// `Corrupt` if a committed record is damaged; `Io`; an unsupported frame or header of a later
    /// release. An error leaves the view unchanged.
    pub(super) fn advance(&mut self) -> Result<Option<Lsn>> {
        let stamp = self.storage.stamp().ok().flatten();
        if !self.listed.is_due(stamp) {
            if let Ok(Some(done)) = self.glance() {
                return Ok(done);
            }
        }
        // If this fails, the next look lists the directory, too.
        let listed = std::mem::take(&mut self.listed);
        let done = self.advance_listed();
        if done.is_ok() {
            self.listed = listed;
        }
        done
    }

    /// Reads only the newest segment. The cost does not depend on the number of segments.
    ///
    /// Returns `None` if that is not sufficient.
    fn glance(&mut self) -> Result<Option<Option<Lsn>>> {
        let Some(newest) = self.view.members.last().copied() else { return Ok(None) };
        // The next segment may have been created within the granularity of the directory's times.
        let is_absent = match self.member(newest.sequence.next()) {
            Ok(begun) => begun.is_none(),
            Err(error) => error.is_not_found(),
        };
        let is_kept = self.storage.check_place().is_ok_and(|place| place == Place::Kept);
        if !is_absent || !is_kept {
            return Ok(None);
        }
        if self.doubt.1 == 0 && self.is_blank_at_end(&newest)? {
            return Ok(Some(None));
        }
        self.walk(self.view.clone(), None).map(Some)
    }

    /// Returns whether nothing was written after the known end.
    fn is_blank_at_end(&self, newest: &Member) -> Result<bool> {
        let reader = reader_of(&self.storage, &self.config, newest, None)?;
        let room = reader.place.end.since(self.view.end).min(GLANCE_BYTES);
        Ok(reader.read(self.view.end, room)?.iter().all(|&byte| byte == 0))
    }

    fn advance_listed(&mut self) -> Result<Option<Lsn>> {
        for _ in 0..ATTEMPTS {
            match self.try_advance() {
                // The file was removed after the listing, so the names have changed.
                Err(error) if error.is_not_found() => {}
                done => return done,
            }
        }
        self.rejudge()
    }

    /// Judges the whole log, as opening does.
    pub(super) fn rejudge(&mut self) -> Result<Option<Lsn>> {
        let (mut view, _) = judge(&self.storage, &self.config)?;
        let id = |view: &View| view.members.last().map(|member| member.header.log_id);
        if id(&self.view).is_some_and(|old| id(&view) != Some(old)) {
            return Err(Error::Closed { by: ClosedBy::Replaced });
        }
        let replaced = replaced_from(&self.view, &view);
        let known = self.view.committed.min(replaced.unwrap_or(self.view.committed));
        view.committed = view.committed.max(known).min(view.end);
        self.view = view;
        Ok(replaced)
    }

    fn try_advance(&mut self) -> Result<Option<Lsn>> {
        let names = list(self.storage.as_ref())?;
        let Some(newest) = self.view.members.last().copied() else {
            return self.rejudge();
        };
        let mut sequences: Vec<_> = names.iter().filter_map(|name| Sequence::parse(name)).collect();
        if !sequences.contains(&newest.sequence) && sequences.last() <= Some(&newest.sequence) {
            return self.rejudge();
        }
        sequences.retain(|sequence| *sequence > newest.sequence);
        let mut found = Vec::new();
        // The newest first: if its header exists, all earlier headers exist, too.
        for sequence in sequences.into_iter().rev() {
            found.extend(self.member(sequence)?);
        }
        found.reverse();
        if found.is_empty() {
            return self.walk(self.view.clone(), None);
        }
        let candidates = [self.view.members.as_slice(), &found].concat();
        let chain = link_up(&candidates, self.view.first);
        if chain.gap.is_some() {
            // Segments were created and removed since the last look, or a crash left segments above
            // a gap.
            let is_due = self.is_judgement_due(self.view.end, true);
            return if is_due { self.rejudge() } else { Ok(None) };
        }
        let (members, first) = (Arc::new(chain.members), chain.first);
        let mut view = View { members, first, ..self.view.clone() };
        let replaced = replaced_from(&self.view, &view);
        if let Some(from) = replaced {
            view.end = view.end.min(from);
            view.committed = view.committed.min(from);
        }
        self.walk(view, replaced)
    }

    /// Returns the segment with this number, if its header is complete.
    fn member(&self, sequence: Sequence) -> Result<Option<Member>> {
        let file = SegmentFile::open(self.storage.as_ref(), sequence)?;
        match read_header(&file)?.parsed {
            ParsedHeader::Valid(header) => {
                Ok(Some(Member { sequence, header, bytes: file.bytes()? }))
            }
            other => refuse_unsupported(file.name(), &other).map(|()| None),
        }
    }

    /// Walks from the view's end, which is a boundary of units.
    fn walk(&mut self, mut view: View, replaced: Option<Lsn>) -> Result<Option<Lsn>> {
        let mut claimed = view.committed;
        let is_known = Arc::ptr_eq(&view.members, &self.view.members);
        // The claims of known headers are included in `committed` already.
        for member in view.members.iter().filter(|_| !is_known) {
            claimed = claimed.max(member.header.synced);
        }
        let holding = view.members.partition_point(|member| member.header.base <= view.end);
        let mut index = holding.saturating_sub(1);
        loop {
            let Some(member) = view.members.get(index) else { return self.rejudge() };
            let successor = view.members.get(index + 1).map(|next| next.header.base);
            let reader = reader_of(&self.storage, &self.config, member, successor)?;
            let (stop, is_blank) = walk_segment(&reader, &mut view, &mut claimed)?;
            if successor == Some(view.end) {
                index += 1;
                continue;
            }
            let is_settled = successor.is_none()
                && claimed <= view.end
                && (stop == Stop::SegmentEnd || (stop == Stop::Blank && is_blank));
            // The header was read before the segments below it, so all their units exist.
            let is_late = successor.is_some() || claimed > view.end;
            if !is_settled && self.is_judgement_due(view.end, is_late) {
                return self.rejudge();
            }
            if is_settled {
                self.doubt = (Lsn::ZERO, 0);
            }
            break;
        }
        if claimed > view.end {
            // The log was judged before. Nothing above the damage is shown.
            return Ok(None);
        }
        view.committed = claimed;
        if !is_known || view.first > self.view.first {
            let (members, first) = (view.members.to_vec(), view.first);
            let mut chain = Chain { members, first, ..Chain::default() };
            chain.begin_at(first);
            view.members = Arc::new(chain.members);
        }
        self.view = view;
        Ok(replaced)
    }

    /// Counts a look that met doubtful bytes, and returns whether the log must be judged.
    ///
    /// The first judgement is due immediately if no race explains the bytes. Later ones become
    /// rarer.
    fn is_judgement_due(&mut self, at: Lsn, is_late: bool) -> bool {
        let (place, count) = &mut self.doubt;
        *count = if *place == at { count.saturating_add(1) } else { 1 };
        *place = at;
        let is_due = count.is_power_of_two() || *count % DOUBTFUL_LOOKS_MAX == 0;
        is_due && (is_late || *count >= DOUBTFUL_LOOKS_MIN)
    }
}

pub(super) fn reader_of(
    storage: &Arc<dyn Storage>,
    config: &Config,
    member: &Member,
    successor: Option<Lsn>,
) -> Result<SegmentReader> {
    let file = Arc::new(SegmentFile::open(storage.as_ref(), member.sequence)?);
    Ok(SegmentReader { file, base: member.header.base, place: place_of(member, successor, config) })
}

pub(super) fn place_of(
    member: &Member,
    successor: Option<Lsn>,
    config: &Config,
) -> scan::WalkBounds {
    let file_end = member.file_end();
    scan::WalkBounds {
        seed: Seed::new(member.header.log_id, member.header.epoch),
        end: successor.map_or(file_end, |next| next.min(file_end)),
        record_bytes_max: config.record_bytes_max,
    }
}

/// Walks to the first position without a valid unit.
///
/// Returns the reason for the stop, and whether all bytes read after the position are zero.
fn walk_segment(
    reader: &SegmentReader,
    view: &mut View,
    claimed: &mut Lsn,
) -> Result<(Stop, bool)> {
    loop {
        let from = view.end;
        let chunk = reader.read_chunk(from, reader.place.end, CHUNK_BYTES)?;
        for frame in &chunk.frames {
            *claimed = (*claimed).max(frame.commitment.unwrap_or_default());
            view.first = view.first.max(first_recorded_in(frame));
        }
        view.end = chunk.next;
        match chunk.stop {
            None => {}
            Some(stop @ (Stop::Unsupported { .. } | Stop::AboveLimit { .. })) => {
                let error = damage(reader, view.end, stop, *claimed);
                // An intact frame that cannot be read is an error. Otherwise it may be incomplete.
                return if error.is_corrupt() { Ok((stop, false)) } else { Err(error) };
            }
            Some(stop) => return Ok((stop, is_blank_behind(&chunk, from))),
        }
    }
}

fn is_blank_behind(chunk: &Chunk, from: Lsn) -> bool {
    let rest = chunk.bytes.get(to_usize(chunk.next.since(from))..).unwrap_or_default();
    rest.iter().all(|&byte| byte == 0)
}
