//! Appending: wait for room, reserve, copy, publish. Only the first step waits.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    format::{
        frame::{FRAME_HEADER_BYTES, FrameHeader, Kind},
        scan::to_usize,
    },
    lsn::Lsn,
    pipeline::{
        budget::is_waited_for,
        core::Core,
        job::{request_spare, request_write},
        reservation::Reservation,
        room::{Patience, acquire, has_place, wait_for_place},
        state::{
            metrics::PayloadBytes,
            payload::Payload,
            permits::{NoPermit, Permit},
            unit::{Oversized, SingleRecord, Span},
        },
    },
    sabotage::{self, Sabotage},
    turn::pause,
};

pub(crate) use crate::pipeline::state::unit::Unit;

/// Room in the ring for one unit, and a place in a segment. Dropping this returns the room.
pub(crate) struct Room<'a> {
    permit: Permit<'a>,
    bytes: u64,
}

/// The result of an append that does not wait.
pub(crate) enum Placed<'a> {
    /// The record is published.
    Now(Span),
    /// The record has to wait for room: see [`place`].
    Waits(SingleRecord<'a>),
}

/// Reserves and publishes one record if there is room. Starts no write.
///
/// Separate from [`place`], because a future costs as much as the rest of a small append.
pub(crate) fn place_now<'a>(core: &Core, payload: Payload<'a>) -> Result<Placed<'a>> {
    let record = SingleRecord::new(core.config(), payload)?;
    core.status().check_new()?;
    if record.bytes > core.ring_bytes() {
        return Ok(Placed::Waits(record));
    }
    match core.intake.permits.take_uncontended(record.bytes) {
        Ok(permit) if core.supply.space.has_room(core.tail()) => {
            Ok(Placed::Now(publish_record(core, permit, &record)))
        }
        Err(NoPermit::Closed) => Err(core.status().why_stopped()),
        Ok(_) | Err(NoPermit::Full) => Ok(Placed::Waits(record)),
    }
}

/// Waits for room, then reserves and publishes one record. Starts no write.
pub(crate) async fn place(core: &Arc<Core>, record: SingleRecord<'_>) -> Result<Span> {
    if record.bytes > core.ring_bytes() {
        return reserve_batch(core, record.into_unit()).await;
    }
    loop {
        let permit = acquire(core, record.bytes).await?;
        if core.supply.space.has_room(core.tail()) {
            return Ok(publish_record(core, permit, &record));
        }
        // A waiting future holds nothing, because it may never be polled again.
        drop(permit);
        wait_for_place(core, None, Patience::Appends).await?;
    }
}

/// Reserves and publishes one record without waiting. Starts no write.
pub(super) fn try_place(core: &Arc<Core>, payload: Payload<'_>) -> Result<Span> {
    let record = match place_now(core, payload)? {
        Placed::Now(span) => return Ok(span),
        Placed::Waits(record) if record.bytes > core.ring_bytes() => return Err(Error::Full),
        Placed::Waits(record) => record,
    };
    let space = &core.supply.space;
    if !space.has_room(core.tail()) {
        // If jobs run in place, the spare is prepared when this returns. They need permits, so this
        // call holds none.
        request_spare(core, 0);
    }
    match core.intake.permits.try_acquire(record.bytes) {
        Ok(permit) if space.has_room(core.tail()) => Ok(publish_record(core, permit, &record)),
        Ok(permit) => {
            drop(permit);
            request_spare(core, 0);
            let refused = space.last_failure().filter(|error| !is_waited_for(core, error, 0));
            Err(refused.unwrap_or(Error::Full))
        }
        Err(NoPermit::Full) => {
            // The frames that fill the ring may wait for a sync that no caller has requested.
            request_write(core);
            Err(Error::Full)
        }
        Err(NoPermit::Closed) => Err(core.status().why_stopped()),
    }
}

/// Reserves and publishes a batch. Starts no write.
pub(super) async fn reserve_batch(core: &Arc<Core>, unit: Unit<'_>) -> Result<Span> {
    core.status().check_new()?;
    if unit.is_empty() {
        let goal = core.goal(|| core.tail());
        return Ok(Span { lsn: goal.end, goal });
    }
    let room = room_for(core, &unit).await?;
    Ok(publish(core, room, unit))
}

