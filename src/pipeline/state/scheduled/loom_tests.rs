//! Producers of work beside a job that finds no more: no work is left without a job.

use std::sync::Arc;

use loom::thread;

use super::*;
use crate::{
    format::frame::{FrameHeader, Kind, Seed},
    lsn::Lsn,
    pipeline::state::{
        loom_tests::explore,
        mark::Mark,
        ring::{Drainer, Ring, Taken},
    },
    sync::{AtomicU64, LockAlways, Mutex},
};

const FRAME_BYTES: u64 = 24;

/// The two steps of the flag, or a broken copy of one of them.
#[derive(Clone, Copy)]
struct Steps {
    claim: fn(&Scheduled, &dyn Fn() -> bool) -> bool,
    release: fn(&Scheduled, &dyn Fn() -> bool) -> bool,
}

const REAL: Steps = Steps {
    claim: |scheduled, is_wanted| scheduled.claim(is_wanted),
    release: |scheduled, is_wanted| scheduled.release(is_wanted),
};

/// A small pipeline with the real ring, mark and flags. A write or a flush is a store.
struct Log {
    steps: Steps,
    /// How the write job checks for remaining work.
    look: fn(&Log) -> bool,
    ring: Arc<Ring>,
    writer: Mutex<Drainer>,
    synced: Mark,
    demand: AtomicU64,
    writer_scheduled: Scheduled,
    sync_scheduled: Scheduled,
}

impl Log {
    fn new(steps: Steps) -> Arc<Self> {
        Arc::new(Self::in_parts(steps))
    }

    fn in_parts(steps: Steps) -> Self {
        let (ring, drainer) = Ring::new(128, Lsn::ZERO);
        Log {
            steps,
            look: Self::has_left,
            ring,
            writer: Mutex::new(drainer),
            synced: Mark::new(Lsn::ZERO),
            demand: AtomicU64::new(0),
            writer_scheduled: Scheduled::new(),
            sync_scheduled: Scheduled::new(),
        }
    }

    /// Appends one frame. Returns its end.
    fn publish(&self) -> Lsn {
        let (reserved, payload) = (self.ring.reserve(FRAME_BYTES), [1; 8]);
        let (lsn, end) = (reserved.lsn(), reserved.end());
        let crc = crc32c::crc32c(&payload);
        let header = FrameHeader::seal(Seed::new([0; 16], 1), lsn, Kind::Record, 8, crc, lsn);
        reserved.publish(std::iter::once((header, &payload[..])));
        end
    }

    fn drain_once(&self) -> bool {
        let mut drainer = self.writer.lock_always();
        let wrote = matches!(drainer.take(128, 128), Taken::Units { .. });
        if wrote {
            drainer.release();
        }
        drop(drainer);
        if wrote {
            self.start_sync_if_wanted();
        }
        wrote
    }

    fn kick_writer(&self) {
        if (self.steps.claim)(&self.writer_scheduled, &|| true) {
            self.write_job();
        }
    }

    fn write_job(&self) {
        let look = || (self.look)(self);
        while self.drain_once() || (self.steps.release)(&self.writer_scheduled, &look) {}
    }

    fn has_left(&self) -> bool {
        self.writer.lock_always().is_ready()
    }

    fn demand_sync(&self, target: Lsn) {
        self.demand.fetch_max(target.as_u64(), Ordering::AcqRel);
        self.start_sync_if_wanted();
    }

    fn wants_sync(&self) -> bool {
        let synced = self.synced.get();
        self.demand.load(Ordering::Acquire) > synced.as_u64()
            && (self.ring.drained() > synced || self.ring.is_ready())
    }

    fn start_sync_if_wanted(&self) {
        if (self.steps.claim)(&self.sync_scheduled, &|| self.wants_sync()) {
            loop {
                if self.wants_sync() {
                    self.sync_once();
                } else if !(self.steps.release)(&self.sync_scheduled, &|| self.wants_sync()) {
                    return;
                }
            }
        }
    }

    fn sync_once(&self) {
        let goal = self.ring.tail();
        while self.ring.drained() < goal && self.drain_once() {}
        let written = self.writer.lock_always().at();
        self.synced.advance(written);
    }
}

/// Two appends: the published frames are the work.
fn append_beside_append(steps: Steps) {
    explore(move || {
        let log = Log::new(steps);
        let other = thread::spawn({
            let log = Arc::clone(&log);
            move || {
                log.publish();
                log.kick_writer();
            }
        });
        log.publish();
        log.kick_writer();
        other.join().unwrap();
        assert_eq!(log.ring.drained(), log.ring.tail(), "a frame is left in the ring");
    });
}

#[test]
fn no_published_frame_is_left() {
    append_beside_append(REAL);
}

/// An append without a sync beside one with a sync. Either may be first in the ring, and block the
/// other while it is not published.
fn append_beside_sync(steps: Steps) {
    explore(move || {
        let log = Log::new(steps);
        let other = thread::spawn({
            let log = Arc::clone(&log);
            move || {
                log.publish();
                log.kick_writer();
            }
        });
        let end = log.publish();
        log.demand_sync(end);
        other.join().unwrap();
        assert_eq!(log.ring.drained(), log.ring.tail(), "a frame is left in the ring");
        assert!(log.synced.get() >= end, "a demand is left");
    });
}

#[test]
fn late_frame_leaves_no_demand() {
    append_beside_sync(REAL);
}

