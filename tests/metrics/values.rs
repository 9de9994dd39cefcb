//! The value of each metric after a known workload.

use std::{collections::BTreeMap, future::Future, time::Duration};

use highwater::{
    Durability, OnBudget, OnStall, Wal,
    simulation::{self, Disk, Faults, Op, Simulation, pass_time},
    storage::MemoryStorage,
};
use metrics_util::{MetricKind, debugging::DebuggingRecorder};

use crate::{
    Metric, Recorded, Value,
    support::{RING_PAYLOAD_BYTES, reached, small, tiny, within},
    with_recorder,
};

fn counter(metrics: &BTreeMap<String, Metric>, name: &str) -> u64 {
    match metrics[name].value {
        Value::Counter(count) => count,
        ref other => panic!("{name} is {other:?}"),
    }
}

fn gauge(metrics: &BTreeMap<String, Metric>, name: &str) -> u64 {
    match metrics[name].value {
        Value::Gauge(value) => {
            assert!(value >= 0.0 && value.fract() == 0.0, "{name} is {value}");
            format!("{value}").parse().unwrap()
        }
        ref other => panic!("{name} is {other:?}"),
    }
}

fn histogram<'a>(metrics: &'a BTreeMap<String, Metric>, name: &str) -> &'a [f64] {
    match &metrics[name].value {
        Value::Histogram(values) => values,
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn known_workload_gives_known_values() {
    with_recorder(async |recorded| {
        let storage = MemoryStorage::new();
        let wal = Wal::options().metrics_label("orders").open_with(storage).await.unwrap();
        for _ in 0..10 {
            wal.append_and_sync(b"12345").await.unwrap();
        }
        wal.append_batch([b"123", b"456"]).await.unwrap();
        wal.enqueue(b"1").await.unwrap().synced().await.unwrap();
        wal.append_with(b"12", Durability::Synced).await.unwrap();
        wal.append(b"1234").await.unwrap();
        wal.sync().await.unwrap();
        let metrics = recorded.take("orders");
        let (stats, marks) = (wal.stats(), wal.watermarks());

        assert_eq!(counter(&metrics, "highwater_records_total"), 15);
        assert_eq!(counter(&metrics, "highwater_payload_bytes_total"), 50 + 6 + 1 + 2 + 4);
        assert!(stats.frame_count > 15, "marks are no records");
        assert_eq!(counter(&metrics, "highwater_flushes_total"), stats.sync_count);
        assert_eq!(gauge(&metrics, "highwater_synced_lsn_bytes"), marks.synced.as_u64());
        assert_eq!(gauge(&metrics, "highwater_first_lsn_bytes"), marks.first.as_u64());
        assert_eq!(gauge(&metrics, "highwater_reserved_lsn_bytes"), marks.reserved.as_u64());
        assert_eq!(gauge(&metrics, "highwater_ring_bytes"), stats.ring_bytes);
        assert_eq!(gauge(&metrics, "highwater_ring_used_bytes"), 0);
        assert_eq!(gauge(&metrics, "highwater_segments"), 1);
        assert_eq!(gauge(&metrics, "highwater_disk_bytes"), 16 << 20);
        assert_eq!(gauge(&metrics, "highwater_health"), 0);
        let flushes = histogram(&metrics, "highwater_flush_seconds");
        assert_eq!(flushes.len() as u64, stats.sync_count);
        // 10 `append_and_sync`, a ticket, an `append_with` and a `sync`.
        let commits = histogram(&metrics, "highwater_commit_seconds");
        assert_eq!(commits.len(), 13);
        assert!(commits.iter().all(|seconds| (0.0..5.0).contains(seconds)), "{commits:?}");
        let groups = histogram(&metrics, "highwater_group_records");
        assert_eq!(groups, [[1.0; 10].as_slice(), &[3.0, 1.0, 1.0]].concat());
        assert_eq!(histogram(&metrics, "highwater_room_wait_seconds"), [0.0; 0]);
        wal.publish_metrics();
        let later = recorded.take("orders");
        assert_eq!(counter(&later, "highwater_records_total"), 0, "counted once");
        wal.close().await.unwrap();
        let closed = recorded.take("orders");
        assert_eq!(gauge(&closed, "highwater_health"), 5);
        assert_eq!(counter(&closed, "highwater_records_total"), 0, "a close frame is no record");
    });
}

#[test]
fn unsynced_appends_are_published_on_demand() {
    with_recorder(async |recorded| {
        let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
        recorded.take("memory");
        for _ in 0..7 {
            wal.append(b"x").await.unwrap();
        }
        assert_eq!(counter(&recorded.take("memory"), "highwater_records_total"), 0);
        wal.publish_metrics();
        let metrics = recorded.take("memory");
        assert_eq!(counter(&metrics, "highwater_records_total"), 7);
        let stats = wal.stats();
        assert_eq!(counter(&metrics, "highwater_writes_total"), stats.write_count);
        assert_eq!(counter(&metrics, "highwater_written_bytes_total"), stats.written_bytes);
        let written = wal.watermarks().written.as_u64();
        assert_eq!(gauge(&metrics, "highwater_written_lsn_bytes"), written);
        wal.close().await.unwrap();
    });
}

#[test]
fn segments_and_leases_are_published_when_they_change() {
    with_recorder(async |recorded| {
        let options = tiny().recycle_segments(2);
        let wal = options.open_with(MemoryStorage::new()).await.unwrap();
        recorded.take("memory");
        let first = wal.append(vec![1; 900]).await.unwrap();
        while wal.stats().rotation_count < 3 {
            wal.append(vec![1; 900]).await.unwrap();
        }
        let metrics = recorded.take("memory");
        assert_eq!(counter(&metrics, "highwater_rotations_total"), 3);
        assert_eq!(gauge(&metrics, "highwater_segments"), 4);
        assert_eq!(gauge(&metrics, "highwater_disk_bytes"), 4 * (8 << 10));
        let lease = wal.retain(first).unwrap();
        assert_eq!(gauge(&recorded.take("memory"), "highwater_leases"), 1);
        let end = wal.append_and_sync(b"end").await.unwrap();
        wal.truncate_before(end).await.unwrap();
        wal.publish_metrics();
        let held = recorded.take("memory");
        assert_eq!(gauge(&held, "highwater_leased_bytes"), wal.stats().leased_bytes);
        assert!(wal.stats().leased_bytes > 0);
        drop(lease);
        let metrics = recorded.take("memory");
        assert_eq!(gauge(&metrics, "highwater_leases"), 0);
        assert_eq!(gauge(&metrics, "highwater_leased_bytes"), 0);
        assert_eq!(gauge(&metrics, "highwater_segments"), 1);
        assert_eq!(counter(&metrics, "highwater_removed_segments_total"), 3);
        while wal.stats().recycled_count == 0 {
            wal.append(vec![1; 900]).await.unwrap();
        }
        wal.publish_metrics();
        let recycled = counter(&recorded.take("memory"), "highwater_recycled_segments_total");
        assert_eq!(recycled, wal.stats().recycled_count);
        wal.close().await.unwrap();
    });
}

/// An oversized batch never enters the ring, and a compressed payload counts as it is stored.
#[test]
fn payload_bytes_count_as_stored() {
    with_recorder(async |recorded| {
        let wal = small().open_with(MemoryStorage::new()).await.unwrap();
        wal.append_batch([vec![1; 900], vec![2; 900]]).await.unwrap();
        wal.append(vec![3; 2000]).await.unwrap();
        wal.publish_metrics();
        let metrics = recorded.take("memory");
        assert_eq!(counter(&metrics, "highwater_payload_bytes_total"), 3800);
        assert_eq!(counter(&metrics, "highwater_records_total"), 3);
        wal.close().await.unwrap();

        let options = small().compression(highwater::Compression::Lz4);
        let wal = options.metrics_label("lz4").open_with(MemoryStorage::new()).await.unwrap();
        wal.append_and_sync(vec![7; 900]).await.unwrap();
        let stored = counter(&recorded.take("lz4"), "highwater_payload_bytes_total");
        assert!((1..100).contains(&stored), "{stored}");
        wal.close().await.unwrap();
    });
}

#[test]
fn counters_continue_in_a_reopened_log() {
    with_recorder(async |recorded| {
        let storage = MemoryStorage::new();
        for _ in 0..3 {
            let wal = Wal::options().open_with(storage.clone()).await.unwrap();
            wal.append_and_sync(b"x").await.unwrap();
            wal.close().await.unwrap();
        }
        let metrics = recorded.take("memory");
        assert_eq!(counter(&metrics, "highwater_records_total"), 3);
        assert_eq!(metrics["highwater_records_total"].kind, MetricKind::Counter);
    });
}

#[test]
fn failed_log_is_published() {
    with_recorder(async |recorded| {
        let faults = Faults::new();
        let wal = small().open_with(faults.over(MemoryStorage::new())).await.unwrap();
        assert_eq!(recorded.gauge("memory", "highwater_health"), 0.0);
        faults.on(Op::Create).fail(std::io::ErrorKind::StorageFull);
        while wal.append(vec![1; 900]).await.is_ok() {}
        assert_eq!(recorded.gauge("memory", "highwater_health"), 3.0);
        faults.heal();
        wal.append(vec![1; 900]).await.unwrap();
        assert_eq!(recorded.gauge("memory", "highwater_health"), 0.0);
        faults.on(Op::Sync).fail(std::io::ErrorKind::Other);
        wal.append_and_sync(b"lost?").await.unwrap_err();
        let metrics = recorded.take("memory");
        assert_eq!(gauge(&metrics, "highwater_health"), 6);
        assert!(histogram(&metrics, "highwater_commit_seconds").is_empty(), "no commit");
    });
}

/// In a simulation the metrics are published by the task that lets time pass.
#[test]
fn stall_is_published_while_it_lasts() {
    let recorder = DebuggingRecorder::new();
    let recorded = Recorded(recorder.snapshotter());
    metrics::with_local_recorder(&recorder, || {
        Simulation::new(1).run(async move {
            let (disk, second) = (Disk::new(1), Duration::from_secs(1));
            let options = small().metrics_label("sim").on_stall(OnStall::Report);
            let wal = options.open_with(disk.clone()).await.unwrap();
            wal.append_and_sync(b"x").await.unwrap();
            recorded.take("sim");
            let gate = disk.faults().on(Op::Sync).once().gate();
            let held = wal.clone();
            let commit =
                simulation::spawn(async move { held.append_and_sync("held").await.unwrap() });
            gate.reached(1).await;
            pass_time(second);
            pass_time(second);
            let metrics = recorded.take("sim");
            assert_eq!(gauge(&metrics, "highwater_health"), 4);
            assert_eq!(counter(&metrics, "highwater_stalls_total"), 1);
            gate.open();
            while wal.health().get().is_stalled() {
                simulation::yield_now().await;
                pass_time(Duration::ZERO);
            }
            commit.await.unwrap();
            assert_eq!(recorded.gauge("sim", "highwater_health"), 1.0);
        });
    });
}

/// On the pool, with the directory as the label.
#[tokio::test]
async fn room_waits_and_commits_are_timed() {
    let recorder = DebuggingRecorder::new();
    let recorded = Recorded(recorder.snapshotter());
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let options = small().metrics_label("pool");
    let opening = options.open_with(faults.over(memory).on_pool());
    // The handles are those of the thread that polls the opening.
    let mut opening = Box::pin(opening);
    let wal = std::future::poll_fn(|context| {
        metrics::with_local_recorder(&recorder, || opening.as_mut().poll(context))
    });
    let wal = wal.await.unwrap();
    let writes = faults.on(Op::Write).file(|name| name.ends_with("00001.wal")).gate();
    within("room", wal.enqueue(vec![1; RING_PAYLOAD_BYTES])).await.unwrap();
    reached(&writes, 1).await;
    wal.publish_metrics();
    assert_eq!(recorded.gauge("pool", "highwater_ring_used_bytes"), 1024.0);
    let waits = tokio::spawn({
        let wal = wal.clone();
        async move { wal.append_and_sync(b"waits").await }
    });
    while wal.stats().room_wait_count < 1 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    writes.open();
    within("append", waits).await.unwrap().unwrap();
    let metrics = recorded.take("pool");
    let [waited] = histogram(&metrics, "highwater_room_wait_seconds") else { panic!() };
    let [commit] = histogram(&metrics, "highwater_commit_seconds") else { panic!() };
    assert!((0.005..4.0).contains(waited), "{waited}");
    assert!(commit >= waited, "{commit}: the wait for room is part of the commit");
    within("close", wal.close()).await.unwrap();
}

#[tokio::test]
async fn label_is_the_directory_as_it_was_opened() {
    let recorder = DebuggingRecorder::new();
    let recorded = Recorded(recorder.snapshotter());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut opening = Box::pin(Wal::open(&path));
    let wal = std::future::poll_fn(|context| {
        metrics::with_local_recorder(&recorder, || opening.as_mut().poll(context))
    });
    let wal = wal.await.unwrap();
    wal.append_and_sync(b"x").await.unwrap();
    wal.publish_metrics();
    let metrics = recorded.take(path.to_str().unwrap());
    assert_eq!(counter(&metrics, "highwater_records_total"), 1);
    wal.close().await.unwrap();
}

#[test]
fn slots_and_refusals_are_published() {
    with_recorder(async |recorded| {
        let options = tiny().metrics_label("orders").budget(24 << 10, OnBudget::Refuse);
        let wal = options.open_with(MemoryStorage::new()).await.unwrap();
        let slot = wal.slot("indexer").await.unwrap();
        let lsn = wal.append_and_sync(b"12345").await.unwrap();
        let end = wal.append_and_sync(b"12345").await.unwrap();
        slot.advance_and_sync(end).await.unwrap();
        wal.publish_metrics();
        let metrics = recorded.take_slot("orders", "indexer");
        let info = wal.slots().remove(0);
        assert!(info.lag_bytes > 0 && lsn < end, "{info:?}");
        assert_eq!(gauge(&metrics, "highwater_slot_lag_bytes"), info.lag_bytes);
        assert_eq!(gauge(&metrics, "highwater_slot_held_bytes"), info.held_bytes);
        slot.remove().await.unwrap();
        wal.publish_metrics();
        let metrics = recorded.take_slot("orders", "indexer");
        assert_eq!(gauge(&metrics, "highwater_slot_lag_bytes"), 0);
        assert_eq!(gauge(&metrics, "highwater_slot_held_bytes"), 0);

        assert_eq!(wal.stats().refusal_count, 0);
        while wal.append_and_sync(&[1; 200]).await.is_ok() {}
        wal.publish_metrics();
        let refused = counter(&recorded.take("orders"), "highwater_refusals_total");
        assert!(refused > 0);
        assert_eq!(refused, wal.stats().refusal_count);
    });
}
