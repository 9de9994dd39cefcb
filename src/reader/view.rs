//! What a reader knows of a log, and how it learns more: by one look at all of it, as opening does,
//! and from then on by looks at what is new.
//!
//! The writer is never waited for and never asked. What makes that safe is the order in which it
//! writes: a unit before what commits it, all units of a segment before the header of the next, a
//! new epoch's units before the header that makes them count. A look therefore takes what comes
//! later first: the headers, then what stands before them. Whatever doesn't hold although it should
//! is looked at again; only the judge of opening may call it damage.

use std::{io, sync::Arc, time::Duration};

use crate::{
    error::{Error, Result},
    format::{
        frame::Seed,
        header::{ParsedHeader, VERSION},
        scan::{Place, Stop, to_usize},
    },
    inspect::Frozen,
    lsn::Lsn,
    options::Config,
    recovery::{
        Chain, Member, RecoveryReport, first_told_by, link_up, list, look, read_header,
        refuse_foreign,
    },
    replay::damage,
    segments::{Chunk, SegmentFile, SegmentReader, Sequence},
    storage::Storage,
    turn::pause,
};

/// What looks damaged beside a writer may be a write on its way: worth another look, so often.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(3);
/// How often files may be gone between listing and opening, before all is looked at anew.
const ATTEMPTS: u32 = 4;
/// So many looks in a row find the same doubtful bytes before the judge is asked.
const DOUBTFUL_LOOKS_MIN: u64 = 4;
/// It is asked again after twice as many, and after these at the latest.
const DOUBTFUL_LOOKS_MAX: u64 = 512;
const CHUNK_BYTES: u64 = 256 << 10;

/// A log, as far as a reader knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Its segments, oldest first; none if there is no log yet.
    pub(super) members: Vec<Member>,
    pub(super) first: Lsn,
    /// The first place where no valid unit stands.
    pub(super) end: Lsn,
    /// The highest position that anything before `end` claims was synced.
    pub(super) committed: Lsn,
}

