//! Durable commits by many tasks, compared with a plain write and flush of the operating system.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench may panic; criterion's macros make public functions"
)]

mod positional;

use std::{fs::File, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use highwater::Wal;
use positional::FileExt;
use tokio::runtime::Runtime;

const RECORD: [u8; 256] = [0x5a; 256];

async fn commit(wal: &Wal, tasks: u64) {
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let wal = wal.clone();
            tokio::spawn(async move { wal.append_and_sync(&RECORD).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

fn group_commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("durable commit 256 B");
    group.measurement_time(Duration::from_secs(3)).sample_size(20);
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir_in(".").unwrap();
    let options = Wal::options().segment_bytes(64 << 20);
    let wal = runtime.block_on(options.open(directory.path())).unwrap();
    for tasks in [1, 8, 64, 256] {
        group.throughput(Throughput::Elements(tasks));
        group.bench_with_input(BenchmarkId::new("tasks", tasks), &tasks, |b, &tasks| {
            b.to_async(&runtime).iter(|| commit(&wal, tasks));
        });
    }
    let floor = File::create(directory.path().join("floor")).unwrap();
    floor.write_all_at(&vec![0; 16 << 20], 0).unwrap();
    floor.sync_all().unwrap();
    let mut offset = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("floor: pwrite + fdatasync", |b| {
        b.iter(|| {
            floor.write_all_at(&[0x5a; 272], offset).unwrap();
            floor.sync_data().unwrap();
            offset = (offset + 272) % (15 << 20);
        });
    });
    group.finish();
}

criterion_group!(benches, group_commit);
criterion_main!(benches);
