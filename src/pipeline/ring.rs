//! The ring: frames of many appenders, in LSN order, on their way to the file.
//!
//! ```text
//!        drained             frames reserved, some published                tail
//!  ---------|=====|=====|.......|=====|......................................|---------
//!           ^ the drainer takes the published prefix, and frees it           ^ reserve
//! ```
//!
//! An appender owns the bytes it reserved until it publishes: it stores its unit's LSN into the slot
//! of that LSN (release), apart from the bytes. A slot that holds another LSN, of a lap long ago or
//! none, says "not published yet": an LSN is used once, but for a rewind, which clears all slots. So
//! nothing that stands in the bytes can pass for a published unit, and they needn't be zeroed behind
//! the drainer. It owns what is published, writes it out and moves `drained` on (release), which
//! gives the bytes to later appenders.
//!
//! Why ranges never overlap: `tail` only grows (but for [`Drainer::rewind`], when nothing is in
//! flight), each reservation takes `tail..tail + n`, and
//! [`Ring::reserve`] checks that its range ends within one lap of `drained`. The callers' permits
//! make that always true; the check makes a mistake there a panic, which poisons the log, and not
//! an overwritten frame. This module holds the crate's only unsafe code.

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
    lsn::Lsn,
    sync::{Apart, AtomicU64, Ordering},
};

const WORD_BYTES: u64 = 8;

/// No two units begin within one slot's bytes: a unit is at least a frame's header.
const SLOT_BYTES: u64 = FRAME_HEADER_BYTES_U64;

/// What a slot holds when the unit at `lsn` is published. LSNs are multiples of 8, so it is never 0,
/// which stands for none.
fn tag(lsn: Lsn) -> u64 {
    #[cfg(all(test, loom))]
    if let Some(broken) = loom_tests::TAG.get() {
        return broken(lsn);
    }
    lsn.as_u64() | 1
}

/// The appenders' side.
#[derive(Debug)]
pub(crate) struct Ring {
    words: Box<[AtomicU64]>,
    /// The LSN of the unit that was published last of those that begin in a slot's bytes.
    slots: Box<[AtomicU64]>,
    /// The next LSN to reserve. Apart from what the drainer stores.
    tail: Apart<AtomicU64>,
    /// Everything below was written out. Moved by the drainer alone.
    drained: Apart<AtomicU64>,
}

/// The writer's side; there is exactly one for a ring.
#[derive(Debug)]
pub(crate) struct Drainer {
    ring: Arc<Ring>,
    at: Lsn,
    /// The end of the published units that the last `take` found.
    taken_end: Lsn,
}

/// A range of LSNs that is reserved and not published yet.
#[derive(Debug)]
#[must_use = "a reservation that isn't published stops the log"]
pub(crate) struct Reserved<'a> {
    ring: &'a Ring,
    lsn: Lsn,
    bytes: u64,
}

/// What the drainer found at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing is published there.
    Nothing,
    /// Whole units up to `end`, `frame_count` frames of them.
    Units { end: Lsn, frame_count: u64 },
    /// The first unit needs more room than there is.
    DoesNotFit { unit_bytes: u64 },
}

