//! Units: one record, or a batch that recovery keeps whole. An append publishes one unit.
//!
//! Sizes are checked and payload checksums computed here, before anything is reserved. So a
//! reservation lasts no longer than the copy into the ring.

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    format::{
        compression::compress,
        frame::{FrameHeader, Kind, Seed, frame_bytes},
        scan::to_usize,
    },
    lsn::{AtomicOptionLsn, Lsn},
    options::Config,
    pipeline::state::{epochs::Goal, metrics::PayloadBytes, payload::Payload},
    sync::{LockAlways, Mutex, Ordering},
};

/// The position of a published unit, and the goal that covers it.
///
/// A wait for a span that fails because the I/O stalls names `lsn` in its error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) lsn: Lsn,
    pub(crate) goal: Goal,
}

impl From<Goal> for Span {
    /// Returns the span of a wait for no particular unit. Errors name the end of the wait.
    fn from(goal: Goal) -> Self {
        Span { lsn: goal.end, goal }
    }
}

/// The part of a frame header that depends on the payload alone.
#[derive(Clone, Copy)]
pub(crate) struct Checksum {
    pub(crate) crc: u32,
    pub(crate) flags: u8,
}

impl Checksum {
    fn of(payload: &Payload<'_>, flags: u8) -> Self {
        Checksum { crc: crc32c::crc32c(payload.as_slice()), flags }
    }
}

/// Returns the size of a payload within the limit.
fn checked_bytes(config: &Config, payload: &Payload<'_>) -> Result<u32> {
    let (bytes, max) = (payload.as_slice().len(), config.record_bytes_max);
    u32::try_from(bytes)
        .ok()
        .filter(|&bytes| u64::from(bytes) <= max)
        .ok_or(Error::RecordTooLarge { bytes: bytes as u64, max })
}

/// Replaces the payload by its stored form. Returns the flags that name the codec.
fn compressed(config: &Config, payload: &mut Payload<'_>) -> u8 {
    let Some((codec, stored)) = compress(config, payload.as_slice()) else { return 0 };
    *payload = stored.into();
    codec.flags()
}

/// A single record: a unit without vectors.
pub(crate) struct SingleRecord<'a> {
    pub(crate) payload: Payload<'a>,
    pub(crate) payload_bytes: u32,
    pub(crate) checksum: Checksum,
    /// The size of its frame.
    pub(crate) bytes: u64,
}

impl<'a> SingleRecord<'a> {
    pub(crate) fn new(config: &Config, mut payload: Payload<'a>) -> Result<Self> {
        let real_bytes = checked_bytes(config, &payload)?;
        let flags = compressed(config, &mut payload);
        let checksum = Checksum::of(&payload, flags);
        // The stored form is never longer.
        let payload_bytes = u32::try_from(payload.as_slice().len()).unwrap_or(real_bytes);
        let bytes = frame_bytes(u64::from(payload_bytes));
        Ok(SingleRecord { payload, payload_bytes, checksum, bytes })
    }

    pub(crate) fn into_unit(self) -> Unit<'a> {
        let SingleRecord { payload, checksum, bytes, .. } = self;
        Unit { payloads: vec![payload], checksums: vec![checksum], bytes }
    }
}

/// Records that are published together, with the checksums of their payloads.
pub(crate) struct Unit<'a> {
    payloads: Vec<Payload<'a>>,
    checksums: Vec<Checksum>,
    bytes: u64,
}

impl<'a> Unit<'a> {
    /// Checks and compresses a batch.
    ///
    /// # Errors
    ///
    /// `RecordTooLarge`, `BatchTooLarge`.
    pub(crate) fn new(config: &Config, mut payloads: Vec<Payload<'a>>) -> Result<Self> {
        let mut real_bytes = 0u64;
        for payload in &payloads {
            let bytes = frame_bytes(u64::from(checked_bytes(config, payload)?));
            real_bytes = real_bytes.saturating_add(bytes);
        }
        let max = config.batch_bytes_max;
        if real_bytes > max {
            return Err(Error::BatchTooLarge { bytes: real_bytes, max });
        }
        let mut checksums = Vec::with_capacity(payloads.len());
        let mut bytes = 0;
        for payload in &mut payloads {
            let flags = compressed(config, payload);
            bytes += frame_bytes(payload.as_slice().len() as u64);
            checksums.push(Checksum::of(payload, flags));
        }
        Ok(Unit { payloads, checksums, bytes })
    }

