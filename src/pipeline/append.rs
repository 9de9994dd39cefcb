//! Appending: permits, reservation, copy, publication. The only waits are before the reservation.

use std::{
    borrow::Cow,
    sync::{Arc, PoisonError},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::{AcquireError, SemaphorePermit, TryAcquireError};

#[cfg(feature = "raft")]
use crate::sync::fence;
use crate::{
    error::{Error, Result},
    format::{
        compression::compress,
        control::Control,
        frame::{FrameHeader, Kind, frame_bytes},
        scan::to_usize,
    },
    lsn::Lsn,
    pipeline::{core::Core, epochs::Goal, job::PanicGuard, ring::Reserved},
    sync::Ordering,
};

/// The bytes of one record.
///
/// Made from anything that bytes can be borrowed from or moved out of. Which of the two matters
/// only for records larger than the ring: borrowed bytes are copied once more, owned ones are kept
/// and written from where they are.
#[derive(Clone, Debug)]
pub struct Payload<'a>(Repr<'a>);

#[derive(Clone, Debug)]
enum Repr<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl Payload<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Borrowed(bytes) => bytes,
            Repr::Owned(bytes) => bytes,
        }
    }

    fn into_bytes(self) -> Bytes {
        match self.0 {
            Repr::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Repr::Owned(bytes) => bytes,
        }
    }
}

macro_rules! payload_from {
    ($($lifetime:lifetime $from:ty => $make:expr),* $(,)?) => {
        $(impl<$lifetime> From<$from> for Payload<$lifetime> {
            fn from(from: $from) -> Self {
                let make: fn($from) -> Repr<$lifetime> = $make;
                Payload(make(from))
            }
        })*
    };
}

payload_from! {
    'a &'a [u8] => |bytes| Repr::Borrowed(bytes),
    'a &'a Vec<u8> => |bytes| Repr::Borrowed(bytes),
    'a &'a str => |text| Repr::Borrowed(text.as_bytes()),
    'a &'a String => |text| Repr::Borrowed(text.as_bytes()),
    'a &'a Bytes => |bytes| Repr::Owned(bytes.clone()),
    'a Bytes => |bytes| Repr::Owned(bytes),
    'a Vec<u8> => |bytes| Repr::Owned(bytes.into()),
    'a String => |text| Repr::Owned(text.into()),
    'a Box<[u8]> => |bytes| Repr::Owned(bytes.into()),
    'a BytesMut => |bytes| Repr::Owned(bytes.freeze()),
    'a Cow<'a, [u8]> => |bytes| match bytes {
        Cow::Borrowed(bytes) => Repr::Borrowed(bytes),
        Cow::Owned(bytes) => Repr::Owned(bytes.into()),
    },
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Payload(Repr::Borrowed(bytes))
    }
}

/// Where a unit stands, and since which epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) lsn: Lsn,
    pub(crate) goal: Goal,
}

/// A unit that is larger than the ring: the log owns it, and writes it from its own buffers.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) bytes: u64,
    pub(crate) frame_count: u64,
    pub(crate) pieces: Vec<Bytes>,
}

/// A unit, checked and with the checksums of its payloads, which need no LSN: computed before
/// anything is reserved, so that nobody waits behind it for longer than the copy takes.
pub(crate) struct Unit<'a> {
    payloads: Vec<Payload<'a>>,
    sums: Vec<Sum>,
    bytes: u64,
}

#[cfg(feature = "raft")]
impl Unit<'_> {
    /// How many bytes of the log each of its records takes.
    pub(crate) fn frames(&self) -> Vec<u64> {
        let bytes = |payload: &Payload<'_>| frame_bytes(payload.as_slice().len() as u64);
        self.payloads.iter().map(bytes).collect()
    }
}

/// Room in the ring for one unit, and a place in a segment. Dropped, it goes to others.
pub(crate) struct Room<'a> {
    permit: SemaphorePermit<'a>,
    bytes: u64,
}

/// What a header tells of its payload, besides the length.
#[derive(Clone, Copy)]
struct Sum {
    crc: u32,
    flags: u8,
}

