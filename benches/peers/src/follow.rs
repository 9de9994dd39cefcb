//! The work `follow`: tasks commit, and a reader follows the log. Only Highwater can do it.
//!
//! Measures the records that the reader gets, and the time from the call of each commit.

use std::{sync::Arc, thread, time::Instant};

use futures::TryStreamExt;
use highwater::Lsn;
use tokio::runtime::Runtime;

use crate::{
    contenders::highwater::Highwater,
    log::AsyncLog,
    meter::Meter,
    outcome::Outcome,
    work::{Assignment, RECORD},
};

pub fn run(assignment: &Assignment, runtime: &Runtime) -> Outcome {
    let wal = runtime.block_on(Highwater::<false>::open(assignment)).0;
    // Only the reader has a lane.
    let meter = Meter::new(assignment, 1);
    let epoch = Instant::now();
    let watching = {
        let meter: Arc<Meter> = meter.clone();
        thread::spawn(move || meter.watch())
    };
    let mut lane = meter.lane(0);
    runtime.block_on(async {
        let writers: Vec<_> = (0..assignment.work.tasks)
            .map(|_| {
                let (wal, meter) = (wal.clone(), meter.clone());
                tokio::spawn(async move {
                    let mut record = [0x5a; RECORD];
                    while !meter.stopped() {
                        let now = epoch.elapsed().as_nanos() as u64;
                        record[..8].copy_from_slice(&now.to_le_bytes());
                        wal.append_and_sync(&record).await.unwrap();
                    }
                })
            })
            .collect();
        let (followed, timed) = (wal.clone(), meter.clone());
        let reader = tokio::spawn(async move {
            let mut records = followed.follow(Lsn::ZERO);
            while lane.more() {
                let record = records.try_next().await.unwrap().unwrap();
                let began = u64::from_le_bytes(record.payload[..8].try_into().unwrap());
                let now = epoch.elapsed().as_nanos() as u64;
                timed.record(std::time::Duration::from_nanos(now.saturating_sub(began)));
                lane.done(None, 1, record.payload.len());
            }
        });
        // The writers commit once more after the reader has ended, so it always gets a last record.
        reader.await.unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
    });
    let mut outcome = watching.join().unwrap();
    meter.complete(&mut outcome);
    runtime.block_on(Highwater::<false>(wal).close());
    outcome
}
