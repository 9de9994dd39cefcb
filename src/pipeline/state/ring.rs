//! The ring: frames of many appenders, in LSN order, on their way to the file.
//!
//! ```text
//!        drained             frames reserved, some published                tail
//!  ---------|=====|=====|.......|=====|......................................|---------
//!           ^ the drainer takes the published prefix, and frees it           ^ reserve
//! ```
//!
//! An appender owns the bytes it reserved until it publishes. To publish, it stores its unit's LSN
//! into the slot of that LSN (release). The slots are apart from the bytes. A slot with the LSN of
//! an earlier lap, or with none, means "not published yet". An LSN is used once, except after a
//! rewind, which clears all slots. So old bytes never look like a published unit, and the drainer
//! need not zero them. The drainer owns the published units, writes them and raises `drained`
//! (release), which gives the bytes to later appenders.
//!
//! Why ranges never overlap: `tail` only grows, except in [`Drainer::rewind`], when nothing is in
//! flight. Each reservation takes `tail..tail + n`, and [`Ring::reserve`] checks that its range
//! ends within one lap of `drained`. The callers' permits make that always true. After a mistake
//! there, the check panics and poisons the log before a frame is overwritten. This module holds the
//! crate's only unsafe code.

#![cfg_attr(
    not(any(loom, shuttle)),
    expect(unsafe_code, reason = "the ring's bytes are shared by position, not by reference")
)]

use std::sync::Arc;

use crate::{
    format::{
        frame::{FRAME_HEADER_BYTES_U64, FrameHeader, Kind, frame_bytes},
        scan::to_usize,
    },
    lsn::{AtomicLsn, Lsn},
    pipeline::state::metrics::PayloadBytes,
    sync::{Apart, AtomicU64, Ordering},
};

const WORD_BYTES: u64 = 8;

/// No two units begin within one slot's bytes: a unit is at least a frame's header.
const SLOT_BYTES: u64 = FRAME_HEADER_BYTES_U64;

/// The largest frame that is written without entering the ring. It weakens the check of
/// reservations by that much.
pub(crate) const DIRECT_BYTES_MAX: u64 = 128;

/// Represents "no record" in a record's LSN. LSNs are multiples of 8.
const NO_RECORD: u64 = u64::MAX;

/// Returns the value of a slot when the unit at `lsn` is published. It is never 0, which means
/// none. Bit 0 is free, because LSNs are multiples of 8.
fn tag(lsn: Lsn) -> u64 {
    #[cfg(all(test, loom))]
    if let Some(broken) = loom_tests::TAG.get() {
        return broken(lsn);
    }
    lsn.as_u64() | 1
}

/// Returns the place of `number` in a ring of `len` places, a power of two.
///
/// The number is masked in 64 bits, then narrowed. In the other order, all positions above the
/// address space would share one place.
fn masked(number: u64, len: usize) -> usize {
    to_usize(number & (len as u64 - 1))
}

/// The appenders' side.
#[derive(Debug)]
pub(crate) struct Ring {
    words: Box<[AtomicU64]>,
    /// The tag of the newest published unit that begins in a slot's bytes.
    slots: Box<[AtomicU64]>,
    /// The next LSN to reserve. On a cache line apart from the drainer's stores.
    tail: Apart<AtomicLsn>,
    /// Everything below was written out. Only the drainer moves it.
    drained: Apart<AtomicLsn>,
}

/// The writer's side; there is exactly one for a ring.
#[derive(Debug)]
pub(crate) struct Drainer {
    ring: Arc<Ring>,
    at: Lsn,
    /// The end of the published units that the last `take` found.
    taken_end: Lsn,
    /// The first frame of the last unit among them.
    last_unit: Lsn,
    /// The last record among them, or else before them; `NO_RECORD` if this process has written
    /// none.
    taken_record: u64,
    /// The payload bytes of the records among them.
    taken_payload: PayloadBytes,
    last_record: u64,
}

/// A range of LSNs that is reserved and not published yet.
#[derive(Debug)]
#[must_use = "the drainer can't pass a reservation that is not published"]
pub(crate) struct Reserved<'a> {
    ring: &'a Ring,
    lsn: Lsn,
    bytes: u64,
}

/// The units that the drainer found at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing is published there.
    Nothing,
    /// Whole units up to `end`, with `frame_count` frames.
    Units { end: Lsn, frame_count: u64 },
    /// The first unit needs more room than there is.
    DoesNotFit { unit_bytes: u64 },
}

