//! Runs a work of a blocking log with threads.

use std::{sync::Arc, thread, time::Instant};

use crate::{
    churn,
    log::{Log, Writer, thread_count, thread_note},
    meter::{Lane, Meter},
    open_loop,
    outcome::Outcome,
    records::{FILL_BATCH, Source},
    replay,
    usage::peak_memory_kib,
    work::{Assignment, Kind, Work},
};

pub fn run<L: Log>(assignment: &Assignment) -> Outcome {
    let work = &assignment.work;
    match work.kind {
        Kind::Replay => {
            if assignment.prepare {
                return fill::<L>(assignment);
            }
            replay::measured(assignment, |each| L::replay(assignment, each))
        }
        Kind::Open | Kind::Recover => {
            if assignment.prepare {
                return fill::<L>(assignment);
            }
            let begun = Instant::now();
            let log = L::open(assignment);
            let seconds = begun.elapsed().as_secs_f64();
            let peak_memory_kib = peak_memory_kib();
            log.close();
            if assignment.verify {
                replay::measured(assignment, |each| L::replay(assignment, each));
            }
            Outcome { operations: 1, seconds, peak_memory_kib, ..Outcome::default() }
        }
        Kind::Churn { .. } => churn::threads::<L>(assignment),
        Kind::OpenLoop { .. } => open_loop::threads::<L>(assignment),
        _ => closed_loop::<L>(assignment),
    }
}

fn closed_loop<L: Log>(assignment: &Assignment) -> Outcome {
    let work = &assignment.work;
    let log = L::open(assignment);
    let lanes = thread_count::<L>(work);
    let meter = Meter::new(assignment, lanes);
    let mut outcome = thread::scope(|scope| {
        for index in 0..lanes {
            let (log, lane) = (&log, meter.lane(index));
            let batches = L::SINGLE_THREAD || matches!(work.kind, Kind::Batch { .. });
            let of = if batches { Source::varied } else { Source::new };
            let source = of(work.records, index);
            thread::Builder::new()
                .stack_size(256 << 10)
                .spawn_scoped(scope, move || work_of::<L>(log, work, lane, source, index))
                .unwrap();
        }
        meter.watch()
    });
    meter.complete(&mut outcome);
    outcome.note = thread_note::<L>(work);
    log.close();
    if assignment.verify {
        replay::verify(&meter.acknowledged(), |each| L::replay(assignment, each));
    }
    outcome
}

fn work_of<L: Log>(log: &L, work: &Work, mut lane: Lane, mut source: Source, index: usize) {
    let mut writer = log.writer(index);
    if L::SINGLE_THREAD && work.tasks > 1 {
        return in_batches(&mut writer, work.tasks, work.kind == Kind::Commit, lane, source);
    }
    match work.kind {
        Kind::Commit => {
            while lane.more() {
                let record = source.next();
                let begun = lane.begin();
                writer.commit(record);
                lane.done(begun, 1, record.len());
            }
        }
        Kind::Append => {
            while lane.more() {
                let record = source.next();
                let begun = lane.begin();
                writer.append(record);
                lane.done(begun, 1, record.len());
            }
        }
        Kind::Enqueue => {
            while lane.more() {
                let record = source.next();
                writer.enqueue(record);
                lane.done(None, 1, record.len());
            }
            writer.drain();
        }
        Kind::Mixed { commit_every } => {
            while lane.more() {
                let commit = (lane.operations() + 1).is_multiple_of(commit_every as u64);
                let record = source.next();
                let begun = lane.begin();
                if commit {
                    writer.commit(record);
                } else {
                    writer.append(record);
                }
                lane.done(begun, 1, record.len());
            }
        }
        Kind::Batch { records } => in_batches(&mut writer, records, true, lane, source),
        _ => unreachable!("a work of another kind"),
    }
}

fn in_batches(
    writer: &mut impl Writer,
    records: usize,
    sync: bool,
    mut lane: Lane,
    mut source: Source,
) {
    let mut batch = vec![Vec::new(); records];
    while lane.more() {
        let mut bytes = 0;
        for record in &mut batch {
            record.clear();
            record.extend_from_slice(source.next());
            bytes += record.len();
        }
        let begun = lane.begin();
        writer.batch(&batch, sync);
        lane.done(begun, records as u64, bytes);
    }
    writer.drain();
}

/// Writes the log that a later process will open.
fn fill<L: Log>(assignment: &Assignment) -> Outcome {
    let work = &assignment.work;
    let log = Arc::new(L::open(assignment));
    let mut source = Source::varied(work.records, 0);
    let mut left = work.bytes;
    {
        let mut writer = log.writer(0);
        while left > 0 {
            let batch: Vec<Vec<u8>> = (0..FILL_BATCH).map(|_| source.next().to_vec()).collect();
            left = left.saturating_sub(batch.iter().map(|record| record.len() as u64).sum());
            writer.batch(&batch, left == 0);
        }
        writer.drain();
    }
    if work.kind == Kind::Recover {
        crate::child::die();
    }
    let log = Arc::into_inner(log).expect("the writer has been dropped");
    log.close();
    Outcome::default()
}