    /// Returns the size of all its frames.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    pub(crate) fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        self.payloads.iter().map(Payload::as_slice)
    }

    /// Returns the size of each record's frame.
    pub(crate) fn frame_sizes(&self) -> Vec<u64> {
        self.payloads().map(|payload| frame_bytes(payload.len() as u64)).collect()
    }

    /// Returns the headers of its frames if the first is at `lsn`.
    pub(crate) fn headers(&self, seed: Seed, lsn: Lsn, synced: Lsn) -> Vec<FrameHeader> {
        let mut at = lsn;
        let mut headers = Vec::with_capacity(self.checksums.len());
        let count = self.payloads.len();
        for (i, (payload, checksum)) in self.payloads().zip(&self.checksums).enumerate() {
            let kind = match (i + 1 == count, count) {
                (_, 1) => Kind::Record,
                (true, _) => Kind::BatchEnd,
                (false, _) => Kind::BatchPart,
            };
            let bytes = payload.len() as u64;
            // `new` has checked the size.
            let payload_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            let kind = (kind, checksum.flags);
            let header =
                FrameHeader::seal_flagged(seed, at, kind, payload_bytes, checksum.crc, synced);
            headers.push(header);
            at = at.plus(frame_bytes(bytes));
        }
        headers
    }

    /// Returns the payload of a unit of one record, as bytes that outlive the caller.
    pub(crate) fn single_payload(&self) -> Option<Bytes> {
        match self.payloads.as_slice() {
            [payload] => Some(payload.clone().into_bytes()),
            _ => None,
        }
    }

    /// Returns the LSN of its last record if the unit ends at `end`.
    pub(crate) fn last_record(&self, end: Lsn) -> Lsn {
        let last = self.payloads().last().map_or(0, |last| last.len() as u64);
        Lsn::new(end.since(Lsn::new(frame_bytes(last))))
    }

    /// Returns its frames as one buffer.
    pub(crate) fn gathered(&self, headers: &[FrameHeader]) -> Bytes {
        let mut bytes = Vec::with_capacity(to_usize(self.bytes));
        let mut end = 0;
        for (header, payload) in headers.iter().zip(self.payloads()) {
            bytes.extend_from_slice(&header.to_bytes());
            bytes.extend_from_slice(payload);
            end += to_usize(frame_bytes(payload.len() as u64));
            bytes.resize(end, 0);
        }
        bytes.into()
    }
}

/// A unit that is larger than the ring. The log owns it and writes it from its own buffers.
#[derive(Debug)]
pub(crate) struct Oversized {
    pub(crate) last_record: Lsn,
    pub(crate) bytes: u64,
    pub(crate) frame_count: u64,
    pub(crate) payload: PayloadBytes,
    pub(crate) pieces: Vec<Bytes>,
}

/// The place of the oversized unit that is published and not written. There is at most one,
/// because it holds all permits of the ring.
#[derive(Debug)]
pub(crate) struct OversizedSlot {
    unit: Mutex<Option<Oversized>>,
    at: AtomicOptionLsn,
}

impl OversizedSlot {
    pub(crate) fn new() -> Self {
        OversizedSlot { unit: Mutex::new(None), at: AtomicOptionLsn::new(None) }
    }

    /// Publishes `unit` at `lsn`.
    pub(crate) fn put(&self, lsn: Lsn, unit: Oversized) {
        *self.unit.lock_always() = Some(unit);
        self.at.store(Some(lsn), Ordering::Release);
    }

    pub(crate) fn is_at(&self, lsn: Lsn) -> bool {
        self.at.load(Ordering::Acquire) == Some(lsn)
    }

    /// Takes the unit if it is at `lsn`.
    pub(crate) fn take(&self, lsn: Lsn) -> Option<Oversized> {
        if !self.is_at(lsn) {
            return None;
        }
        let unit = self.unit.lock_always().take();
        self.at.store(None, Ordering::Release);
        unit
    }
}
