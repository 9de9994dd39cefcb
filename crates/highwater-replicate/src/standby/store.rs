//! [`Store`]: takes the bytes that arrive into the directory of the copy. Blocking.
//!
//! No byte is written before its frame was verified, and no frame before everything that it claims
//! is durable here. `docs/REPLICATION.md` has the crash state of each step.

use bytes::{Bytes, BytesMut};
use highwater::{
    Lsn,
    shipping::{self, Accepted, Frames, Header, Pause, SegmentId},
};
use tokio::sync::watch;

use crate::{
    error::{Error, Result},
    marks::{Marks, Reported},
    mistake::{self, Mistake},
    options::{OnDivergence, Options},
    positions::{after, bytes_between},
    standby::{
        adopt::{first_missing, first_record},
        disk::{Disk, OpenFile},
        marker::{Marker, State},
        receiving::Receiving,
        resume::write_again,
        retire::{keep_copies, remove_unneeded, set_aside, set_unbegun_aside, unneeded_count},
        spare::Spare,
        survey::{Copy, Local, survey},
    },
    wire::{Begin, Hello, Message, SEGMENTS_MAX, Segment, Tail},
};

/// The bytes below the committed position that a hello proves.
const TAIL_BYTES: u64 = 64 << 10;

/// The newest segment of the copy, to which frames are appended.
#[derive(Debug)]
struct Active {
    header: Header,
    file: OpenFile,
    frames: Frames,
    synced: Lsn,
}

/// The directory of a copy.
#[derive(Debug)]
pub(crate) struct Store {
    disk: Disk,
    options: Options,
    marker: Marker,
    segments: Vec<Local>,
    /// Everything below is durable.
    synced: Lsn,
    /// The end of the whole units of the copy, durable or not.
    end: Lsn,
    active: Option<Active>,
    receiving: Option<Receiving>,
    spare: Option<Spare>,
    /// Bytes of a frame that has not arrived whole.
    partial: BytesMut,
    marks: watch::Sender<Marks>,
    /// Set when the copy becomes a log.
    is_closed: bool,
}

impl Store {
    /// Opens the copy: removes a segment that did not arrive whole, and finds its end.
    pub(crate) fn open(
        disk: Disk,
        options: Options,
        marker: Marker,
        marks: watch::Sender<Marks>,
    ) -> Result<Store> {
        for name in disk.names()?.iter().filter(|name| shipping::is_receiving(name)) {
            disk.remove(name)?;
        }
        let Copy { mut segments, replaced, unbegun, committed, end } =
            survey(&disk, marker.promise)?;
        if let Some(name) = unbegun {
            set_unbegun_aside(&disk, &name)?;
        }
        if let Some(newest) = segments.last().filter(|_| !mistake::is_on(Mistake::RankByClaim)) {
            write_again(&disk, newest, committed, end)?;
        }
        let synced = if mistake::is_on(Mistake::RankByClaim) { committed } else { end };
        remove_unneeded(&disk, &replaced);
        let unneeded = segments.drain(..unneeded_count(&segments)).collect::<Vec<_>>();
        remove_unneeded(&disk, &unneeded);
        if !(replaced.is_empty() && unneeded.is_empty()) {
            // Before the numbers of these files are used again.
            disk.sync_dir()?;
        }
        let store = Store {
            disk,
            options,
            marker,
            segments,
            synced,
            end,
            active: None,
            receiving: None,
            spare: None,
            partial: BytesMut::new(),
            marks,
            is_closed: false,
        };
        store.publish();
        Ok(store)
    }

    pub(crate) fn marker(&self) -> &Marker {
        &self.marker
    }

