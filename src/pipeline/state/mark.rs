//! A high-water mark and the tasks that wait for it.

use std::{collections::VecDeque, task::Waker};

use crate::{
    lsn::{AtomicLsn, Lsn},
    pipeline::state::wakers::wake_each,
    sync::{Apart, Hint, LockAlways, Mutex, Ordering},
};

/// A position that grows, and the tasks that wait for it. Only a truncation of the end moves it
/// back.
///
/// A waiter registers under the queue's lock and reads the mark again there. The moving thread
/// stores the mark before it takes that lock to wake waiters. So either the waiter sees the new
/// mark, or the moving thread sees the waiter.
#[derive(Debug)]
pub(crate) struct Mark {
    value: Apart<AtomicLsn>,
    queue: Mutex<Queue>,
    /// The number of writers in the queue.
    writer_count: Hint,
}

/// The result of a move of the mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Woken {
    /// The number of writers that were woken.
    pub(crate) writer_count: u64,
    /// The number of writers that still wait, for a later position.
    pub(crate) waiting_count: u64,
}

/// Waiters by target; equal targets in order of arrival.
#[derive(Debug, Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    next_id: u64,
    /// Waiters that gave up. Their places are freed when they are half of all.
    gone_count: usize,
    /// Waiters of [`Rank::Writer`] that have not given up.
    writer_count: u64,
}

#[derive(Debug)]
struct Waiter {
    target: Lsn,
    id: u64,
    rank: Rank,
    waker: Option<Waker>,
}

/// The order in which a mark wakes its waiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    /// Appends and syncs, each of which waits for its own position. Woken first.
    Writer,
    /// Readers. Any move of the mark wakes all of them. Woken last, because otherwise each commit
    /// would wait for their wake-ups.
    Reader,
}

/// A place in a mark's queue, kept by the waiting future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaiterId {
    target: Lsn,
    id: u64,
    rank: Rank,
}

impl Mark {
    pub(crate) fn new(at: Lsn) -> Self {
        Mark {
            value: Apart(AtomicLsn::new(at)),
            queue: Mutex::new(Queue::default()),
            writer_count: Hint::default(),
        }
    }

    /// Returns the approximate number of waiting writers.
    pub(crate) fn writer_count(&self) -> u64 {
        self.writer_count.get()
    }

    /// Publishes the number of writers after a change of the queue.
    fn show_count(&self, queue: &Queue) {
        self.writer_count.set(queue.writer_count);
    }

    pub(crate) fn get(&self) -> Lsn {
        self.value.load(Ordering::Acquire)
    }

    /// Moves the mark up to `to` and wakes the waiters whose target it reached. Call it without any
    /// lock held, because a waker may run the woken task's code.
    pub(crate) fn advance(&self, to: Lsn) {
        self.raise(to);
        self.wake_reached(to);
    }

    /// The first half: moves the mark up to `to`, if it is below.
    pub(crate) fn raise(&self, to: Lsn) {
        self.value.fetch_max(to, Ordering::AcqRel);
    }

    /// Moves the mark back. The caller wakes all waiters afterwards, which check their targets.
    pub(crate) fn lower(&self, to: Lsn) {
        self.value.store(to, Ordering::Release);
    }

    /// The second half: wakes the waiters whose target is `to` or less. Returns the number of
    /// writers.
    pub(crate) fn wake_reached(&self, to: Lsn) -> Woken {
        let (reached, woken) = self.take_reached(to);
        if !reached.is_empty() {
            wake_each(reached);
        }
        woken
    }

    /// As [`wake_reached`](Mark::wake_reached). The caller wakes the returned wakers.
    pub(crate) fn take_reached(&self, to: Lsn) -> (Vec<Waker>, Woken) {
        let mut queue = self.queue.lock_always();
        let before = queue.writer_count;
        let reached = queue.take_reached(to);
        let waiting_count = queue.writer_count;
        self.show_count(&queue);
        (reached, Woken { writer_count: before - waiting_count, waiting_count })
    }

    /// Returns whether the mark has reached `target`. If not, `waker` is woken when it has.
    ///
    /// If the mark has reached `target`, `waiter` becomes `None`, and needs no [`cancel`]. The
    /// thread that moved the mark has removed the waiter, or removes it soon and wakes the task
    /// once more.
    ///
    /// [`cancel`]: Mark::cancel
    #[inline]
    pub(crate) fn register(
        &self,
        target: Lsn,
        waiter: &mut Option<WaiterId>,
        waker: &Waker,
    ) -> bool {
        self.register_as(Rank::Writer, target, waiter, waker)
    }

