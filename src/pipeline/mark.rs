//! A high-water mark and the tasks that wait for it.

use std::{collections::VecDeque, task::Waker};

use crate::{
    lsn::Lsn,
    sync::{Apart, AtomicU64, Hint, Mutex, Ordering},
};

/// A position that only grows, cuts aside, and the tasks that wait until it covers theirs.
///
/// A waiter registers under the queue's lock and reads the mark again there; the mark is stored
/// before that lock is taken to wake. So either the waiter sees the mark or the waker sees the
/// waiter.
#[derive(Debug)]
pub(crate) struct Mark {
    value: Apart<AtomicU64>,
    queue: Mutex<Queue>,
    /// How many writers stand in the queue.
    writer_count: Hint,
}

/// Whom a move of the mark answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answered {
    /// So many writers were woken.
    pub(super) writer_count: u64,
    /// So many more waited, for a later position.
    pub(super) left_count: u64,
}

/// Waiters by target; those with the same target in the order in which they came.
#[derive(Debug, Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    next_id: u64,
    /// Waiters that gave up; their places go when they are half of all.
    gone_count: usize,
    /// Those of [`Rank::Writer`] that have not given up.
    writer_count: u64,
}

#[derive(Debug)]
struct Waiter {
    target: Lsn,
    id: u64,
    rank: Rank,
    waker: Option<Waker>,
}

/// Who is woken first when a mark has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    /// Those who wait for a position of their own: appends and syncs.
    Writer,
    /// Those who read whatever comes. Any mark is news to all of them, so without this they would
    /// stand before everybody else, and each commit would wait for their wake-ups.
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
            value: Apart(AtomicU64::new(at.as_u64())),
            queue: Mutex::new(Queue::default()),
            writer_count: Hint::default(),
        }
    }

    /// How many wait for a position of their own, about.
    pub(super) fn writer_count(&self) -> u64 {
        self.writer_count.get()
    }

    /// The caller has changed the queue.
    fn show_count(&self, queue: &Queue) {
        self.writer_count.set(queue.writer_count);
    }

    pub(crate) fn get(&self) -> Lsn {
        Lsn::new(self.value.load(Ordering::Acquire))
    }

    /// Moves the mark up to `to`, if it isn't there yet, and wakes those whose target it reached.
    /// Call it without any lock held: a waker may run the woken task's code.
    pub(crate) fn advance(&self, to: Lsn) {
        self.raise(to);
        self.wake_reached(to);
    }

    /// The first half: moves the mark up to `to`, if it isn't there yet.
    pub(super) fn raise(&self, to: Lsn) {
        self.value.fetch_max(to.as_u64(), Ordering::AcqRel);
    }

    /// Moves the mark back. Everybody is to be woken afterwards, to see what became of their targets.
    pub(super) fn lower(&self, to: Lsn) {
        self.value.store(to.as_u64(), Ordering::Release);
    }

    /// The second half: wakes those whose target is `to` or less, and says how many there were.
    pub(super) fn wake_reached(&self, to: Lsn) -> Answered {
        let (reached, answered) = {
            let mut queue = lock(&self.queue);
            let before = queue.writer_count;
            let reached = queue.take_reached(to);
            let left_count = queue.writer_count;
            self.show_count(&queue);
            (reached, Answered { writer_count: before - left_count, left_count })
        };
        reached.into_iter().for_each(Waker::wake);
        answered
    }

    /// Whether the mark has reached `target`; if not, `waker` is woken when it has.
    pub(crate) fn register(
        &self,
        target: Lsn,
        waiter: &mut Option<WaiterId>,
        waker: &Waker,
    ) -> bool {
        self.register_as(Rank::Writer, target, waiter, waker)
    }

    /// As [`Mark::register`], woken behind those who don't wait as readers.
    pub(crate) fn register_reader(
        &self,
        target: Lsn,
        waiter: &mut Option<WaiterId>,
        waker: &Waker,
    ) -> bool {
        self.register_as(Rank::Reader, target, waiter, waker)
    }

    fn register_as(
        &self,
        rank: Rank,
        target: Lsn,
        waiter: &mut Option<WaiterId>,
        waker: &Waker,
    ) -> bool {
        if self.get() >= target {
            return true;
        }
        let mut queue = lock(&self.queue);
        if self.get() >= target {
            return true;
        }
        match waiter {
            Some(id) => queue.update(*id, waker),
            None => *waiter = Some(queue.insert(rank, target, waker)),
        }
        self.show_count(&queue);
        false
    }

    /// Forgets a waiter, whether it was woken or not.
    pub(crate) fn cancel(&self, id: WaiterId) {
        let mut queue = lock(&self.queue);
        queue.remove(id);
        self.show_count(&queue);
    }

    /// Wakes everybody: there is news that is none of the mark's.
    pub(crate) fn wake_all(&self) {
        self.wake_reached(Lsn::new(u64::MAX));
    }

    #[cfg(test)]
    pub(crate) fn waiter_count(&self) -> usize {
        let queue = lock(&self.queue);
        queue.waiters.len() - queue.gone_count
    }
}

