//! The time to open a log, after a close and after a crash, for small and large logs.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench may panic; criterion's macros make public functions"
)]

use std::{path::Path, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use highwater::Wal;
use tokio::runtime::Runtime;

const RECORD: [u8; 256] = [0x5a; 256];

async fn fill(path: &Path, bytes: u64) -> Wal {
    let wal = Wal::open(path).await.unwrap();
    for _ in 0..bytes / 272 {
        wal.enqueue(&RECORD).await.unwrap();
    }
    wal.sync().await.unwrap();
    wal
}

fn recovery(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    group.measurement_time(Duration::from_secs(3)).sample_size(10);
    let runtime = Runtime::new().unwrap();
    for mib in [1, 16, 256] {
        let directory = tempfile::tempdir_in(".").unwrap();
        let path = directory.path();
        runtime.block_on(async { fill(path, mib << 20).await.close().await.unwrap() });
        group.bench_function(BenchmarkId::new("closed, MiB", mib), |b| {
            b.to_async(&runtime).iter(|| async {
                Wal::open(path).await.unwrap().close().await.unwrap();
            });
        });
        group.bench_function(BenchmarkId::new("unclosed, MiB", mib), |b| {
            // The log is dropped without a close, so each iteration recovers and starts a segment.
            b.to_async(&runtime).iter(|| async {
                let wal = Wal::open(path).await.unwrap();
                wal.append_and_sync(&RECORD).await.unwrap();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, recovery);
criterion_main!(benches);
