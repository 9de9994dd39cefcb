//! Room in the ring, counted in bytes. Only a future that is being polled takes any.
//!
//! Without contention an append takes its bytes by one compare-and-swap. While requests wait, each
//! takes its turn in the order of arrival:
//!
//! - Free bytes are *offered* to the first requests that fit, and their tasks are woken. An offer
//!   is no transfer: the next poll of that request takes the bytes. Later requests do not get
//!   offered bytes, so a request for the whole ring gets its turn however many small ones come.
//! - A request may never be polled again. While the ring is empty and an offer blocks a request
//!   that *is* polled, the blocked request yields to the scheduler [`PATIENCE`] times. Then it
//!   withdraws the offer.
//! - The log's own write job does the same after each write that leaves the ring empty
//!   (`watch_offers`). So the requests in line need not be woken to watch over an offer. With a
//!   thousand of them, that would cost a thousand polls for each write.
//! - A request that lost its offer keeps its place in the order. It is in line again when it is
//!   polled, and its next offer holds for twice as many yields. So a slow task gets its turn too.
//!
//! Liveness: a blocked request has in-flight bytes ahead of it, which jobs of the log return, or
//! the ring is empty. When the ring becomes empty while an offer is open, the write job watches the
//! offer. There may be no such job: I/O runs in place, or a permit or a request is dropped. Then
//! all requests in line are woken, and each polled one yields until the offer is taken or
//! withdrawn.
//!
//! Wakers are cloned, woken and dropped outside of the lock.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::{
    pipeline::state::wakers::wake_each,
    sync::{Apart, AtomicU64, LockAlways, Mutex, MutexGuard, Ordering},
};

/// The number of yields of a blocked request before it withdraws an offer. Enough for a task that
/// was woken before.
#[cfg(not(loom))]
pub(crate) const PATIENCE: u32 = 64;
#[cfg(loom)]
pub(crate) const PATIENCE: u32 = 1;

/// The longest time for which an offer holds, in yields.
const PATIENCE_MAX: u32 = 1 << 16;

/// A bit of the state: the log has stopped.
const CLOSED: u64 = 1 << 63;
/// A bit of the state: requests wait, so bytes are taken only under the lock.
const QUEUED: u64 = 1 << 62;
/// The bits of the state that count the free bytes.
const FREE: u64 = QUEUED - 1;

/// The free bytes of the ring, and the requests that wait for some.
#[derive(Debug)]
pub(crate) struct Permits {
    state: Apart<AtomicU64>,
    total: u64,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next_ticket: u64,
    /// Requests without an offer, by ticket.
    line: BTreeMap<u64, Waiting>,
    /// Requests with an offer that was not taken yet, by ticket.
    offers: BTreeMap<u64, Offer>,
    offered_bytes: u64,
    /// The number of offers made so far.
    offer_count: u64,
    /// The yields of attempts that do not wait. Such an attempt has no future to keep them.
    attempts: Blocked,
}

#[derive(Debug)]
struct Waiting {
    bytes: u64,
    patience: u32,
    /// `None` if its task was woken since its last poll.
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Offer {
    bytes: u64,
    patience: u32,
    number: u64,
}

/// The watcher of an offer that may never be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// The requests in line, which are woken.
    ByRequests,
    /// The caller. If the caller has just taken bytes, their return starts a watch.
    ByCaller,
}

/// The number of yields of a blocked request, and the offers that it waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Blocked {
    yields: u32,
    /// The newest offer when the first yield was counted.
    since: u64,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPermit {
    /// Not now.
    Full,
    /// Never again.
    Closed,
}

/// Bytes of the ring. They return when it is dropped.
#[derive(Debug)]
#[must_use = "dropped, its bytes return"]
pub(crate) struct Permit<'a> {
    permits: &'a Permits,
    bytes: u64,
}

