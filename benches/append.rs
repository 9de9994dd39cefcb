//! Appends without a sync, compared with plain writes of the operating system.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench may panic; criterion's macros make public functions"
)]

mod positional;

use std::{fs::File, hint::black_box};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use highwater::Wal;
use positional::FileExt;
use tokio::runtime::Runtime;

const RECORD: [u8; 256] = [0x5a; 256];

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append 256 B");
    group.throughput(Throughput::Elements(1));
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir_in(".").unwrap();
    let options = Wal::options().segment_bytes(256 << 20);
    let wal = runtime.block_on(options.open(directory.path())).unwrap();
    group.bench_function("append, 1 task", |b| {
        b.to_async(&runtime).iter(|| async { wal.append(&RECORD).await.unwrap() });
    });
    group.bench_function("enqueue, 1 task", |b| {
        b.to_async(&runtime).iter(|| async { wal.enqueue(&RECORD).await.unwrap() });
    });
    group.bench_function("append_batch of 16, 1 task", |b| {
        b.to_async(&runtime).iter(|| async { wal.append_batch([&RECORD; 16]).await.unwrap() });
    });
    let floor = File::create(directory.path().join("floor")).unwrap();
    floor.set_len(256 << 20).unwrap();
    let mut offset = 0;
    group.bench_function("floor: pwrite of 272 B", |b| {
        b.iter(|| {
            floor.write_all_at(black_box(&[0x5a; 272]), offset).unwrap();
            offset = (offset + 272) % (255 << 20);
        });
    });
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
