//! Runs a work of an async log with the tasks of a tokio runtime.

use std::{thread, time::Instant};

use tokio::runtime::{Builder, Runtime};

use crate::{
    churn, follow,
    log::AsyncLog,
    meter::{Lane, Meter},
    open_loop,
    outcome::Outcome,
    records::{FILL_BATCH, Source},
    replay,
    usage::{Usage, peak_memory_kib},
    work::{self, Assignment, Kind, Work},
};

pub fn runtime(kind: work::Runtime) -> Runtime {
    let mut builder = match kind {
        work::Runtime::CurrentThread => Builder::new_current_thread(),
        work::Runtime::Multi(workers) => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(workers);
            builder
        }
    };
    builder.enable_all().build().unwrap()
}

pub fn run<L: AsyncLog>(assignment: &Assignment) -> Outcome {
    let work = &assignment.work;
    let runtime = runtime(work.runtime);
    // In a task, not on the thread of `block_on`, because programs do it in tasks.
    let on_a_task = |assignment: Assignment| match assignment.work.kind {
        _ if assignment.prepare => runtime.block_on(runtime.spawn(fill::<L>(assignment))).unwrap(),
        Kind::Replay => runtime.block_on(runtime.spawn(replayed::<L>(assignment))).unwrap(),
        _ => runtime.block_on(runtime.spawn(opened::<L>(assignment))).unwrap(),
    };
    match work.kind {
        Kind::Replay | Kind::Open | Kind::Recover => on_a_task(assignment.clone()),
        Kind::OpenLoop { .. } => open_loop::tasks::<L>(assignment, &runtime),
        Kind::Churn { .. } => churn::tasks::<L>(assignment, &runtime),
        Kind::Follow => follow::run(assignment, &runtime),
        _ => closed_loop::<L>(assignment, &runtime),
    }
}

/// As [`run`], but on a `current_thread` runtime, whatever runtime the work has.
pub fn run_on_current_thread<L: AsyncLog>(assignment: &Assignment) -> Outcome {
    let mut assignment = assignment.clone();
    assignment.work.runtime = work::Runtime::CurrentThread;
    run::<L>(&assignment)
}

fn closed_loop<L: AsyncLog>(assignment: &Assignment, runtime: &Runtime) -> Outcome {
    let work = &assignment.work;
    let log = runtime.block_on(L::open(assignment));
    let meter = Meter::new(assignment, work.tasks);
    let watching = {
        let lanes: Vec<_> = (0..work.tasks).map(|index| meter.lane(index)).collect();
        let meter = meter.clone();
        let watching = thread::spawn(move || meter.watch());
        runtime.block_on(async {
            let tasks: Vec<_> = lanes
                .into_iter()
                .enumerate()
                .map(|(index, lane)| {
                    let batches = matches!(work.kind, Kind::Batch { .. });
                    let of = if batches { Source::varied } else { Source::new };
                    let source = of(work.records, index);
                    tokio::spawn(work_of(log.clone(), work.clone(), lane, source))
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        watching
    };
    let mut outcome = watching.join().unwrap();
    meter.complete(&mut outcome);
    runtime.block_on(log.close());
    if assignment.verify {
        let assignment = assignment.clone();
        replay::verify(&meter.acknowledged(), |each| {
            let mut stamps = Vec::new();
            let mut keep = |record: &[u8]| stamps.push(record.to_vec());
            let replayed = runtime.block_on(L::replay(&assignment, &mut keep));
            stamps.iter().for_each(|record| each(record));
            replayed
        });
    }
    outcome
}

async fn work_of<L: AsyncLog>(log: L, work: Work, mut lane: Lane, mut source: Source) {
    match work.kind {
        Kind::Commit => {
            while lane.more() {
                let record = source.next();
                let begun = lane.begin();
                log.commit(record).await;
                lane.done(begun, 1, record.len());
            }
        }
        Kind::Append => {
            while lane.more() {
                let record = source.next();
                let begun = lane.begin();
                log.append(record).await;
                lane.done(begun, 1, record.len());
            }
        }
        Kind::Enqueue => {
            let mut last = None;
            while lane.more() {
                let record = source.next();
                last = Some(log.enqueue(record).await);
                lane.done(None, 1, record.len());
            }
            if let Some(last) = last {
                L::drain(last).await;
            }
        }
        Kind::Mixed { commit_every } => {
            while lane.more() {
                let commit = (lane.operations() + 1).is_multiple_of(commit_every as u64);
                let record = source.next();
                let begun = lane.begin();
                if commit {
                    log.commit(record).await;
                } else {
                    log.append(record).await;
                }
                lane.done(begun, 1, record.len());
            }
        }
        Kind::Batch { records } => {
            let mut batch = vec![Vec::new(); records];
            while lane.more() {
                let mut bytes = 0;
                for record in &mut batch {
                    record.clear();
                    record.extend_from_slice(source.next());
                    bytes += record.len();
                }
                let begun = lane.begin();
                log.batch(&batch).await;
                lane.done(begun, records as u64, bytes);
            }
        }
        _ => unreachable!("a work of another kind"),
    }
}

async fn replayed<L: AsyncLog>(assignment: Assignment) -> Outcome {
    let mut counter = replay::ReplayCounter::default();
    let before = Usage::now();
    let replayed = L::replay(&assignment, &mut |record| counter.record(record)).await;
    counter.outcome(&assignment, replayed, before)
}

async fn opened<L: AsyncLog>(assignment: Assignment) -> Outcome {
    let begun = Instant::now();
    let log = L::open(&assignment).await;
    let seconds = begun.elapsed().as_secs_f64();
    let peak_memory_kib = peak_memory_kib();
    log.close().await;
    if assignment.verify {
        let _ = replayed::<L>(assignment).await;
    }
    Outcome { operations: 1, seconds, peak_memory_kib, ..Outcome::default() }
}

/// Writes the log that a later process will open.
async fn fill<L: AsyncLog>(assignment: Assignment) -> Outcome {
    let work = &assignment.work;
    let log = L::open(&assignment).await;
    let mut source = Source::varied(work.records, 0);
    let mut left = work.bytes;
    while left > 0 {
        for _ in 0..FILL_BATCH {
            let record = source.next();
            left = left.saturating_sub(record.len() as u64);
            log.enqueue(record).await;
        }
    }
    log.commit(source.next()).await;
    if work.kind == Kind::Recover {
        crate::child::die();
    }
    log.close().await;
    Outcome::default()
}