impl Permit<'_> {
    /// Keeps the bytes until they are given back by [`Permits::release`].
    pub(crate) fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.permits.release(self.bytes);
    }
}

impl Permits {
    pub(crate) fn new(total: u64) -> Self {
        let state = Apart(AtomicU64::new(total & FREE));
        Permits { state, total, queue: Mutex::default() }
    }

    /// No user code runs under this lock.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock_always()
    }

    fn free(&self) -> u64 {
        self.state.load(Ordering::Acquire) & FREE
    }

    /// Takes `bytes` if they are free and no request waits. One compare-and-swap.
    pub(crate) fn take_uncontended(&self, bytes: u64) -> Result<Permit<'_>, NoPermit> {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            if state & CLOSED != 0 {
                return Err(NoPermit::Closed);
            }
            if state & QUEUED != 0 || state < bytes {
                return Err(NoPermit::Full);
            }
            let left = state - bytes;
            match self.state.compare_exchange_weak(state, left, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Ok(Permit { permits: self, bytes }),
                Err(now) => state = now,
            }
        }
    }

    /// Takes `bytes` if there is room for them now and no earlier request waits.
    pub(crate) fn try_acquire(&self, bytes: u64) -> Result<Permit<'_>, NoPermit> {
        match self.take_uncontended(bytes) {
            Err(NoPermit::Full) if self.state.load(Ordering::Acquire) & QUEUED != 0 => {}
            taken => return taken,
        }
        let (taken, wakers) = {
            let mut queue = self.queue();
            let mut wakers = Vec::new();
            let mut attempts = queue.attempts;
            if self.is_blocked_by_offers(&queue) {
                self.withdraw(&mut queue, &mut attempts, &mut wakers);
            }
            queue.attempts = attempts;
            let has_room = self.free().saturating_sub(queue.offered_bytes) >= bytes;
            let is_free = queue.line.is_empty() && has_room;
            // While requests wait, no other caller takes bytes without the lock.
            let is_taken = is_free && !queue.is_empty() && !self.is_closed();
            if is_taken {
                self.state.fetch_sub(bytes, Ordering::AcqRel);
            }
            (is_taken, wakers)
        };
        wake_each(wakers);
        if taken { Ok(Permit { permits: self, bytes }) } else { self.take_uncontended(bytes) }
    }

    /// Resolves with `bytes` of room, or with the whole ring if that is less.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives its turn to the next request.
    pub(crate) fn acquire(&self, bytes: u64) -> Acquire<'_> {
        let bytes = bytes.min(self.total);
        Acquire {
            permits: self,
            bytes,
            ticket: None,
            patience: PATIENCE,
            blocked: Blocked::default(),
        }
    }

    /// Gives bytes back, and wakes the requests that get an offer. Wakes all others, too, if they
    /// have to watch the offers. Call it without any lock held.
    pub(crate) fn release(&self, bytes: u64) {
        self.give_back(bytes, Watch::ByRequests);
    }

    /// As [`release`](Permits::release), for a caller that has the offers watched if
    /// [`is_stuck`](Permits::is_stuck) returns true.
    pub(crate) fn release_watched(&self, bytes: u64) {
        self.give_back(bytes, Watch::ByCaller);
    }

    fn give_back(&self, bytes: u64, watch: Watch) {
        let before = self.state.fetch_add(bytes, Ordering::AcqRel);
        if before & QUEUED != 0 {
            let mut wakers = Vec::new();
            self.settle(&mut self.queue(), watch, &mut wakers);
            wake_each(wakers);
        }
    }

    /// Returns whether only open offers keep a request from its room. Costs a load if no request
    /// waits.
    pub(crate) fn is_stuck(&self) -> bool {
        if self.state.load(Ordering::Acquire) & QUEUED == 0 || self.is_closed() {
            return false;
        }
        let queue = self.queue();
        !queue.line.is_empty() && self.is_blocked_by_offers(&queue)
    }

    /// Withdraws offers that were open at the previous call with the same `blocked`. Each further
    /// call counts for twice as many yields of a request.
    pub(crate) fn watch(&self, blocked: &mut Blocked) {
        let mut wakers = Vec::new();
        {
            let mut queue = self.queue();
            if !self.is_blocked_by_offers(&queue) {
                *blocked = Blocked::default();
            } else if blocked.yields == 0 {
                *blocked = Blocked { yields: PATIENCE - 1, since: queue.offer_count };
            } else {
                self.withdraw(&mut queue, blocked, &mut wakers);
                blocked.yields = (blocked.yields.saturating_mul(2)).saturating_sub(1);
            }
        }
        wake_each(wakers);
    }

    /// Refuses all requests from now on, including waiting ones.
    pub(crate) fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
        let waiting = {
            let mut queue = self.queue();
            queue.offers.clear();
            queue.offered_bytes = 0;
            std::mem::take(&mut queue.line)
        };
        wake_each(waiting.into_values().filter_map(|waiting| waiting.waker));
    }

    /// Wakes all waiting requests, which keep their places. Call it without any lock held.
    pub(crate) fn wake_all(&self) {
        let wakers: Vec<_> = {
            let mut queue = self.queue();
            queue.line.values_mut().filter_map(|waiting| waiting.waker.take()).collect()
        };
        wake_each(wakers);
    }

    fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Offers the free bytes. Lets appends skip the lock again if no request is left.
    fn settle(&self, queue: &mut Queue, watch: Watch, wakers: &mut Vec<Waker>) {
        if queue.is_empty() {
            self.state.fetch_and(!QUEUED, Ordering::AcqRel);
            return;
        }
        while let Some(first) = queue.line.first_entry() {
            let bytes = first.get().bytes;
            if self.free().saturating_sub(queue.offered_bytes) < bytes {
                break;
            }
            let (ticket, waiting) = first.remove_entry();
            queue.offer_count += 1;
            queue.offered_bytes += bytes;
            let Waiting { patience, waker, .. } = waiting;
            queue.offers.insert(ticket, Offer { bytes, patience, number: queue.offer_count });
            wakers.extend(waker);
        }
        // No byte is in flight that would wake them when it returns.
        if watch == Watch::ByRequests && self.is_blocked_by_offers(queue) {
            wakers.extend(queue.line.values_mut().filter_map(|waiting| waiting.waker.take()));
        }
    }

    /// Returns whether only offers that were not taken keep a request from its room.
    fn is_blocked_by_offers(&self, queue: &Queue) -> bool {
        !queue.offers.is_empty() && self.free() >= self.total
    }

    /// Notes that a request has yielded once more, and withdraws the offers that have waited long
    /// enough.
    fn withdraw(&self, queue: &mut Queue, blocked: &mut Blocked, wakers: &mut Vec<Waker>) {
        if blocked.yields == 0 {
            blocked.since = queue.offer_count;
        }
        blocked.yields = blocked.yields.saturating_add(1);
        if blocked.yields < PATIENCE || !blocked.yields.is_power_of_two() {
            return;
        }
        let mut withdrawn_bytes = 0;
        let mut is_older_left = false;
        queue.offers.retain(|_, offer| {
            let is_older = offer.number <= blocked.since;
            let is_kept = !is_older || offer.patience > blocked.yields;
            is_older_left |= is_older && is_kept;
            withdrawn_bytes += if is_kept { 0 } else { offer.bytes };
            is_kept
        });
        queue.offered_bytes -= withdrawn_bytes;
        if !is_older_left {
            *blocked = Blocked::default();
        }
        if withdrawn_bytes > 0 {
            self.settle(queue, Watch::ByCaller, wakers);
        }
    }

    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free()
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.line.is_empty() && self.offers.is_empty()
    }
}