impl Sum {
    fn of(payload: &Payload<'_>, flags: u8) -> Self {
        Sum { crc: crc32c::crc32c(payload.as_slice()), flags }
    }
}

/// The same for a lone record, without the vectors.
struct Lone<'a> {
    payload: Payload<'a>,
    payload_bytes: u32,
    sum: Sum,
    bytes: u64,
}

impl Core {
    fn check_record(&self, payload: &Payload<'_>) -> Result<u32> {
        let bytes = payload.as_slice().len();
        u32::try_from(bytes)
            .ok()
            .filter(|&bytes| u64::from(bytes) <= self.config.record_bytes_max)
            .ok_or(Error::RecordTooLarge { bytes: bytes as u64, max: self.config.record_bytes_max })
    }

    /// Makes the payload what is stored of it, and gives the flags that say how.
    fn store(&self, payload: &mut Payload<'_>) -> u8 {
        let Some((codec, stored)) = compress(&self.config, payload.as_slice()) else {
            return 0;
        };
        *payload = stored.into();
        codec.flags()
    }

    fn lone<'a>(&self, mut payload: Payload<'a>) -> Result<Lone<'a>> {
        let real_bytes = self.check_record(&payload)?;
        let flags = self.store(&mut payload);
        let sum = Sum::of(&payload, flags);
        // What is stored is shorter, or what it was.
        let payload_bytes = u32::try_from(payload.as_slice().len()).unwrap_or(real_bytes);
        Ok(Lone { payload, payload_bytes, sum, bytes: frame_bytes(u64::from(payload_bytes)) })
    }

    /// Checks a batch.
    pub(crate) fn unit<'a>(&self, mut payloads: Vec<Payload<'a>>) -> Result<Unit<'a>> {
        let mut real_bytes = 0u64;
        for payload in &payloads {
            let bytes = frame_bytes(u64::from(self.check_record(payload)?));
            real_bytes = real_bytes.saturating_add(bytes);
        }
        let max = self.config.batch_bytes_max;
        if real_bytes > max {
            return Err(Error::BatchTooLarge { bytes: real_bytes, max });
        }
        let mut sums = Vec::with_capacity(payloads.len());
        let mut bytes = 0;
        for payload in &mut payloads {
            let flags = self.store(payload);
            bytes += frame_bytes(payload.as_slice().len() as u64);
            sums.push(Sum::of(payload, flags));
        }
        Ok(Unit { payloads, sums, bytes })
    }

    /// Orders one record. It is published when this returns; nobody has been told to write it.
    pub(crate) async fn reserve_record(self: &Arc<Self>, payload: Payload<'_>) -> Result<Span> {
        let lone = self.lone(payload)?;
        self.status.check_new()?;
        if lone.bytes > self.ring.capacity_bytes() {
            let Lone { payload, sum, bytes, .. } = lone;
            return self
                .reserve_batch(Unit { payloads: vec![payload], sums: vec![sum], bytes })
                .await;
        }
        let permit = self.acquire(lone.bytes).await?;
        if !self.space.has_room(self.ring.tail()) {
            self.wait_for_room(None).await?;
        }
        Ok(self.publish_lone(permit, &lone))
    }

    /// As [`Core::reserve_record`], without waiting.
    pub(crate) fn try_reserve_record(self: &Arc<Self>, payload: Payload<'_>) -> Result<Span> {
        let lone = self.lone(payload)?;
        self.status.check_new()?;
        if lone.bytes > self.ring.capacity_bytes() {
            return Err(Error::Full);
        }
        match self.permits.try_acquire_many(Core::permits_for(lone.bytes)) {
            Ok(permit) => {
                if !self.space.has_room(self.ring.tail()) {
                    // Run in place it is there at once.
                    self.request_spare(0);
                    if !self.space.has_room(self.ring.tail()) {
                        return Err(self.space.last_failure().unwrap_or(Error::Full));
                    }
                }
                Ok(self.publish_lone(permit, &lone))
            }
            Err(TryAcquireError::NoPermits) => {
                // What fills the ring may wait for a sync that nobody has asked for.
                self.kick_writer();
                Err(Error::Full)
            }
            Err(TryAcquireError::Closed) => Err(self.why_stopped()),
        }
    }

    /// Orders a batch. It is published when this returns; nobody has been told to write it.
    pub(crate) async fn reserve_batch(self: &Arc<Self>, unit: Unit<'_>) -> Result<Span> {
        self.status.check_new()?;
        if unit.payloads.is_empty() {
            let goal = self.goal(|| self.ring.tail());
            return Ok(Span { lsn: goal.end, goal });
        }
        let room = self.room_for(&unit).await?;
        Ok(self.publish(room, unit))
    }

    /// Room for a unit, which [`Core::publish`] then orders without waiting: so that a caller's
    /// own lock can be taken in between, and the order under it is the order of the log.
    pub(crate) async fn room_for(self: &Arc<Self>, unit: &Unit<'_>) -> Result<Room<'_>> {
        self.status.check_new()?;
        let outside = unit.bytes > self.ring.capacity_bytes();
        let permit = self.acquire(unit.bytes.min(self.ring.capacity_bytes())).await?;
        if outside {
            self.wait_for_room(Some(unit.bytes)).await?;
        } else if !self.space.has_room(self.ring.tail()) {
            // A rotation may have to come first, and what causes it be left to be written later.
            self.kick_writer();
            self.wait_for_room(None).await?;
        }
        Ok(Room { permit, bytes: unit.bytes })
    }

    /// Orders a unit in the room that was made for it. Never waits; nobody has been told to write it.
    pub(crate) fn publish(&self, room: Room<'_>, unit: Unit<'_>) -> Span {
        debug_assert_eq!(room.bytes, unit.bytes, "the room is that unit's");
        if unit.bytes > self.ring.capacity_bytes() {
            return self.publish_outside(room.permit, unit);
        }
        room.permit.forget();
        let guard = PanicGuard { core: self };
        let reserved = self.ring.reserve(unit.bytes);
        let span = self.span(reserved.lsn(), reserved.end());
        let payloads = unit.payloads.iter().map(Payload::as_slice);
        reserved.publish(self.sealed(&unit, span.lsn).into_iter().zip(payloads));
        std::mem::forget(guard);
        span
    }

    /// Leaves what was published to be written with what comes next, or when somebody wants it synced;
    /// but not when nothing comes any more.
    #[cfg(feature = "raft")]
    pub(crate) fn write_later(self: &Arc<Self>) {
        // Either we see that the log is being closed, or who closes it sees what we published.
        fence(Ordering::SeqCst);
        if self.status.check_new().is_err() {
            self.kick_writer();
        }
    }

    /// The headers of a unit's frames, from `lsn` on.
    fn sealed(&self, unit: &Unit<'_>, lsn: Lsn) -> Vec<FrameHeader> {
        let (synced, seed) = (self.synced.get(), self.epochs.seed());
        let mut at = lsn;
        let mut headers = Vec::with_capacity(unit.sums.len());
        let count = unit.payloads.len();
        for (i, (payload, sum)) in unit.payloads.iter().zip(&unit.sums).enumerate() {
            let kind = match (i + 1 == count, count) {
                (_, 1) => Kind::Record,
                (true, _) => Kind::BatchEnd,
                (false, _) => Kind::BatchPart,
            };
            let bytes = payload.as_slice().len() as u64;
            // Checked against the limit before, which is far below.
            let payload_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            let kind = (kind, sum.flags);
            let header = FrameHeader::seal_flagged(seed, at, kind, payload_bytes, sum.crc, synced);
            headers.push(header);
            at = at.plus(frame_bytes(bytes));
        }
        headers
    }

    fn publish_lone(&self, permit: SemaphorePermit<'_>, lone: &Lone<'_>) -> Span {
        permit.forget();
        // From here to the end nothing waits and no code of users runs.
        let guard = PanicGuard { core: self };
        let reserved = self.ring.reserve(lone.bytes);
        let span = self.span(reserved.lsn(), reserved.end());
        let (synced, seed) = (self.synced.get(), self.epochs.seed());
        let (kind, bytes) = ((Kind::Record, lone.sum.flags), lone.payload_bytes);
        let header = FrameHeader::seal_flagged(seed, span.lsn, kind, bytes, lone.sum.crc, synced);
        reserved.publish(std::iter::once((header, lone.payload.as_slice())));
        std::mem::forget(guard);
        span
    }

    /// Publishes a control record. The caller's permits for it are forgotten.
    pub(super) fn publish_control(&self, reserved: Reserved<'_>, control: Control) {
        let guard = PanicGuard { core: self };
        let payload = control.payload();
        let (lsn, bytes) = (reserved.lsn(), payload.len());
        let payload_bytes = u32::try_from(bytes).unwrap_or_default();
        let crc = crc32c::crc32c(&payload);
        let (synced, seed) = (self.synced.get(), self.epochs.seed());
        let header = FrameHeader::seal(seed, lsn, Kind::Control, payload_bytes, crc, synced);
        debug_assert_eq!(reserved.end(), lsn.plus(frame_bytes(bytes as u64)));
        self.counters.controls.fetch_add(1, Ordering::Relaxed);
        reserved.publish(std::iter::once((header, &payload[..])));
        std::mem::forget(guard);
    }

    /// A unit larger than the ring has taken all permits, so nothing else is in flight, and becomes
    /// the log's own job.
    fn publish_outside(&self, permit: SemaphorePermit<'_>, unit: Unit<'_>) -> Span {
        // The copy of borrowed bytes comes before the reservation, and after the permits: there is
        // one such unit at a time.
        let lone = match unit.payloads.as_slice() {
            [payload] => Some(payload.clone().into_bytes()),
            _ => None,
        };
        permit.forget();
        let guard = PanicGuard { core: self };
        let lsn = self.ring.reserve_outside(unit.bytes);
        // Before it is published, as its permits go back when it is written.
        let span = self.span(lsn, lsn.plus(unit.bytes));
        let headers = self.sealed(&unit, lsn);
        let frame_count = headers.len() as u64;
        let pieces = match (lone, headers.first()) {
            (Some(payload), Some(header)) => {
                let padding = payload.len().next_multiple_of(8) - payload.len();
                let padding = Bytes::from_static([0; 8].get(..padding).unwrap_or_default());
                vec![Bytes::copy_from_slice(&header.to_bytes()), payload, padding]
            }
            _ => vec![gather(&unit, &headers)],
        };
        let outside = Outside { bytes: unit.bytes, frame_count, pieces };
        *self.outside.lock().unwrap_or_else(PoisonError::into_inner) = Some(outside);
        self.outside_at.store(lsn.as_u64(), Ordering::Release);
        std::mem::forget(guard);
        span
    }

    /// What was just reserved. As its permits are taken, it is of the current epoch.
    fn span(&self, lsn: Lsn, end: Lsn) -> Span {
        Span { lsn, goal: Goal { end, epoch: self.epochs.current() } }
    }

    /// Room in the ring for `bytes` bytes; waits for it.
    pub(super) async fn acquire(self: &Arc<Self>, bytes: u64) -> Result<SemaphorePermit<'_>> {
        let count = Core::permits_for(bytes);
        match self.permits.try_acquire_many(count) {
            Ok(permit) => return Ok(permit),
            Err(TryAcquireError::NoPermits) => {}
            Err(TryAcquireError::Closed) => return Err(self.why_stopped()),
        }
        // The ring is full of frames whose owners may all be waiting for a sync in flight.
        self.kick_writer();
        let _waits = self.measures.room_wait();
        self.permits.acquire_many(count).await.map_err(|_: AcquireError| self.why_stopped())
    }

    pub(super) fn why_stopped(&self) -> Error {
        match self.status.check() {
            Err(error) => error,
            Ok(()) => Error::Closed { reason: "close was called" },
        }
    }
}

/// The frames of a batch, one behind the other.
fn gather(unit: &Unit<'_>, headers: &[FrameHeader]) -> Bytes {
    let mut bytes = Vec::with_capacity(to_usize(unit.bytes));
    for (header, payload) in headers.iter().zip(&unit.payloads) {
        bytes.extend_from_slice(&header.to_bytes());
        bytes.extend_from_slice(payload.as_slice());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes.into()
}