impl Ring {
    /// Creates a ring of `bytes` bytes, a power of two. Its first frame will have the LSN `start`.
    pub(crate) fn new(bytes: u64, start: Lsn) -> (Arc<Ring>, Drainer) {
        assert!(bytes.is_power_of_two() && bytes >= WORD_BYTES, "a ring's size is a power of two");
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        let words = zeros(bytes / WORD_BYTES);
        let slots = zeros(bytes.div_ceil(SLOT_BYTES));
        let tail = Apart(AtomicLsn::new(start));
        let drained = Apart(AtomicLsn::new(start));
        let ring = Arc::new(Ring { words, slots, tail, drained });
        let drainer = Drainer {
            ring: Arc::clone(&ring),
            at: start,
            taken_end: start,
            last_unit: start,
            taken_record: NO_RECORD,
            taken_payload: PayloadBytes::default(),
            last_record: NO_RECORD,
        };
        (ring, drainer)
    }

    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.words.len() as u64 * WORD_BYTES
    }

    /// Returns one past the last reserved byte.
    pub(crate) fn tail(&self) -> Lsn {
        self.tail.load(Ordering::Acquire)
    }

    /// Reserves the next `bytes` bytes. The caller holds permits for them.
    pub(crate) fn reserve(&self, bytes: u64) -> Reserved<'_> {
        let lsn = self.tail.fetch_add(bytes, Ordering::AcqRel);
        self.claim(lsn, bytes)
    }

    /// Reserves the next `bytes` bytes if they begin at `lsn`.
    pub(crate) fn reserve_at(&self, lsn: Lsn, bytes: u64) -> Option<Reserved<'_>> {
        let end = lsn.plus(bytes);
        self.tail
            .compare_exchange(lsn, end, Ordering::AcqRel, Ordering::Relaxed)
            .ok()
            .map(|_| self.claim(lsn, bytes))
    }

    /// Reserves LSNs for a unit that is larger than the ring and never enters it. The caller holds
    /// all permits.
    pub(crate) fn reserve_outside(&self, bytes: u64) -> Lsn {
        self.tail.fetch_add(bytes, Ordering::AcqRel)
    }

    /// Reserves the LSNs of a frame of the log itself, which never enters the ring, if nothing is
    /// reserved behind `lsn`. The frame has at most [`DIRECT_BYTES_MAX`]. The caller holds the
    /// writer's lock, and everything below `lsn` is drained. The caller then writes the frame and
    /// moves the drainer past it.
    pub(crate) fn reserve_direct(&self, lsn: Lsn, bytes: u64) -> bool {
        debug_assert!(bytes <= DIRECT_BYTES_MAX);
        let end = lsn.plus(bytes);
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        self.tail.compare_exchange(lsn, end, order.0, order.1).is_ok()
    }

    /// As [`reserve_outside`](Ring::reserve_outside), if the next LSN is `lsn`.
    pub(crate) fn reserve_outside_at(&self, lsn: Lsn, bytes: u64) -> bool {
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        self.tail.compare_exchange(lsn, lsn.plus(bytes), order.0, order.1).is_ok()
    }

    fn claim(&self, lsn: Lsn, bytes: u64) -> Reserved<'_> {
        // Acquire: the drainer's reads of the last lap happen before our writes. While a frame is
        // written directly, `drained` is still below it. Its bytes never enter the ring, so a
        // reservation may be ahead by that much more.
        let drained = self.drained.load(Ordering::Acquire);
        assert!(
            lsn >= drained
                && lsn.plus(bytes).since(drained) <= self.capacity_bytes() + DIRECT_BYTES_MAX,
            "reserved beyond the permits: {lsn} + {bytes} with {drained} drained"
        );
        Reserved { ring: self, lsn, bytes }
    }

    /// Returns whether a unit is published at the drainer's position. While a thread drains, that
    /// position is the beginning of the units being written.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_published(self.drained.load(Ordering::Acquire))
    }

    /// Returns whether the unit at `lsn` is published. Acquire: a published unit is then visible as
    /// a whole.
    fn is_published(&self, lsn: Lsn) -> bool {
        self.slot(lsn).load(Ordering::Acquire) == tag(lsn)
    }

    /// Returns the position below which everything was written to the file.
    pub(crate) fn drained(&self) -> Lsn {
        self.drained.load(Ordering::Acquire)
    }

    fn word_index(&self, lsn: Lsn) -> usize {
        masked(lsn.as_u64() / WORD_BYTES, self.words.len())
    }

    #[expect(clippy::indexing_slicing, reason = "the index is masked to the length")]
    fn word(&self, lsn: Lsn) -> &AtomicU64 {
        &self.words[self.word_index(lsn)]
    }

    #[expect(clippy::indexing_slicing, reason = "the index is masked to the length")]
    fn slot(&self, lsn: Lsn) -> &AtomicU64 {
        &self.slots[masked(lsn.as_u64() / SLOT_BYTES, self.slots.len())]
    }

    /// Copies `bytes` to the ring from `lsn` on; the padding of the last word is zero. The range is
    /// the caller's, reserved and not published.
    fn copy_in(&self, lsn: Lsn, bytes: &[u8]) {
        let (whole, rest) = bytes.split_at(bytes.len() / 8 * 8);
        self.copy_words(lsn, whole);
        if !rest.is_empty() {
            let mut last = [0; 8];
            for (to, from) in last.iter_mut().zip(rest) {
                *to = *from;
            }
            let at = lsn.plus(whole.len() as u64);
            self.word(at).store(u64::from_le_bytes(last).to_le(), Ordering::Relaxed);
        }
    }

    /// Copies whole words to the caller's range.
    #[cfg(not(any(loom, shuttle)))]
    fn copy_words(&self, lsn: Lsn, bytes: &[u8]) {
        let start = self.word_index(lsn) * 8;
        let ring_bytes = self.words.len() * 8;
        assert!(bytes.len() <= ring_bytes, "more than a lap");
        let (first, second) = bytes.split_at(bytes.len().min(ring_bytes - start));
        let base = self.words.as_ptr().cast_mut().cast::<u8>();
        // SAFETY: both ranges lie within the words. `first` ends at their end at the latest, and
        // `second`, the rest of at most a lap, ends before `first` begins. The words are atomics,
        // so they may be written to through a shared reference. No other thread touches these: they
        // are reserved and not published, the drainer reads only published units, and other
        // appenders have other ranges (see above).
        unsafe {
            std::ptr::copy_nonoverlapping(first.as_ptr(), base.add(start), first.len());
            std::ptr::copy_nonoverlapping(second.as_ptr(), base, second.len());
        }
    }

    /// As above, for models, whose words are larger than eight bytes.
    #[cfg(any(loom, shuttle))]
    fn copy_words(&self, lsn: Lsn, bytes: &[u8]) {
        let mut at = lsn;
        for word in bytes.chunks_exact(8) {
            let word = u64::from_le_bytes(word.try_into().unwrap_or_default()).to_le();
            self.word(at).store(word, Ordering::Relaxed);
            at = at.plus(WORD_BYTES);
        }
    }
}