/// A request for room.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub(crate) struct Acquire<'a> {
    permits: &'a Permits,
    bytes: u64,
    ticket: Option<u64>,
    patience: u32,
    blocked: Blocked,
}

impl<'a> Acquire<'a> {
    /// Takes the bytes that are offered to this request.
    fn take_offer(&mut self, queue: &mut Queue, wakers: &mut Vec<Waker>) -> Option<Permit<'a>> {
        let offer = queue.offers.remove(&self.ticket?)?;
        queue.offered_bytes -= offer.bytes;
        self.permits.state.fetch_sub(self.bytes, Ordering::AcqRel);
        self.ticket = None;
        self.permits.settle(queue, Watch::ByCaller, wakers);
        Some(Permit { permits: self.permits, bytes: self.bytes })
    }

    /// Joins the line with `waker`. Returns the waker that it replaces.
    fn join_line(&mut self, queue: &mut Queue, waker: Waker) -> Option<Waker> {
        if let Some(waiting) = self.ticket.and_then(|ticket| queue.line.get_mut(&ticket)) {
            return waiting.waker.replace(waker);
        }
        let ticket = match self.ticket {
            // Its offer was withdrawn, and now it is polled.
            Some(ticket) => {
                self.patience = self.patience.saturating_mul(2).min(PATIENCE_MAX);
                ticket
            }
            None => {
                queue.next_ticket += 1;
                queue.next_ticket
            }
        };
        self.ticket = Some(ticket);
        let (bytes, patience) = (self.bytes, self.patience);
        queue.line.insert(ticket, Waiting { bytes, patience, waker: Some(waker) });
        // From here on bytes are taken under the lock alone.
        self.permits.state.fetch_or(QUEUED, Ordering::AcqRel);
        None
    }
}