/// Wakers run after the lock is free, so nothing panics under it, and a poisoned lock is as good.
fn lock(queue: &Mutex<Queue>) -> impl std::ops::DerefMut<Target = Queue> + '_ {
    queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Queue {
    fn insert(&mut self, rank: Rank, target: Lsn, waker: &Waker) -> WaiterId {
        let id = self.next_id;
        self.next_id += 1;
        self.writer_count += u64::from(rank == Rank::Writer);
        let waiter = Waiter { target, id, rank, waker: Some(waker.clone()) };
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

    /// Renews the waker of a waiter; one that was woken early (by `wake_all`) comes in again.
    fn update(&mut self, id: WaiterId, waker: &Waker) {
        match self.find(id) {
            // A place that was given up is never asked for again, so there is a waker.
            Some(waiter) => match &mut waiter.waker {
                Some(known) if known.will_wake(waker) => {}
                known => *known = Some(waker.clone()),
            },
            None => {
                let place = self
                    .waiters
                    .partition_point(|other| (other.target, other.id) < (id.target, id.id));
                let WaiterId { target, id, rank } = id;
                self.writer_count += u64::from(rank == Rank::Writer);
                let waiter = Waiter { target, id, rank, waker: Some(waker.clone()) };
                self.waiters.insert(place, waiter);
            }
        }
    }

    fn remove(&mut self, id: WaiterId) {
        let gone = self.find(id).is_some_and(|waiter| waiter.waker.take().is_some());
        self.gone_count += usize::from(gone);
        self.writer_count -= u64::from(gone && id.rank == Rank::Writer);
        if self.gone_count > 32 && self.gone_count * 2 > self.waiters.len() {
            self.waiters.retain(|waiter| waiter.waker.is_some());
            self.gone_count = 0;
        }
    }

    fn take_reached(&mut self, mark: Lsn) -> Vec<Waker> {
        let count = self.waiters.partition_point(|waiter| waiter.target <= mark);
        let mut wakers = Vec::with_capacity(count);
        let mut readers = Vec::new();
        for waiter in self.waiters.drain(..count) {
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
    fn only_those_reached_are_woken_whatever_order_they_came_in() {
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
    fn writers_are_counted_and_readers_are_not() {
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
        let answered = mark.wake_reached(Lsn::new(8));
        assert_eq!(answered, Answered { writer_count: 2, left_count: 1 });
        mark.wake_all();
        assert_eq!(mark.writer_count(), 0);
        mark.register(Lsn::new(16), &mut ids[2], waker);
        assert_eq!(mark.writer_count(), 1, "one that was woken early has come back");
    }

    #[test]
    fn those_who_gave_up_leave_no_trace() {
        let mark = Mark::new(Lsn::ZERO);
        let waker = Waker::noop();
        for round in 0..10_000 {
            let mut id = None;
            mark.register(Lsn::new(8 + round % 3), &mut id, waker);
            mark.cancel(id.unwrap());
        }
        assert_eq!(mark.waiter_count(), 0);
        assert!(lock(&mark.queue).waiters.len() < 100);
    }

    #[test]
    fn a_waiter_woken_early_can_come_back() {
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