/// A write job ends beside a thread that publishes and drains, as a sync does. A third thread
/// publishes behind the units being drained and relies on the write job. The last check of that job
/// must not use the old position of the drainer.
fn append_beside_two_drainers(look: fn(&Log) -> bool) {
    explore(move || {
        let log = Log { look, ..Log::in_parts(REAL) };
        let log = Arc::new(log);
        assert!(log.writer_scheduled.claim(|| true));
        let jobs: [fn(&Log); 2] = [Log::write_job, |log| {
            log.publish();
            log.drain_once();
        }];
        let others = jobs.map(|job| {
            let log = Arc::clone(&log);
            thread::spawn(move || job(&log))
        });
        log.publish();
        log.kick_writer();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(log.ring.drained(), log.ring.tail(), "a frame is left in the ring");
    });
}

#[test]
fn frame_behind_drained_units_is_not_left() {
    append_beside_two_drainers(Log::has_left);
}

#[test]
#[should_panic(expected = "a frame is left in the ring")]
fn control_check_beside_a_drainer() {
    append_beside_two_drainers(|log| log.ring.is_ready());
}

/// An append that yields and is not polled again, beside an append that needs its frame written.
/// `is_awaited` is the check of the first append before it yields.
fn parked_append_beside_append(is_awaited: fn(&Log, Lsn) -> bool) {
    explore(move || {
        let log = Log::new(REAL);
        let other = thread::spawn({
            let log = Arc::clone(&log);
            move || {
                let end = log.publish();
                log.kick_writer();
                end
            }
        });
        let end = log.publish();
        if is_awaited(&log, end) {
            log.kick_writer();
        }
        let needed = other.join().unwrap();
        assert!(log.ring.drained() >= needed, "a frame is left in the ring");
    });
}

#[test]
fn yielding_append_blocks_no_later_append() {
    parked_append_beside_append(|log, end| {
        fence(Ordering::SeqCst);
        log.ring.tail() > end
    });
}

#[test]
#[should_panic(expected = "a frame is left in the ring")]
fn control_yield_without_a_check() {
    parked_append_beside_append(|_, _| false);
}

/// The same beside a task that waits for its ring space. `demand` represents the number of such
/// tasks.
fn parked_append_beside_wait_for_space(looks_behind_a_fence: bool) {
    explore(move || {
        let log = Log::new(REAL);
        let other = thread::spawn({
            let log = Arc::clone(&log);
            move || {
                log.demand.fetch_add(1, Ordering::Relaxed);
                log.kick_writer();
            }
        });
        log.publish();
        if looks_behind_a_fence {
            fence(Ordering::SeqCst);
        }
        if log.demand.load(Ordering::Relaxed) > 0 {
            log.kick_writer();
        }
        other.join().unwrap();
        assert_eq!(log.ring.drained(), log.ring.tail(), "a frame is left in the ring");
    });
}

#[test]
fn held_append_does_not_block_ring_space() {
    parked_append_beside_wait_for_space(true);
}

#[test]
#[should_panic(expected = "a frame is left in the ring")]
fn control_urgency_check_without_a_fence() {
    parked_append_beside_wait_for_space(false);
}

/// Demand by one thread and written bytes by another: only together they are work.
fn demand_beside_written_bytes(steps: Steps) {
    explore(move || {
        let log =
            Arc::new((Scheduled::new(), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)));
        let start = move |log: &(Scheduled, AtomicU64, AtomicU64, AtomicU64)| {
            let (scheduled, demand, written, synced) = log;
            let wants = || {
                let synced = synced.load(Ordering::Acquire);
                demand.load(Ordering::Acquire) > synced && written.load(Ordering::Acquire) > synced
            };
            let mut goes_on = (steps.claim)(scheduled, &wants);
            while goes_on {
                if wants() {
                    synced.store(written.load(Ordering::Acquire), Ordering::Release);
                } else {
                    goes_on = (steps.release)(scheduled, &wants);
                }
            }
        };
        let writer = thread::spawn({
            let log = Arc::clone(&log);
            move || {
                log.2.store(1, Ordering::Release);
                start(&log);
            }
        });
        log.1.store(1, Ordering::Release);
        start(&log);
        writer.join().unwrap();
        assert_eq!(log.3.load(Ordering::Acquire), 1, "a demand is left");
    });
}

#[test]
fn demand_meets_written_bytes() {
    demand_beside_written_bytes(REAL);
}

#[test]
#[should_panic(expected = "a frame is left in the ring")]
fn control_claim_without_a_fence() {
    let claim = |scheduled: &Scheduled, is_wanted: &dyn Fn() -> bool| {
        is_wanted() && !scheduled.0.load(Ordering::Relaxed) && scheduled.take()
    };
    append_beside_append(Steps { claim, ..REAL });
}

#[test]
#[should_panic(expected = "a frame is left in the ring")]
fn control_release_without_a_fence() {
    let release = |scheduled: &Scheduled, is_wanted: &dyn Fn() -> bool| {
        scheduled.0.store(false, Ordering::Release);
        is_wanted() && scheduled.take()
    };
    append_beside_append(Steps { release, ..REAL });
}

#[test]
#[should_panic(expected = "a frame is left in the ring")]
fn control_release_after_the_last_check() {
    let release = |scheduled: &Scheduled, is_wanted: &dyn Fn() -> bool| {
        fence(Ordering::SeqCst);
        let goes_on = is_wanted();
        if !goes_on {
            scheduled.0.store(false, Ordering::Release);
        }
        goes_on
    };
    append_beside_append(Steps { release, ..REAL });
}

#[test]
#[should_panic(expected = "a demand is left")]
fn control_check_before_the_fence() {
    let claim = |scheduled: &Scheduled, is_wanted: &dyn Fn() -> bool| {
        let is_wanted = is_wanted();
        fence(Ordering::SeqCst);
        is_wanted && !scheduled.0.load(Ordering::Relaxed) && scheduled.take()
    };
    demand_beside_written_bytes(Steps { claim, ..REAL });
}