    pub(crate) fn end(&self) -> Lsn {
        self.end
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Returns the highest epoch of the copy.
    pub(crate) fn epoch(&self) -> u64 {
        self.segments.last().map_or(0, |newest| newest.header.epoch())
    }

    /// Replaces the marker, durably.
    pub(crate) fn set_marker(&mut self, marker: Marker) -> Result<()> {
        if marker != self.marker {
            marker.write(&self.disk)?;
            self.marker = marker;
        }
        Ok(())
    }

    /// Returns the description of the copy for a leader.
    pub(crate) fn hello(&self, name: &str) -> Result<Hello> {
        let skipped = self.segments.len().saturating_sub(SEGMENTS_MAX);
        Ok(Hello {
            name: name.to_owned(),
            log_id: self.segments.last().map(|newest| newest.header.log_id()),
            promise: self.marker.promise,
            committed: self.synced,
            end: self.end,
            segments: self.segments.iter().skip(skipped).map(Local::id).collect(),
            tail: self.tail()?,
        })
    }

    fn tail(&self) -> Result<Option<Tail>> {
        let Some(newest) = self.segments.last() else { return Ok(None) };
        let base = newest.header.base();
        let (to, lowest) = (self.synced, self.synced.as_u64().saturating_sub(TAIL_BYTES));
        let from = base.max(Lsn::new(lowest));
        if from >= to {
            return Ok(None);
        }
        let mut bytes = vec![0; bytes_between(from, to)];
        self.disk.open(&newest.name())?.read_at(&mut bytes, newest.header.offset(from))?;
        Ok(Some(Tail { from, to, crc: crc32c::crc32c(&bytes) }))
    }

    /// Prepares for the bytes of a new connection.
    pub(crate) fn begin(&mut self, begin: Begin) -> Result<()> {
        self.partial.clear();
        self.spare = None;
        self.receiving = None;
        self.active = None;
        let Some(id) = begin.segment else {
            let is_empty = self.segments.is_empty();
            return if is_empty { Ok(()) } else { Err(protocol("it skips the copy's segments")) };
        };
        let found = self.segments.iter().position(|local| local.id() == id);
        let at = found.ok_or(protocol("it continues a segment that the copy does not have"))?;
        // If the leader's next segment begins at or below the own one, it replaces that when it has
        // arrived. Until then the copy keeps its records.
        let own_next = self.segments.get(at + 1).map(|next| next.header.base());
        let is_replaced = begin.end.is_some_and(|end| own_next.is_some_and(|own| end <= own));
        if !is_replaced {
            self.drop_own(at + 1, begin.at)?;
        }
        let Some(local) = self.segments.get(at) else { return Ok(()) };
        let header = local.header.clone();
        if begin.at > self.synced || begin.at < header.base() {
            return Err(protocol("it begins at a position that is not durable in the copy"));
        }
        let file = self.disk.open(&local.name())?;
        let frames = Frames::new(&header, begin.at, self.options.record_bytes_max);
        // The bytes above stay durable until a segment of the leader replaces them, so the copy
        // keeps its rank.
        self.active = Some(Active { header, file, frames, synced: begin.at });
        self.publish();
        Ok(())
    }

    /// Sets own segments aside, from index `from` on, that the leader does not have.
    fn drop_own(&mut self, from: usize, common: Lsn) -> Result<()> {
        let own = self.segments.get(from..).unwrap_or_default();
        if own.is_empty() {
            return Ok(());
        }
        let has_record = first_record(&self.disk, own, self.end)?.is_some();
        if has_record && self.options.on_divergence == OnDivergence::Refuse {
            return Err(Error::Diverged { common, end: self.end });
        }
        set_aside(&self.disk, own)?;
        self.segments.truncate(from);
        self.synced = self.synced.min(common);
        self.end = common;
        Ok(())
    }

    /// Takes one message of the leader.
    pub(crate) fn apply(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Segment(segment) => self.start_segment(&segment),
            Message::Data { lsn, bytes } => self.take(lsn, bytes),
            Message::Commit { lsn } => self.commit(lsn),
            _ => Err(protocol("it sent a message that a replica does not expect")),
        }
    }

    /// Fails if the copy was promoted, or has promised another line than that of `epoch` since the
    /// connection began.
    pub(crate) fn check_leader(&self, epoch: u64) -> Result<()> {
        let promised = self.marker.promise;
        let is_fenced = shipping::line_of(promised) > shipping::line_of(epoch)
            && !mistake::is_on(Mistake::AcceptLowerEpoch);
        if self.is_closed || is_fenced { Err(Error::Fenced { promised }) } else { Ok(()) }
    }

    /// Fails if the copy was promoted.
    pub(crate) fn check_standby(&self) -> Result<()> {
        let directory = || self.disk.storage().location();
        if self.is_closed { Err(Error::NotAStandby { directory: directory() }) } else { Ok(()) }
    }

    /// Returns the position of the next byte that must arrive.
    fn position(&self) -> Lsn {
        match (&self.receiving, &self.active) {
            (Some(receiving), _) => receiving.frames.next(),
            (None, Some(active)) => active.frames.next(),
            (None, None) => Lsn::ZERO,
        }
    }