impl Reserved<'_> {
    pub(crate) fn lsn(&self) -> Lsn {
        self.lsn
    }

    pub(crate) fn end(&self) -> Lsn {
        self.lsn.plus(self.bytes)
    }

    /// Fills the range with one unit and publishes it. The frames must take exactly the reserved
    /// bytes; that is checked before anything is published.
    pub(crate) fn publish<'p>(&self, frames: impl Iterator<Item = (FrameHeader, &'p [u8])>) {
        let mut at = self.lsn;
        for (header, payload) in frames {
            let end = at.plus(frame_bytes(payload.len() as u64));
            assert!(
                end <= self.end() && u64::from(header.payload_bytes) == payload.len() as u64,
                "a frame beyond its reservation"
            );
            let (first, second) = header.to_words();
            self.ring.word(at).store(first.to_le(), Ordering::Relaxed);
            self.ring.word(at.plus(WORD_BYTES)).store(second.to_le(), Ordering::Relaxed);
            self.ring.copy_in(at.plus(FRAME_HEADER_BYTES_U64), payload);
            at = end;
        }
        assert!(at == self.end() && self.bytes > 0, "a unit shorter than its reservation");
        // Release: a thread that finds the tag finds all of the unit.
        self.ring.slot(self.lsn).store(tag(self.lsn), Ordering::Release);
    }
}

impl Drainer {
    /// Returns the next LSN to write out.
    pub(crate) fn at(&self) -> Lsn {
        self.at
    }

    /// Returns the last record below that LSN. `None` if this process has written none, or if a
    /// rewind has dropped it.
    pub(crate) fn last_record(&self) -> Option<Lsn> {
        Some(self.last_record).filter(|&record| record != NO_RECORD).map(Lsn::new)
    }

    /// As [`Ring::is_ready`], and exact, because no other thread drains.
    pub(crate) fn is_ready(&self) -> bool {
        self.ring.is_published(self.at)
    }

    /// Looks for published units: up to about `wanted_bytes`, never more than `room_bytes`.
    pub(crate) fn take(&mut self, wanted_bytes: u64, room_bytes: u64) -> Taken {
        let mut end = self.at;
        let mut frame_count = 0;
        let mut payload = PayloadBytes::default();
        let mut record = self.last_record;
        while end.since(self.at) < wanted_bytes {
            let Some((unit_bytes, unit_frame_count, last, unit_payload)) = self.unit_at(end) else {
                break;
            };
            if end.since(self.at) + unit_bytes > room_bytes {
                if end == self.at {
                    return Taken::DoesNotFit { unit_bytes };
                }
                break;
            }
            self.last_unit = end;
            record = if last == NO_RECORD { record } else { last };
            end = end.plus(unit_bytes);
            frame_count += unit_frame_count;
            payload.join(unit_payload);
        }
        self.taken_record = record;
        self.taken_payload = payload;
        self.taken_end = end;
        if end == self.at { Taken::Nothing } else { Taken::Units { end, frame_count } }
    }

