//! The work `open-loop`: commits start at fixed times, even if the log does not keep up.
//!
//! A latency counts from the time at which the operation should have started. Otherwise a stall
//! would delay the start of later operations, and their latencies would hide it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use crate::{
    log::{AsyncLog, Log, Writer, thread_note},
    meter::Meter,
    outcome::Outcome,
    records::Source,
    usage::Usage,
    work::{Assignment, Kind, RECORD, THREADS_MAX},
};

/// An operation that is unfinished this long after the last start counts with this latency.
const GRACE: Duration = Duration::from_secs(2);

struct Loop {
    meter: Arc<Meter>,
    begun: Instant,
    warm_up: Duration,
    end: Duration,
    per_second: u64,
    burst: u64,
    done: AtomicU64,
    over: AtomicBool,
}

impl Loop {
    fn new(assignment: &Assignment) -> Arc<Self> {
        let Kind::OpenLoop { per_second, burst } = assignment.work.kind else {
            unreachable!("a work of another kind")
        };
        let limits = assignment.limits;
        let mut without_warm_up = assignment.clone();
        // The meter must record at once, because this module leaves out the warm-up.
        without_warm_up.limits.warm_up = Duration::ZERO;
        Arc::new(Loop {
            meter: Meter::new(&without_warm_up, 1),
            begun: Instant::now(),
            warm_up: limits.warm_up,
            end: limits.warm_up + limits.measure,
            per_second,
            burst,
            done: AtomicU64::new(0),
            over: AtomicBool::new(false),
        })
    }

    /// Calls `begin` whenever an operation is due, with that time. Returns the number of operations
    /// in the window.
    fn pace(&self, mut begin: impl FnMut(Instant)) -> u64 {
        // SAFETY: only sets this thread's timer slack, to 1 ns.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        let (mut number, mut counted) = (0, 0);
        loop {
            let due = self.burst as f64 * (number / self.burst) as f64 / self.per_second as f64;
            let due = Duration::from_secs_f64(due);
            if due >= self.end {
                return counted;
            }
            let intended = self.begun + due;
            let ahead = intended.saturating_duration_since(Instant::now());
            if !ahead.is_zero() {
                thread::sleep(ahead);
            }
            begin(intended);
            counted += u64::from(due >= self.warm_up);
            number += 1;
        }
    }

    fn ended(&self, intended: Instant) {
        if intended >= self.begun + self.warm_up {
            self.meter.record(intended.elapsed());
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn outcome(&self, before: Usage, counted: u64, note: Option<String>) -> Outcome {
        let late = self.begun + self.end + GRACE;
        while self.done.load(Ordering::Relaxed) < counted && Instant::now() < late {
            thread::sleep(Duration::from_millis(1));
        }
        let done = self.done.load(Ordering::Relaxed);
        self.over.store(true, Ordering::Relaxed);
        for _ in done..counted {
            self.meter.record(GRACE);
        }
        // If the log kept up, the rate is the requested one; otherwise it is lower.
        let seconds = (self.begun.elapsed() - self.warm_up).max(self.end - self.warm_up);
        let seconds = if done == counted { self.end - self.warm_up } else { seconds };
        let mut outcome = Outcome {
            operations: done,
            bytes: done * RECORD as u64,
            seconds: seconds.as_secs_f64(),
            usage: Usage::now().since(&before),
            note: (done < counted).then(|| format!("{} not done in time", counted - done)).or(note),
            ..Outcome::default()
        };
        self.meter.complete(&mut outcome);
        outcome
    }
}

/// Spawns a task for each operation, as a server does for each request.
pub fn tasks<L: AsyncLog>(assignment: &Assignment, runtime: &Runtime) -> Outcome {
    let log = runtime.block_on(L::open(assignment));
    let record: Arc<[u8]> = Source::new(assignment.work.records, 0).next().into();
    let before = Usage::now();
    let open_loop = Loop::new(assignment);
    let counted = open_loop.pace(|intended| {
        let (log, record, open_loop) = (log.clone(), record.clone(), open_loop.clone());
        runtime.spawn(async move {
            log.commit(&record).await;
            open_loop.ended(intended);
        });
    });
    let outcome = open_loop.outcome(before, counted, None);
    if outcome.note.is_none() {
        runtime.block_on(log.close());
    }
    outcome
}

/// Lets a fixed number of threads take the operations from a queue.
pub fn threads<L: Log>(assignment: &Assignment) -> Outcome {
    let log = L::open(assignment);
    let before = Usage::now();
    let open_loop = Loop::new(assignment);
    let (sender, receiver) = crossbeam_channel::unbounded::<Instant>();
    thread::scope(|scope| {
        for lane in 0..assignment.work.tasks.min(THREADS_MAX) {
            let (log, receiver, open_loop) = (&log, receiver.clone(), open_loop.clone());
            let mut source = Source::new(assignment.work.records, lane);
            scope.spawn(move || {
                let mut writer = log.writer(lane);
                while let Ok(intended) = receiver.recv() {
                    if open_loop.over.load(Ordering::Relaxed) {
                        return;
                    }
                    writer.commit(source.next());
                    open_loop.ended(intended);
                }
            });
        }
        let counted = open_loop.pace(|intended| sender.send(intended).unwrap());
        drop(sender);
        open_loop.outcome(before, counted, thread_note::<L>(&assignment.work))
    })
}