    /// As [`Mark::register`], woken after the writers.
    pub(crate) fn register_reader(
        &self,
        target: Lsn,
        waiter: &mut Option<WaiterId>,
        waker: &Waker,
    ) -> bool {
        self.register_as(Rank::Reader, target, waiter, waker)
    }

    #[inline]
    fn register_as(
        &self,
        rank: Rank,
        target: Lsn,
        waiter: &mut Option<WaiterId>,
        waker: &Waker,
    ) -> bool {
        let is_reached = self.get() >= target || !self.enqueue(rank, target, waiter, waker);
        if is_reached {
            // Each move of the mark is followed by a wake-up of the reached waiters, and each move
            // back by `wake_all`. Both remove them, so a second lock here would find nothing.
            *waiter = None;
        }
        is_reached
    }

    /// Has `waker` woken when the mark reaches `target`. Returns `false` if it has by now.
    ///
    /// Kept apart from the check of the mark, which is all that the poll of a woken task needs.
    #[inline(never)]
    fn enqueue(
        &self,
        rank: Rank,
        target: Lsn,
        waiter: &mut Option<WaiterId>,
        waker: &Waker,
    ) -> bool {
        if waiter.is_some_and(|id| self.queue.lock_always().has(id, waker)) {
            // Registered before, so a move of the mark since then wakes it.
            return self.get() < target;
        }
        // Wakers are user code: they are cloned and dropped without the lock.
        let mine = waker.clone();
        let mut queue = self.queue.lock_always();
        let is_below = self.get() < target;
        let unused = match waiter {
            _ if !is_below => Some(mine),
            Some(id) => queue.update(*id, mine),
            None => {
                *waiter = Some(queue.insert(rank, target, mine));
                None
            }
        };
        self.show_count(&queue);
        drop(queue);
        drop(unused);
        is_below
    }

    /// Removes a waiter, whether it was woken or not.
    pub(crate) fn cancel(&self, id: WaiterId) {
        let removed = {
            let mut queue = self.queue.lock_always();
            let removed = queue.remove(id);
            self.show_count(&queue);
            removed
        };
        drop(removed);
    }

    /// Wakes all waiters, to read another state than the mark.
    pub(crate) fn wake_all(&self) {
        self.wake_reached(Lsn::new(u64::MAX));
    }

    #[cfg(test)]
    pub(crate) fn waiter_count(&self) -> usize {
        let queue = self.queue.lock_always();
        queue.waiters.len() - queue.gone_count
    }
}

impl Queue {
    fn insert(&mut self, rank: Rank, target: Lsn, waker: Waker) -> WaiterId {
        let id = self.next_id;
        self.next_id += 1;
        self.writer_count += u64::from(rank == Rank::Writer);
        let waiter = Waiter { target, id, rank, waker: Some(waker) };
        // Nearly always the last place: targets grow as LSNs do.
        let in_order = self.waiters.back().is_none_or(|last| last.target <= target);
        if in_order {
            self.waiters.push_back(waiter);
        } else {
            let place = self.waiters.partition_point(|other| other.target <= target);
            self.waiters.insert(place, waiter);
        }
        WaiterId { target, id, rank }
    }

    fn find(&mut self, id: WaiterId) -> Option<&mut Waiter> {
        let place = self
            .waiters
            .binary_search_by_key(&(id.target, id.id), |waiter| (waiter.target, waiter.id));
        place.ok().and_then(|place| self.waiters.get_mut(place))
    }

    /// Returns whether the waiter is there and has this waker.
    fn has(&mut self, id: WaiterId, waker: &Waker) -> bool {
        let known = self.find(id).and_then(|waiter| waiter.waker.as_ref());
        known.is_some_and(|known| known.will_wake(waker))
    }

    /// Replaces the waker of a waiter and returns the old one. A waiter that `wake_all` woke early
    /// is inserted again.
    fn update(&mut self, id: WaiterId, waker: Waker) -> Option<Waker> {
        match self.find(id) {
            Some(waiter) => waiter.waker.replace(waker),
            None => {
                let place = self
                    .waiters
                    .partition_point(|other| (other.target, other.id) < (id.target, id.id));
                let WaiterId { target, id, rank } = id;
                self.writer_count += u64::from(rank == Rank::Writer);
                let waiter = Waiter { target, id, rank, waker: Some(waker) };
                self.waiters.insert(place, waiter);
                None
            }
        }
    }

