//! Room for an append: permits of the ring, and a place in a segment.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use crate::{
    error::Result,
    pipeline::{
        budget::{is_waited_for, judge_next},
        core::Core,
        job::{request_relief, request_spare, request_write},
        state::{
            permits::{Blocked, NoPermit, Permit},
            retaining::Verdict,
            space::CONTROL_ROOM_BYTES,
        },
    },
    turn::{pause, yield_now},
};

/// The number of yields of the write job between two checks of an offer. Usually the offer is taken
/// during these yields.
const YIELDS: u32 = 32;

/// The first pause; each further one is twice as long.
const PAUSE: Duration = Duration::from_micros(100);

/// Pauses of one stay, about 13 ms together. Then a new job continues, so that a shutdown is not
/// delayed.
const PAUSES: u32 = 7;

/// Whether a call waits for a budget that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// An append: by the choice of the option `budget`.
    Appends,
    /// A call that may free space never waits for space.
    FreesSpace,
}

/// Waits for `bytes` bytes of the ring.
pub(super) async fn acquire(core: &Arc<Core>, bytes: u64) -> Result<Permit<'_>> {
    match core.intake.permits.take_uncontended(bytes) {
        Ok(permit) => return Ok(permit),
        Err(NoPermit::Full) => {}
        Err(NoPermit::Closed) => return Err(core.status().why_stopped()),
    }
    let _urgent = core.roles.in_place.urgent();
    // The ring is full of frames whose owners may all be waiting for the sync in flight.
    request_write(core);
    let _wait = core.measures().room_wait();
    let mut acquire = pin!(core.intake.permits.acquire(bytes));
    let acquired = poll_fn(|context| match acquire.as_mut().poll(context) {
        Poll::Ready(acquired) => Poll::Ready(acquired.map_err(|_| core.status().why_stopped())),
        // Checked after the request is in the line, because a stall wakes the requests in it.
        Poll::Pending => check_stall(core, false)
            .map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending),
    });
    acquired.await
}

/// Returns whether a call that needs room may wait for it, perhaps for a truncation and a removal.
///
/// # Errors
///
/// `Stalled` if the log's I/O does not return, and the option `on_stall` fails waiters.
fn check_stall(core: &Core, needs_removal: bool) -> Result<()> {
    match core.vitals().stalls().fails_room(needs_removal) {
        Some(stall) => Err(core.stalled(stall)),
        None => Ok(()),
    }
}

/// Returns whether the tail may move, or whether an oversized unit of that size fits. For the
/// latter the caller holds the whole ring.
pub(super) fn has_place(core: &Core, oversized_bytes: Option<u64>) -> bool {
    match oversized_bytes {
        None => core.supply.space.has_room(core.tail()),
        Some(bytes) => core.supply.space.has_room_for(core.tail(), bytes),
    }
}

/// Waits until the tail may move, or until an oversized unit of that size fits.
///
/// # Errors
///
/// `NoSpace`, `OverBudget` or `Io` if an attempt to prepare a segment failed that ended after this
/// call began. Nothing was reserved, and the next call tries again.
pub(super) async fn wait_for_place(
    core: &Arc<Core>,
    oversized_bytes: Option<u64>,
    patience: Patience,
) -> Result<()> {
    let bytes = oversized_bytes.map_or(0, |bytes| bytes.saturating_add(CONTROL_ROOM_BYTES));
    wait_for_space(core, bytes, patience, || has_place(core, oversized_bytes)).await
}

/// Waits until the next segment's file is prepared.
///
/// # Errors
///
/// As [`wait_for_place`].
pub(super) async fn wait_for_spare(core: &Arc<Core>) -> Result<()> {
    wait_for_space(core, 0, Patience::FreesSpace, || core.supply.space.has_spare()).await
}

/// Has a spare for a unit of `bytes` prepared, and waits until `is_there`.
async fn wait_for_space(
    core: &Arc<Core>,
    bytes: u64,
    patience: Patience,
    is_there: impl Fn() -> bool,
) -> Result<()> {
    let space = &core.supply.space;
    let mut awaited = None;
    let mut wait = None;
    let mut waiting = None;
    // `DropOldest` makes room by itself.
    let waits = patience == Patience::Appends || core.retaining().drops_oldest();
    // A rotation may have to come first. The frame that causes it may belong to a future that is
    // not polled, so a job has to write it.
    let _urgent = core.roles.in_place.urgent();
    request_write(core);
    loop {
        // Counted before the state is read, so that no change is missed.
        let change_count = space.changed.count();
        core.status().check()?;
        if is_there() {
            return Ok(());
        }
        let mut is_over_budget = false;
        if let Some(error) = awaited.and_then(|attempt| space.failure_since(attempt)) {
            if !(waits && is_waited_for(core, &error, bytes)) {
                return Err(error);
            }
            // A removal rings after the files are fewer, so it is seen here or it ends the wait.
            is_over_budget = !matches!(judge_next(core, bytes), None | Some(Verdict::Fits));
            awaited = awaited.filter(|_| is_over_budget);
        }
        check_stall(core, is_over_budget)?;
        if is_over_budget {
            // Counted before the job looks, so that it misses no change.
            waiting.get_or_insert_with(|| core.retaining().begin_wait());
            if core.retaining().drops_oldest() {
                core.retaining().begin_dropping(bytes);
            }
            request_relief(core);
        }
        let requested = if is_over_budget { None } else { request_spare(core, bytes) };
        match requested {
            // If jobs run in place, the attempt may be over already.
            Some(attempt) if awaited.is_none() => awaited = Some(attempt),
            _ => {
                wait.get_or_insert_with(|| core.measures().room_wait());
                space.changed.rung_since(change_count).await;
            }
        }
    }
}

/// Gives room back to the ring, and has open offers watched.
pub(super) fn give_back(core: &Arc<Core>, bytes: u64) {
    let permits = &core.intake.permits;
    if core.executor().runs_in_place() {
        permits.release(bytes);
        return;
    }
    permits.release_watched(bytes);
    if permits.is_stuck() {
        request_write(core);
    }
}

/// Returns whether an offer blocks requests, so that the write job has to watch it. False if I/O
/// runs in place, because the requests watch the offers then.
pub(super) fn has_offers_to_watch(core: &Core) -> bool {
    !core.executor().runs_in_place() && core.intake.permits.is_stuck()
}

/// Stays while an offer blocks requests. Returns whether it stayed.
///
/// Room is offered to the first requests, and a request takes its offer only when it is polled.
/// Once the ring is empty, a request that is never polled again would block all others: no byte
/// returns that could wake them. The write job has just emptied the ring, so it stays. Usually the
/// offer is taken within microseconds; if not, the job withdraws it.
pub(super) fn watch_offers(core: &Core) -> bool {
    if !has_offers_to_watch(core) {
        return false;
    }
    let permits = &core.intake.permits;
    let mut blocked = Blocked::default();
    for count in 0..PAUSES {
        for _ in 0..YIELDS {
            if core.has_published() || !permits.is_stuck() || core.status().check().is_err() {
                return true;
            }
            yield_now();
        }
        permits.watch(&mut blocked);
        pause(PAUSE * (1 << count));
    }
    true
}