    fn start_segment(&mut self, segment: &Segment) -> Result<()> {
        let header = Header::parse(&segment.header).map_err(protocol)?;
        if self.receiving.is_some() || !self.partial.is_empty() {
            return Err(protocol("a segment begins before the one before it is complete"));
        }
        if Some(header.log_id()) != self.marker.log_id {
            return Err(Error::OtherLog);
        }
        if shipping::line_of(header.epoch()) > shipping::line_of(self.marker.promise) {
            return Err(protocol("a segment is of a line that the leader has not offered"));
        }
        if let Some(active) = &self.active {
            let is_next = header.base() == active.frames.unit_end()
                && header.base() == active.frames.next()
                && header.previous() == Some((active.header.base(), active.header.incarnation()))
                && header.sequence() > active.header.sequence()
                && header.epoch() >= active.header.epoch();
            if !is_next {
                return Err(protocol("a segment does not follow the one before it"));
            }
        }
        self.flush()?;
        let is_sealed = segment.end.is_some();
        let max = self.options.record_bytes_max;
        self.receiving =
            Some(Receiving::create(&self.disk, header, is_sealed, max, self.spare.take())?);
        Ok(())
    }

    /// Verifies and writes the bytes at `lsn`.
    fn take(&mut self, lsn: Lsn, bytes: Bytes) -> Result<()> {
        let expected = after(self.position(), self.partial.len());
        if lsn != expected || (self.receiving.is_none() && self.active.is_none()) {
            return Err(protocol("bytes do not follow the ones before them"));
        }
        let mut bytes = if self.partial.is_empty() {
            bytes
        } else {
            self.partial.extend_from_slice(&bytes);
            self.partial.split().freeze()
        };
        loop {
            let Accepted { bytes: count, pause } = self.write(&bytes)?;
            drop(bytes.split_to(count));
            match pause {
                Pause::NeedsBytes(_) => break,
                Pause::SegmentEnd if bytes.is_empty() => break,
                Pause::Claims(claim) => {
                    self.flush()?;
                    if self.active.as_ref().is_none_or(|active| claim > active.synced) {
                        return Err(protocol("a frame claims more than is before it"));
                    }
                }
                Pause::SegmentEnd => return Err(protocol("bytes behind the end of a segment")),
                Pause::Blank => return Err(protocol("zeros instead of a frame")),
                Pause::Refused(reason) => return Err(protocol(reason)),
            }
        }
        self.partial.extend_from_slice(&bytes);
        Ok(())
    }

    /// Writes the whole frames at the start of `bytes` that may be written now.
    fn write(&mut self, bytes: &[u8]) -> Result<Accepted> {
        if let Some(receiving) = &mut self.receiving {
            let at = receiving.frames.next();
            // The segment appears whole, so a claim can't be kept without the bytes below it.
            let accepted = receiving.frames.accept(bytes, Lsn::new(u64::MAX), |_| {});
            let whole = bytes.get(..accepted.bytes).unwrap_or_default();
            receiving.file.write_at(whole, receiving.header.offset(at))?;
            return Ok(accepted);
        }
        let Some(active) = &mut self.active else {
            return Err(protocol("bytes before a segment"));
        };
        let at = active.frames.next();
        let claim_max = match mistake::is_on(Mistake::IgnoreClaims) {
            true => Lsn::new(u64::MAX),
            false => active.synced,
        };
        let accepted = active.frames.accept(bytes, claim_max, |_| {});
        let whole = bytes.get(..accepted.bytes).unwrap_or_default();
        active.file.write_at(whole, active.header.offset(at))?;
        self.end = self.end.max(active.frames.unit_end());
        self.publish();
        Ok(accepted)
    }

    fn commit(&mut self, lsn: Lsn) -> Result<()> {
        if !self.partial.is_empty() || self.position() != lsn {
            return Err(protocol("a commit does not end at a frame"));
        }
        match self.receiving.take() {
            Some(receiving) => self.install(receiving),
            // The caller flushes, once for all messages that wait.
            None => Ok(()),
        }
    }