/// Waits for the room of a unit. [`publish`] then never waits, so a caller can take its own lock
/// between the two calls. The order under that lock is then the order of the log.
pub(crate) async fn room_for<'a>(core: &'a Arc<Core>, unit: &Unit<'_>) -> Result<Room<'a>> {
    core.status().check_new()?;
    let ring_bytes = core.ring_bytes();
    let oversized = (unit.bytes() > ring_bytes).then_some(unit.bytes());
    loop {
        let permit = acquire(core, unit.bytes().min(ring_bytes)).await?;
        if has_place(core, oversized) {
            return Ok(Room { permit, bytes: unit.bytes() });
        }
        // A waiting future holds nothing, because it may never be polled again.
        drop(permit);
        wait_for_place(core, oversized, Patience::Appends).await?;
    }
}

/// Publishes a unit in the room that was made for it. Never waits. Starts no write.
pub(crate) fn publish(core: &Core, room: Room<'_>, unit: Unit<'_>) -> Span {
    debug_assert_eq!(room.bytes, unit.bytes(), "the room is for another unit");
    if unit.bytes() > core.ring_bytes() {
        let single = unit.single_payload();
        room.permit.forget();
        return publish_oversized(core, &unit, single, Reservation::oversized(core, unit.bytes()));
    }
    room.permit.forget();
    publish_unit(core, &unit, Reservation::next(core, unit.bytes()))
}

/// As [`publish`], if the next position is `lsn`. Otherwise gives the room back.
pub(crate) fn publish_at(core: &Core, room: Room<'_>, unit: &Unit<'_>, lsn: Lsn) -> Option<Span> {
    debug_assert_eq!(room.bytes, unit.bytes(), "the room is for another unit");
    let bytes = unit.bytes();
    if bytes > core.ring_bytes() {
        let single = unit.single_payload();
        let reservation = Reservation::oversized_at(core, lsn, bytes)?;
        room.permit.forget();
        return Some(publish_oversized(core, unit, single, reservation));
    }
    let reservation = match sabotage::is_on(Sabotage::ForgetConflict) {
        true => {
            pause(Duration::from_micros(200));
            Reservation::next(core, bytes)
        }
        false => Reservation::at(core, lsn, bytes)?,
    };
    room.permit.forget();
    Some(publish_unit(core, unit, reservation))
}

fn publish_unit(core: &Core, unit: &Unit<'_>, reservation: Reservation<'_>) -> Span {
    let span = reservation.span();
    let headers = unit.headers(core.epochs().seed(), span.lsn, core.synced().get());
    reservation.publish(headers.into_iter().zip(unit.payloads()));
    span
}

fn publish_record(core: &Core, permit: Permit<'_>, record: &SingleRecord<'_>) -> Span {
    permit.forget();
    let reservation = Reservation::next(core, record.bytes);
    let span = reservation.span();
    let (synced, seed) = (core.synced().get(), core.epochs().seed());
    let (kind, bytes) = ((Kind::Record, record.checksum.flags), record.payload_bytes);
    let header =
        FrameHeader::seal_flagged(seed, span.lsn, kind, bytes, record.checksum.crc, synced);
    reservation.publish(std::iter::once((header, record.payload.as_slice())));
    span
}

/// Publishes a unit larger than the ring. It holds all permits, so nothing else is in flight.
///
/// `single` is its only payload. Borrowed bytes were copied before the reservation. The caller held
/// the permits, so there is only one such copy at a time.
fn publish_oversized(
    core: &Core,
    unit: &Unit<'_>,
    single: Option<Bytes>,
    reservation: Reservation<'_>,
) -> Span {
    let span = reservation.span();
    let headers = unit.headers(core.epochs().seed(), span.lsn, core.synced().get());
    let frame_count = headers.len() as u64;
    let pieces = match (single, headers.first()) {
        (Some(payload), Some(header)) => {
            let padding = to_usize(unit.bytes()) - FRAME_HEADER_BYTES - payload.len();
            let padding = Bytes::from_static([0; 8].get(..padding).unwrap_or_default());
            vec![Bytes::copy_from_slice(&header.to_bytes()), payload, padding]
        }
        _ => vec![unit.gathered(&headers)],
    };
    let last_record = unit.last_record(span.goal.end);
    let payload = PayloadBytes::of(unit.payloads());
    reservation.publish_oversized(Oversized {
        last_record,
        bytes: unit.bytes(),
        frame_count,
        payload,
        pieces,
    });
    span
}