/// Reads and judges as opening does, and again for as long as what is wrong may be a race.
pub(super) fn judge(storage: &Arc<dyn Storage>, config: &Config) -> Result<(View, RecoveryReport)> {
    refuse_foreign(storage.as_ref())?;
    let mut look_count = 0;
    loop {
        look_count += 1;
        let names = list(storage.as_ref())?;
        let looked = match look_count {
            // A frozen storage costs a read of each file's end, so only where there is doubt.
            1 => look(storage.as_ref(), config),
            _ => Frozen::new(Arc::clone(storage)).and_then(|frozen| look(&frozen, config)),
        };
        match looked {
            Ok(looked) => {
                let chain = looked.judged.map(|judged| judged.chain).unwrap_or_default();
                let report = looked.report;
                let (first, end, committed) = (report.first, report.end, report.committed);
                return Ok((View { members: chain.members, first, end, committed }, report));
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

/// Whether one of the files isn't there any more. It may be in use again by now, and what was read in
/// it says nothing then.
fn gone_since(storage: &dyn Storage, names: &[String]) -> Result<Option<Error>> {
    let now = list(storage)?;
    let gone = names.iter().find(|name| !now.contains(name));
    let error =
        |name: &String| Error::io("reading", name.clone(), None, io::ErrorKind::NotFound.into());
    Ok(gone.map(error))
}

fn may_be_a_race(error: &Error) -> bool {
    error.is_corrupt() || error.is_not_found()
}

fn is_same(one: &Member, other: &Member) -> bool {
    one.sequence == other.sequence && one.header.incarnation == other.header.incarnation
}

/// From where on a cut has replaced what `old` shows.
fn replaced_from(old: &View, new: &View) -> Option<Lsn> {
    let newest = old.members.last()?;
    let place = |of: &Member| new.members.iter().position(|member| is_same(of, member));
    let common = old.members.iter().rev().find_map(place);
    let next = new.members.get(common.map_or(0, |at| at + 1))?;
    let is_cut = next.header.epoch > newest.header.epoch && next.header.base < old.end;
    is_cut.then_some(next.header.base)
}

/// One who looks again and again.
#[derive(Clone, Debug)]
pub(super) struct Tracker {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) config: Config,
    pub(super) view: View,
    /// Where something stands that isn't valid, and how many looks in a row met it.
    doubt: (Lsn, u64),
}

impl Tracker {
    pub(super) fn new(storage: Arc<dyn Storage>, config: Config, view: View) -> Self {
        Tracker { storage, config, view, doubt: (Lsn::ZERO, 0) }
    }

    /// Looks for what is new. Blocks. Gives the position from which on a cut has replaced what was
    /// known before.
    ///
    /// # Errors
    ///
    /// `Corrupt` if what was committed is damaged; `Io`; what a later release wrote. The view is as
    /// it was then.
    pub(super) fn advance(&mut self) -> Result<Option<Lsn>> {
        for _ in 0..ATTEMPTS {
            match self.try_advance() {
                // Removed since it was listed: by now there is something else in its place.
                Err(error) if error.is_not_found() => {}
                done => return done,
            }
        }
        self.rejudge()
    }

    /// Looks at all of it, as opening does.
    pub(super) fn rejudge(&mut self) -> Result<Option<Lsn>> {
        let (mut view, _) = judge(&self.storage, &self.config)?;
        let id = |view: &View| view.members.last().map(|member| member.header.log_id);
        if id(&self.view).is_some_and(|old| id(&view) != Some(old)) {
            return Err(Error::Closed { reason: "another log stands in the directory" });
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
        // The newest first: where it is, those before it are.
        for sequence in sequences.into_iter().rev() {
            found.extend(self.member(sequence)?);
        }
        found.reverse();
        if found.is_empty() {
            return self.walk(self.view.clone(), None);
        }
        let candidates = [self.view.members.as_slice(), &found].concat();
        let chain = link_up(&candidates, self.view.first);
        if chain.broken.is_some() {
            // Segments came and went since the last look, or what a crash has left hangs there.
            let is_due = self.is_to_be_judged(self.view.end, true);
            return if is_due { self.rejudge() } else { Ok(None) };
        }
        let mut view = View { members: chain.members, first: chain.first, ..self.view.clone() };
        let replaced = replaced_from(&self.view, &view);
        if let Some(from) = replaced {
            view.end = view.end.min(from);
            view.committed = view.committed.min(from);
        }
        self.walk(view, replaced)
    }

    /// The segment with this number, if it has been begun. One whose header is being written right
    /// now hasn't.
    fn member(&self, sequence: Sequence) -> Result<Option<Member>> {
        let file = SegmentFile::open(self.storage.as_ref(), sequence)?;
        match read_header(&file)?.parsed {
            ParsedHeader::Valid(header) => {
                Ok(Some(Member { sequence, header, bytes: file.bytes()? }))
            }
            ParsedHeader::Blank | ParsedHeader::Damaged => Ok(None),
            ParsedHeader::Newer { version } => Err(Error::UnsupportedVersion {
                segment: file.name().to_owned(),
                version,
                supported: VERSION,
            }),
            ParsedHeader::UnknownFlags { flags } => Err(Error::UnsupportedFrame {
                segment: file.name().to_owned(),
                offset: 0,
                lsn: Lsn::ZERO,
                kind: 0,
                flags,
            }),
        }
    }

    /// Goes on from the view's end, which is a boundary of units.
    fn walk(&mut self, mut view: View, replaced: Option<Lsn>) -> Result<Option<Lsn>> {
        let mut claimed = view.committed;
        for member in &view.members {
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
            // A header was there before its segment was read, and so were the units before it.
            let is_late = successor.is_some() || claimed > view.end;
            if !is_settled && self.is_to_be_judged(view.end, is_late) {
                return self.rejudge();
            }
            if is_settled {
                self.doubt = (Lsn::ZERO, 0);
            }
            break;
        }
        if claimed > view.end {
            // Judged before: above the damage nothing is shown.
            return Ok(None);
        }
        view.committed = claimed;
        let mut chain = Chain { members: view.members, first: view.first, ..Chain::default() };
        chain.begin_at(view.first);
        view.members = chain.members;
        self.view = view;
        Ok(replaced)
    }

    /// Whether doubtful bytes have stood there for so many looks that the judge is to be asked: at
    /// once if no race explains them, and ever less often.
    fn is_to_be_judged(&mut self, at: Lsn, is_late: bool) -> bool {
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

pub(super) fn place_of(member: &Member, successor: Option<Lsn>, config: &Config) -> Place {
    let file_end = member.file_end();
    Place {
        seed: Seed::new(member.header.log_id, member.header.epoch),
        end: successor.map_or(file_end, |next| next.min(file_end)),
        record_bytes_max: config.record_bytes_max,
    }
}

/// Walks to where no valid unit stands, and says whether all that was read behind it is zero.
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
            view.first = view.first.max(first_told_by(frame));
        }
        view.end = chunk.next;
        match chunk.stop {
            None => {}
            Some(stop @ (Stop::Unsupported { .. } | Stop::AboveLimit { .. })) => {
                let error = damage(reader, view.end, stop, *claimed);
                // Whole, and not to be had; or not whole yet.
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