    fn remove(&mut self, id: WaiterId) -> Option<Waker> {
        let removed = self.find(id).and_then(|waiter| waiter.waker.take());
        let gone = removed.is_some();
        self.gone_count += usize::from(gone);
        self.writer_count -= u64::from(gone && id.rank == Rank::Writer);
        if self.gone_count > 32 && self.gone_count * 2 > self.waiters.len() {
            self.waiters.retain(|waiter| waiter.waker.is_some());
            self.gone_count = 0;
        }
        removed
    }

    fn take_reached(&mut self, mark: Lsn) -> Vec<Waker> {
        let count = self.waiters.partition_point(|waiter| waiter.target <= mark);
        let mut wakers = Vec::with_capacity(count);
        let mut readers = Vec::new();
        // Cheaper than `drain` for the few waiters of a usual flush.
        for waiter in (0..count).map_while(|_| self.waiters.pop_front()) {
            match (waiter.waker, waiter.rank) {
                (Some(waker), Rank::Writer) => wakers.push(waker),
                (Some(waker), Rank::Reader) => readers.push(waker),
                (None, _) => self.gone_count -= 1,
            }
        }
        self.writer_count -= wakers.len() as u64;
        wakers.append(&mut readers);
        wakers
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_reached_waiters_are_woken() {
        let mark = Mark::new(Lsn::ZERO);
        let counts: Vec<_> = (0..8).map(|_| Arc::new(Count::default())).collect();
        let order = [5u64, 2, 7, 1, 6, 3, 8, 4];
        let mut ids = vec![None; 8];
        for ((target, count), id) in order.iter().zip(&counts).zip(&mut ids) {
            let waker = Waker::from(Arc::clone(count));
            assert!(!mark.register(Lsn::new(*target), id, &waker));
        }
        mark.advance(Lsn::new(4));
        for (target, count) in order.iter().zip(&counts) {
            assert_eq!(count.0.load(Ordering::Relaxed), usize::from(*target <= 4), "{target}");
        }
        mark.advance(Lsn::new(2));
        assert_eq!((mark.get(), mark.waiter_count()), (Lsn::new(4), 4));
    }

    #[test]
    fn readers_are_woken_last() {
        struct Note(&'static str, Arc<Mutex<Vec<&'static str>>>);
        impl std::task::Wake for Note {
            fn wake(self: Arc<Self>) {
                self.1.lock().unwrap().push(self.0);
            }
        }
        let (mark, order) = (Mark::new(Lsn::ZERO), Arc::default());
        let waker = |name| Waker::from(Arc::new(Note(name, Arc::clone(&order))));
        mark.register_reader(Lsn::new(1), &mut None, &waker("reader"));
        mark.register(Lsn::new(4), &mut None, &waker("first"));
        mark.register(Lsn::new(8), &mut None, &waker("second"));
        mark.advance(Lsn::new(8));
        assert_eq!(*order.lock().unwrap(), ["first", "second", "reader"]);
    }

    #[test]
    fn only_writers_are_counted() {
        let (mark, waker) = (Mark::new(Lsn::ZERO), Waker::noop());
        let mut ids = [None; 4];
        for (target, id) in [8, 8, 16, 24].into_iter().zip(&mut ids) {
            mark.register(Lsn::new(target), id, waker);
        }
        mark.register_reader(Lsn::new(1), &mut None, waker);
        assert_eq!(mark.writer_count(), 4);
        mark.cancel(ids[3].unwrap());
        mark.cancel(ids[3].unwrap());
        assert_eq!(mark.writer_count(), 3);
        mark.raise(Lsn::new(8));
        let woken = mark.wake_reached(Lsn::new(8));
        assert_eq!(woken, Woken { writer_count: 2, waiting_count: 1 });
        mark.wake_all();
        assert_eq!(mark.writer_count(), 0);
        mark.register(Lsn::new(16), &mut ids[2], waker);
        assert_eq!(mark.writer_count(), 1, "a waiter that was woken early is back");
    }

    #[test]
    fn cancelled_waiters_free_their_places() {
        let mark = Mark::new(Lsn::ZERO);
        let waker = Waker::noop();
        for round in 0..10_000 {
            let mut id = None;
            mark.register(Lsn::new(8 + round % 3), &mut id, waker);
            mark.cancel(id.unwrap());
        }
        assert_eq!(mark.waiter_count(), 0);
        assert!(mark.queue.lock_always().waiters.len() < 100);
    }

    #[test]
    fn waiter_woken_early_registers_again() {
        let mark = Mark::new(Lsn::ZERO);
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut id = None;
        mark.register(Lsn::new(8), &mut id, &waker);
        mark.wake_all();
        assert!(!mark.register(Lsn::new(8), &mut id, &waker));
        mark.advance(Lsn::new(8));
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(mark.register(Lsn::new(8), &mut id, &waker));
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