    /// Returns the size, the number of frames, the last record and the payload bytes of the unit at
    /// `start`. For a control record these are `NO_RECORD` and 0. `None` if it is not published.
    fn unit_at(&self, start: Lsn) -> Option<(u64, u64, u64, PayloadBytes)> {
        if !self.ring.is_published(start) {
            return None;
        }
        let mut end = start;
        let mut frame_count = 0;
        let mut payload = PayloadBytes::default();
        loop {
            let word = u64::from_le(self.ring.word(end).load(Ordering::Relaxed));
            let (payload_bytes, kind) = FrameHeader::shape_of_word(word);
            let at = end;
            end = end.plus(frame_bytes(payload_bytes));
            frame_count += 1;
            if kind == Some(Kind::Control) {
                return Some((end.since(start), frame_count, NO_RECORD, payload));
            }
            payload.add(payload_bytes);
            if kind != Some(Kind::BatchPart) {
                return Some((end.since(start), frame_count, at.as_u64(), payload));
            }
        }
    }

    /// Gives the taken units to `write`, in one or two pieces, in order.
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) fn read_taken<E>(
        &self,
        mut write: impl FnMut(Lsn, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.ring.word_index(self.at) * 8;
        let bytes = to_usize(self.taken_end.since(self.at));
        let before_wrap = bytes.min(self.ring.words.len() * 8 - start);
        let base = self.ring.words.as_ptr().cast::<u8>();
        // SAFETY: both ranges lie within the words (`before_wrap` ends at their end at the latest,
        // and a taken range is at most one lap). `take` saw all their units published, so no
        // appender writes to them until `release` moves `drained`, which needs `&mut self`.
        let (first, second) = unsafe {
            (
                std::slice::from_raw_parts(base.add(start), before_wrap),
                std::slice::from_raw_parts(base, bytes - before_wrap),
            )
        };
        write(self.at, first)?;
        if second.is_empty() { Ok(()) } else { write(self.at.plus(before_wrap as u64), second) }
    }

    /// As above, for models, whose words are larger than eight bytes.
    #[cfg(any(loom, shuttle))]
    pub(crate) fn read_taken<E>(
        &self,
        mut write: impl FnMut(Lsn, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut bytes = Vec::new();
        let mut at = self.at;
        while at < self.taken_end {
            let word = u64::from_le(self.ring.word(at).load(Ordering::Relaxed));
            bytes.extend_from_slice(&word.to_le_bytes());
            at = at.plus(8);
        }
        write(self.at, &bytes)
    }

    /// Returns the position that the last taken unit claims to be synced. Call it before `release`.
    pub(crate) fn last_claim(&self) -> Lsn {
        let at = self.last_unit;
        let words = [at, at.plus(WORD_BYTES)]
            .map(|lsn| u64::from_le(self.ring.word(lsn).load(Ordering::Relaxed)));
        FrameHeader::from_words(words).commitment(at).unwrap_or(Lsn::ZERO)
    }

    /// Returns the payload bytes of the records among the taken units.
    pub(crate) fn taken_payload(&self) -> PayloadBytes {
        self.taken_payload
    }

    /// Gives the bytes of the taken units to later reservations.
    pub(crate) fn release(&mut self) {
        self.at = self.taken_end;
        self.last_record = self.taken_record;
        self.ring.drained.store(self.at, Ordering::Release);
    }

    /// Moves the ring back to `to`, so that the positions from there on are used again. The ring is
    /// empty, and the caller holds all permits, so no task reserves meanwhile.
    pub(crate) fn rewind(&mut self, to: Lsn) {
        assert!(
            to <= self.at && self.ring.tail() == self.at,
            "a ring is rewound when it is empty: to {to}, drained to {}",
            self.at
        );
        // Otherwise units that were published before would look like later ones.
        for slot in &self.ring.slots {
            slot.store(0, Ordering::Relaxed);
        }
        self.at = to;
        self.taken_end = to;
        // A dropped record is unknown until the next one is written.
        self.last_record =
            if self.last_record < to.as_u64() { self.last_record } else { NO_RECORD };
        self.ring.drained.store(to, Ordering::Release);
        self.ring.tail.store(to, Ordering::Release);
    }

    /// Moves past a unit that never entered the ring.
    pub(crate) fn skip(&mut self, bytes: u64, last_record: Option<Lsn>) {
        self.at = self.at.plus(bytes);
        self.taken_end = self.at;
        self.last_record = last_record.map_or(self.last_record, Lsn::as_u64);
        self.ring.drained.store(self.at, Ordering::Release);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
