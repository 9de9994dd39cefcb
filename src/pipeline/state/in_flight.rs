//! The I/O calls of a log that have not returned.
//!
//! Each lane belongs to one lock or role, so at most one thread uses it. A call makes the lane's
//! count odd when it begins and even when it ends. A watching thread compares counts: an odd count
//! that has not changed for a second is a call that has taken a second. So a call costs two plain
//! stores and a fence, and no look at the clock.
//!
//! A call that begins starts the watching thread if there is none. That thread ends after a time
//! without calls. The flag `is_watched` prevents an unwatched call, by the protocol of
//! `scheduled`: the call stores its count, fences, then looks at the flag; the watching thread
//! clears the flag, fences, then looks at the counts.

use crate::{
    operation::Operation,
    pipeline::state::scheduled::Scheduled,
    segments::Sequence,
    sync::{Apart, AtomicU64, Ordering},
};

/// The owner of a call: the lock or role under which it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The holder of the writer's lock.
    Write,
    /// The syncer.
    Sync,
    /// The holder of the lock `preparing`.
    Prepare,
    /// The removal job.
    Remove,
    /// The job that closes the log.
    Close,
}

/// All lanes, each at the place of its number.
pub(crate) const LANES: [Lane; 5] =
    [Lane::Write, Lane::Sync, Lane::Prepare, Lane::Remove, Lane::Close];

const OPERATIONS: [Operation; 6] = [
    Operation::Write,
    Operation::Flush,
    Operation::Rotate,
    Operation::Prepare,
    Operation::Remove,
    Operation::Close,
];

/// Returns the place of an operation in [`OPERATIONS`].
#[inline]
const fn code(operation: Operation) -> u64 {
    match operation {
        Operation::Write => 0,
        Operation::Flush => 1,
        Operation::Rotate => 2,
        Operation::Prepare => 3,
        Operation::Remove => 4,
        Operation::Close => 5,
    }
}

/// The bits of an operation in [`LaneState::what`]. A sequence number has at most 61 bits.
const OPERATION_BITS: u32 = 3;

/// The calls in flight, at most one in each lane.
#[derive(Debug)]
pub(crate) struct InFlight {
    lanes: [Apart<LaneState>; LANES.len()],
    pub(crate) is_watched: Scheduled,
}

#[derive(Debug)]
struct LaneState {
    /// Odd while a call is in flight.
    count: AtomicU64,
    /// The operation and the number of its file.
    what: AtomicU64,
}

/// A look at a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) count: u64,
    pub(crate) operation: Operation,
    pub(crate) sequence: Sequence,
}

impl Seen {
    pub(crate) fn is_in_flight(self) -> bool {
        self.count % 2 == 1
    }
}

impl InFlight {
    pub(crate) fn new() -> Self {
        let lane = |_| Apart(LaneState { count: AtomicU64::new(0), what: AtomicU64::new(0) });
        InFlight { lanes: LANES.map(lane), is_watched: Scheduled::new() }
    }

    #[inline]
    fn lane(&self, lane: Lane) -> &LaneState {
        let [write, sync, prepare, remove, close] = &self.lanes;
        match lane {
            Lane::Write => write,
            Lane::Sync => sync,
            Lane::Prepare => prepare,
            Lane::Remove => remove,
            Lane::Close => close,
        }
    }

    /// Notes that a call begins. The caller owns the lane, and looks at `is_watched` next.
    #[inline]
    pub(crate) fn begin(&self, lane: Lane, operation: Operation, sequence: Sequence) {
        let code = code(operation);
        let state = self.lane(lane);
        // Release, so that a look that reads it also reads the end of the call before.
        state.what.store(sequence.0 << OPERATION_BITS | code, Ordering::Release);
        self.step(lane, 1);
    }

    /// Notes that the call has returned.
    #[inline]
    pub(crate) fn end(&self, lane: Lane) {
        self.step(lane, 1);
    }

    /// Notes that one call of several has returned, and the next begins.
    pub(crate) fn progressed(&self, lane: Lane) {
        self.step(lane, 2);
    }

    /// Only the owner of the lane stores its count.
    #[inline]
    fn step(&self, lane: Lane, by: u64) {
        let count = &self.lane(lane).count;
        count.store(count.load(Ordering::Relaxed).wrapping_add(by), Ordering::Release);
    }

    pub(crate) fn look(&self, lane: Lane) -> Seen {
        let state = self.lane(lane);
        loop {
            let count = state.count.load(Ordering::Acquire);
            let what = state.what.load(Ordering::Acquire);
            // Otherwise `what` may be that of a later call.
            if state.count.load(Ordering::Acquire) == count {
                let code = usize::try_from(what & ((1 << OPERATION_BITS) - 1)).unwrap_or(0);
                let operation = OPERATIONS.get(code).copied().unwrap_or(Operation::Write);
                return Seen { count, operation, sequence: Sequence(what >> OPERATION_BITS) };
            }
        }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn lane_reports_operation_and_file_while_in_flight() {
        let in_flight = InFlight::new();
        for (number, operation) in OPERATIONS.into_iter().enumerate() {
            let sequence = Sequence(u64::MAX >> 3 >> number);
            in_flight.begin(Lane::Sync, operation, sequence);
            let seen = in_flight.look(Lane::Sync);
            assert!(seen.is_in_flight());
            assert_eq!((seen.operation, seen.sequence), (operation, sequence));
            in_flight.progressed(Lane::Sync);
            let later = in_flight.look(Lane::Sync);
            assert!(later.is_in_flight() && later.count != seen.count);
            in_flight.end(Lane::Sync);
            assert!(LANES.iter().all(|lane| !in_flight.look(*lane).is_in_flight()));
        }
    }
}