impl Ring {
    /// A ring of `bytes` bytes, a power of two, whose first frame will have the LSN `start`.
    pub(crate) fn new(bytes: u64, start: Lsn) -> (Arc<Ring>, Drainer) {
        assert!(bytes.is_power_of_two() && bytes >= WORD_BYTES, "a ring's size is a power of two");
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        let words = zeros(bytes / WORD_BYTES);
        let slots = zeros(bytes.div_ceil(SLOT_BYTES));
        let tail = Apart(AtomicU64::new(start.as_u64()));
        let drained = Apart(AtomicU64::new(start.as_u64()));
        let ring = Arc::new(Ring { words, slots, tail, drained });
        (Arc::clone(&ring), Drainer { ring, at: start, taken_end: start })
    }

    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.words.len() as u64 * WORD_BYTES
    }

    /// One past the last reserved byte.
    pub(crate) fn tail(&self) -> Lsn {
        Lsn::new(self.tail.load(Ordering::Acquire))
    }

    /// Reserves the next `bytes` bytes. The caller holds permits for them.
    pub(crate) fn reserve(&self, bytes: u64) -> Reserved<'_> {
        let lsn = Lsn::new(self.tail.fetch_add(bytes, Ordering::AcqRel));
        self.claim(lsn, bytes)
    }

    /// Reserves the next `bytes` bytes if they begin at `lsn`.
    pub(crate) fn reserve_at(&self, lsn: Lsn, bytes: u64) -> Option<Reserved<'_>> {
        let end = lsn.plus(bytes).as_u64();
        self.tail
            .compare_exchange(lsn.as_u64(), end, Ordering::AcqRel, Ordering::Relaxed)
            .ok()
            .map(|_| self.claim(lsn, bytes))
    }

    /// Reserves LSNs for a unit that is larger than the ring and never enters it. The caller holds
    /// all permits.
    pub(crate) fn reserve_outside(&self, bytes: u64) -> Lsn {
        Lsn::new(self.tail.fetch_add(bytes, Ordering::AcqRel))
    }

    fn claim(&self, lsn: Lsn, bytes: u64) -> Reserved<'_> {
        // Acquire: the drainer's reads of the last lap happen before our writes.
        let drained = Lsn::new(self.drained.load(Ordering::Acquire));
        assert!(
            lsn >= drained && lsn.plus(bytes).since(drained) <= self.capacity_bytes(),
            "reserved beyond the permits: {lsn} + {bytes} with {drained} drained"
        );
        Reserved { ring: self, lsn, bytes }
    }

    /// Whether a unit is published at the drainer's position. While somebody drains, that position
    /// is the beginning of what is being written.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_published(Lsn::new(self.drained.load(Ordering::Acquire)))
    }

    /// Whether the unit at `lsn` is published. Acquire: then all of it is visible.
    fn is_published(&self, lsn: Lsn) -> bool {
        self.slot(lsn).load(Ordering::Acquire) == tag(lsn)
    }

    /// Everything below was handed to the file.
    pub(crate) fn drained(&self) -> Lsn {
        Lsn::new(self.drained.load(Ordering::Acquire))
    }

    fn word_index(&self, lsn: Lsn) -> usize {
        to_usize(lsn.as_u64() / WORD_BYTES) & (self.words.len() - 1)
    }

    #[expect(clippy::indexing_slicing, reason = "the index is masked to the length")]
    fn word(&self, lsn: Lsn) -> &AtomicU64 {
        &self.words[self.word_index(lsn)]
    }

    #[expect(clippy::indexing_slicing, reason = "the index is masked to the length")]
    fn slot(&self, lsn: Lsn) -> &AtomicU64 {
        &self.slots[to_usize(lsn.as_u64() / SLOT_BYTES) & (self.slots.len() - 1)]
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
        // SAFETY: both ranges lie within the words: `first` ends at their end at the latest, and what
        // is left of at most a lap ends before it began. The words are atomics, so they may be
        // written to through a shared reference. Nobody else touches these: they are reserved and not
        // published, the drainer reads what is published, and other appenders have ranges of their
        // own (see above).
        unsafe {
            std::ptr::copy_nonoverlapping(first.as_ptr(), base.add(start), first.len());
            std::ptr::copy_nonoverlapping(second.as_ptr(), base, second.len());
        }
    }

    /// As above, for words that are more than their eight bytes.
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
    pub(crate) fn publish<'p>(self, frames: impl Iterator<Item = (FrameHeader, &'p [u8])>) {
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
        // Release: whoever finds the tag finds all of the unit.
        self.ring.slot(self.lsn).store(tag(self.lsn), Ordering::Release);
    }
}

impl Drainer {
    /// The next LSN to write out.
    pub(crate) fn at(&self) -> Lsn {
        self.at
    }

    /// As [`Ring::is_ready`], and exact, as nobody else drains.
    pub(crate) fn is_ready(&self) -> bool {
        self.ring.is_published(self.at)
    }

    /// Looks for published units: up to about `wanted_bytes`, never more than `room_bytes`.
    pub(crate) fn take(&mut self, wanted_bytes: u64, room_bytes: u64) -> Taken {
        let mut end = self.at;
        let mut frame_count = 0;
        while end.since(self.at) < wanted_bytes {
            let Some((unit_bytes, unit_frame_count)) = self.unit_at(end) else {
                break;
            };
            if end.since(self.at) + unit_bytes > room_bytes {
                if end == self.at {
                    return Taken::DoesNotFit { unit_bytes };
                }
                break;
            }
            end = end.plus(unit_bytes);
            frame_count += unit_frame_count;
        }
        self.taken_end = end;
        if end == self.at { Taken::Nothing } else { Taken::Units { end, frame_count } }
    }

    /// The size and the number of frames of the unit at `start`, if it is published.
    fn unit_at(&self, start: Lsn) -> Option<(u64, u64)> {
        if !self.ring.is_published(start) {
            return None;
        }
        let mut end = start;
        let mut frame_count = 0;
        loop {
            let word = u64::from_le(self.ring.word(end).load(Ordering::Relaxed));
            let (payload_bytes, kind) = FrameHeader::shape_of_word(word);
            end = end.plus(frame_bytes(payload_bytes));
            frame_count += 1;
            if kind != Some(Kind::BatchPart) {
                return Some((end.since(start), frame_count));
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

    /// As above, for words that are more than their eight bytes.
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

    /// Gives the bytes of the taken units to later reservations.
    pub(crate) fn release(&mut self) {
        self.at = self.taken_end;
        self.ring.drained.store(self.at.as_u64(), Ordering::Release);
    }

    /// Gives the positions from `to` on again. The ring is empty, and all permits are the caller's,
    /// so nobody reserves meanwhile.
    pub(crate) fn rewind(&mut self, to: Lsn) {
        assert!(
            to <= self.at && self.ring.tail() == self.at,
            "a ring is rewound when it is empty: to {to}, drained to {}",
            self.at
        );
        // Else those that were published before would pass for those to come.
        for slot in &self.ring.slots {
            slot.store(0, Ordering::Relaxed);
        }
        self.at = to;
        self.taken_end = to;
        self.ring.drained.store(to.as_u64(), Ordering::Release);
        self.ring.tail.store(to.as_u64(), Ordering::Release);
    }

    /// Moves past a unit that never entered the ring.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.at = self.at.plus(bytes);
        self.taken_end = self.at;
        self.ring.drained.store(self.at.as_u64(), Ordering::Release);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
