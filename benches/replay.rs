//! Replay from a warm page cache, compared with plain reads of the operating system.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench may panic; criterion's macros make public functions"
)]

mod positional;

use std::{fs::File, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::TryStreamExt;
use highwater::{Lsn, Wal};
use positional::FileExt;
use tokio::runtime::Runtime;

const LOG_BYTES: u64 = 32 << 20;

async fn read_all(wal: Wal) -> u64 {
    let mut records = wal.replay(Lsn::ZERO..);
    let mut bytes = 0;
    while let Some(record) = records.try_next().await.unwrap() {
        bytes += record.payload.len() as u64;
    }
    bytes
}

fn replay(c: &mut Criterion) {
    let mut group = c.benchmark_group("replay 32 MiB");
    group.measurement_time(Duration::from_secs(3)).sample_size(20);
    let runtime = Runtime::new().unwrap();
    for record_bytes in [32u64, 256, 4096] {
        let directory = tempfile::tempdir_in(".").unwrap();
        let count = LOG_BYTES / record_bytes;
        let wal = runtime.block_on(async {
            let wal = Wal::open(directory.path()).await.unwrap();
            let record = vec![0x5a; usize::try_from(record_bytes).unwrap()];
            for _ in 0..count {
                wal.enqueue(&record).await.unwrap();
            }
            wal.sync().await.unwrap();
            wal
        });
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("record bytes", record_bytes), |b| {
            // A worker polls the replay, as in a server. The thread of `block_on` wakes more
            // slowly.
            b.to_async(&runtime).iter(|| {
                let wal = wal.clone();
                async move { tokio::spawn(read_all(wal)).await.unwrap() }
            });
        });
    }
    let directory = tempfile::tempdir_in(".").unwrap();
    let path = directory.path().join("floor");
    std::fs::write(&path, vec![0x5a; 32 << 20]).unwrap();
    let floor = File::open(&path).unwrap();
    let mut buffer = vec![0; 256 << 10];
    group.throughput(Throughput::Bytes(LOG_BYTES));
    group.bench_function("floor: pread of 256 KiB", |b| {
        b.iter(|| {
            for offset in (0..LOG_BYTES).step_by(256 << 10) {
                floor.read_exact_at(&mut buffer, offset).unwrap();
            }
        });
    });
    group.finish();
}

criterion_group!(benches, replay);
criterion_main!(benches);