    /// Makes everything durable that was written to the newest segment.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let written = active.frames.unit_end();
        if written > active.synced {
            if !mistake::is_on(Mistake::ReportEarly) {
                active.file.sync_data()?;
            }
            active.synced = written;
            self.synced = self.synced.max(written);
            // Before the report: a record that counts must be in a copy that can be promoted.
            self.finish_seeding()?;
            self.publish();
            if let Err(error) = self.prepare_next() {
                self.drop_spare(&error);
            }
        }
        Ok(())
    }

    /// Prepares a part of the next segment's file, after the report.
    fn prepare_next(&mut self) -> Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        let (sequence, bytes) = (active.header.sequence() + 1, active.header.file_bytes());
        if !self.disk.storage().overwrites_in_place() {
            return Ok(());
        }
        let mut spare = match self.spare.take() {
            Some(spare) => spare,
            None => Spare::create(&self.disk, sequence, bytes)?,
        };
        spare.fill_piece()?;
        self.spare = Some(spare);
        Ok(())
    }

    /// Gives the space of the next segment's file back. The copy needs it only when the segment
    /// arrives.
    fn drop_spare(&mut self, error: &Error) {
        tracing::warn!(%error, "cannot prepare the file of the next segment");
        self.spare = None;
        if let Err(error) = self.remove_received() {
            tracing::warn!(%error, "cannot remove the prepared file of the next segment");
        }
    }

    /// Removes the files that are no part of the copy. No handle of them is left.
    fn remove_received(&self) -> Result<()> {
        for name in self.disk.names()?.iter().filter(|name| shipping::is_receiving(name)) {
            self.disk.remove(name)?;
        }
        Ok(())
    }

    /// Makes a segment that has arrived a part of the copy.
    fn install(&mut self, mut receiving: Receiving) -> Result<()> {
        if receiving.end() != receiving.frames.next() {
            return Err(protocol("a commit is within a batch"));
        }
        let base = receiving.header.base();
        if self.end > base {
            self.keep_diverged(&receiving)?;
        }
        receiving.install(&self.disk)?;
        let Receiving { header, file, frames } = receiving;
        let kept = self.segments.partition_point(|local| local.header.base() < base);
        let replaced = self.segments.split_off(kept);
        let same_name = |local: &Local| local.header.sequence() == header.sequence();
        let replaced: Vec<_> = replaced.into_iter().filter(|local| !same_name(local)).collect();
        self.segments.push(Local { header: header.clone() });
        (self.synced, self.end) = (frames.unit_end(), frames.unit_end());
        self.active = Some(Active { header, file, synced: frames.unit_end(), frames });
        self.finish_seeding()?;
        self.publish();
        remove_unneeded(&self.disk, &replaced);
        let count = unneeded_count(&self.segments);
        let unneeded: Vec<_> = self.segments.drain(..count).collect();
        remove_unneeded(&self.disk, &unneeded);
        Ok(())
    }

    /// Checks that the copy loses no record if the received segment replaces its end. Otherwise
    /// keeps the files under a second name, if the options allow it.
    fn keep_diverged(&self, receiving: &Receiving) -> Result<()> {
        let header = &receiving.header;
        let follows_cut = header.is_by_truncation()
            && header.epoch() == self.epoch() + 1
            && shipping::line_of(header.epoch()) == shipping::line_of(self.epoch());
        if follows_cut {
            return Ok(());
        }
        let missing = first_missing(&self.disk, &self.segments, self.end, receiving)?;
        let Some(common) = missing else { return Ok(()) };
        if self.options.on_divergence == OnDivergence::Refuse {
            return Err(Error::Diverged { common, end: self.end });
        }
        let ends = self.segments.iter().skip(1).map(|next| next.header.base()).chain([self.end]);
        let cut = self.segments.iter().zip(ends).filter(|(_, end)| *end > header.base());
        keep_copies(&self.disk, &cut.map(|(local, _)| local).collect::<Vec<_>>())
    }

    /// Notes that the first copy is complete.
    fn finish_seeding(&mut self) -> Result<()> {
        match self.marker.state {
            State::Seeding { goal } if self.synced >= goal => {
                self.set_marker(Marker { state: State::Whole, ..self.marker })
            }
            _ => Ok(()),
        }
    }

    fn publish(&self) {
        let (taken, flushed) = match &self.active {
            Some(active) => (active.frames.unit_end(), active.synced),
            None => (self.synced, self.synced),
        };
        // A leader that counts an incomplete copy acknowledges records that no promotion can use.
        let is_whole = self.marker.state == State::Whole;
        let counted = if is_whole { flushed } else { Lsn::ZERO };
        let report = Reported { written: taken, synced: counted, is_whole };
        let (written, synced) = (taken.max(self.synced), self.synced);
        let marks = Marks { epoch: self.epoch(), written, synced, end: self.end, report };
        self.marks.send_if_modified(|published| {
            let is_changed = *published != marks;
            *published = marks;
            is_changed
        });
    }

    /// Takes no more bytes, because the copy becomes a log.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.flush()?;
        (self.receiving, self.spare, self.active) = (None, None, None);
        self.remove_received()?;
        self.is_closed = true;
        Ok(())
    }

    /// Returns the identity of the newest segment.
    pub(crate) fn newest(&self) -> Option<SegmentId> {
        self.segments.last().map(Local::id)
    }
}

fn protocol(reason: &'static str) -> Error {
    Error::Protocol { reason }
}