impl<'a> Future for Acquire<'a> {
    type Output = Result<Permit<'a>, NoPermit>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let permits = this.permits;
        if this.ticket.is_none() {
            match permits.take_uncontended(this.bytes) {
                Err(NoPermit::Full) => {}
                taken => return Poll::Ready(taken),
            }
        }
        let waker = context.waker().clone();
        let (mut wakers, mut replaced, mut yields) = (Vec::new(), None, false);
        let taken = {
            let mut queue = permits.queue();
            if permits.is_closed() {
                Some(Err(NoPermit::Closed))
            } else if let Some(permit) = this.take_offer(&mut queue, &mut wakers) {
                Some(Ok(permit))
            } else {
                replaced = this.join_line(&mut queue, waker);
                permits.settle(&mut queue, Watch::ByCaller, &mut wakers);
                if permits.is_blocked_by_offers(&queue) && this.is_in_line(&queue) {
                    let mut blocked = this.blocked;
                    permits.withdraw(&mut queue, &mut blocked, &mut wakers);
                    this.blocked = blocked;
                }
                let permit = this.take_offer(&mut queue, &mut wakers);
                yields = permit.is_none() && permits.is_blocked_by_offers(&queue);
                permit.map(Ok)
            }
        };
        wake_each(wakers);
        drop(replaced);
        match taken {
            Some(taken) => Poll::Ready(taken),
            None => {
                if yields {
                    // As any waker of a user, it may panic.
                    wake_each([context.waker().clone()]);
                } else {
                    this.blocked = Blocked::default();
                }
                Poll::Pending
            }
        }
    }
}

impl Acquire<'_> {
    fn is_in_line(&self, queue: &Queue) -> bool {
        self.ticket.is_some_and(|ticket| queue.line.contains_key(&ticket))
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let (removed, wakers) = {
            let mut queue = self.permits.queue();
            let mut wakers = Vec::new();
            if let Some(offer) = queue.offers.remove(&ticket) {
                queue.offered_bytes -= offer.bytes;
            }
            let removed = queue.line.remove(&ticket);
            self.permits.settle(&mut queue, Watch::ByRequests, &mut wakers);
            (removed, wakers)
        };
        wake_each(wakers);
        drop(removed);
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests;

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
