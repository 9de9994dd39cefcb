//! Retention and budget: the log drops its oldest segments by itself, or keeps to a size.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod support;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use futures::TryStreamExt;
use highwater::{
    Error, Health, Lsn, OnBudget, Options, Retention, Slot, Wal,
    sabotage::{self, Sabotage},
    simulation::{Disk, Op, Random, Survival},
    storage::MemoryStorage,
};
use support::{clocked::Clocked, filled, records, tiny, within};

/// The positions that one segment of a [`tiny`] log holds.
const SEGMENT_BYTES: u64 = 4 << 10;
const FILE_BYTES: u64 = 8 << 10;

/// Returns options of a log whose files take at most `count` segments.
fn budget(count: u64, when_used_up: OnBudget) -> Options {
    tiny().budget(count * FILE_BYTES, when_used_up)
}

fn at(unix_ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms)
}

/// Returns how many bytes of positions the log keeps.
fn kept_bytes(wal: &Wal) -> u64 {
    wal.watermarks().synced.as_u64() - first(wal).as_u64()
}

fn first(wal: &Wal) -> Lsn {
    wal.watermarks().first
}

/// Waits for the removal job.
async fn segment_count_is(wal: &Wal, wanted: impl Fn(u64) -> bool) -> u64 {
    let until = async {
        loop {
            let count = wal.stats().segment_count;
            if wanted(count) {
                break count;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within("the removal of segments", until).await
}

/// Appends until the log refuses. Returns the error.
async fn fill_up(wal: &Wal) -> Error {
    for _ in 0..1000 {
        if let Err(error) = wal.append_and_sync(&[7; 200]).await {
            return error;
        }
    }
    panic!("a budget of a few segments takes 1,000 records");
}

#[tokio::test]
async fn segments_beyond_retention_are_dropped() {
    let keep = 3 * SEGMENT_BYTES;
    let options = tiny().retention(Retention::default().bytes(keep));
    let disk = Disk::new(1);
    let wal = options.clone().open_with(disk.clone()).await.unwrap();
    let mut lsns = Vec::new();
    for i in 0..60 {
        lsns.extend(filled(&wal, 10).await);
        let kept = kept_bytes(&wal);
        assert!(kept >= keep.min(wal.watermarks().synced.as_u64()), "round {i}: {kept} kept");
        // One segment that is dropped as a whole or not at all, and one group.
        assert!(kept <= keep + 2 * SEGMENT_BYTES, "round {i}: {kept} kept");
    }
    segment_count_is(&wal, |count| count <= 6).await;
    let found = records(&wal).await;
    let expected: Vec<Lsn> = lsns.into_iter().filter(|lsn| *lsn >= first(&wal)).collect();
    assert_eq!(found.iter().map(|(lsn, _)| *lsn).collect::<Vec<_>>(), expected);
    assert!(wal.segments().iter().any(|segment| segment.start == first(&wal)), "whole segments");
    wal.close().await.unwrap();
    // The default keeps everything.
    let wal = tiny().open_with(disk).await.unwrap();
    let begins_at = first(&wal);
    filled(&wal, 300).await;
    assert_eq!(first(&wal), begins_at);
}

#[tokio::test]
async fn old_segments_are_dropped_by_the_clock_of_the_log() {
    let clocked = Clocked::new(Disk::new(1));
    let options = tiny().retention(Retention::default().age(Duration::from_secs(60)));
    let wal = options.open_with(clocked.clone()).await.unwrap();
    filled(&wal, 200).await;
    assert_eq!(first(&wal), Lsn::ZERO, "nothing is old");
    clocked.set(1_000_000 + 30_000);
    filled(&wal, 100).await;
    let young = wal.segments().iter().find(|it| it.created > at(1_000_000)).unwrap().start;
    clocked.set(1);
    filled(&wal, 100).await;
    assert_eq!(first(&wal), Lsn::ZERO, "the clock of the log never goes back");
    clocked.set(1_000_000 + 60_000);
    // The flush decides; the segment before `young` has records from just before it was begun.
    filled(&wal, 1).await;
    let dropped_to = first(&wal);
    assert!(dropped_to > Lsn::ZERO && dropped_to < young, "{dropped_to}, {young}");
    clocked.set(1_000_000 + 90_000);
    filled(&wal, 1).await;
    assert!(first(&wal) >= young);
}

/// Otherwise the log would begin above its durable end.
#[tokio::test]
async fn retention_stays_below_the_synced_mark() {
    let clocked = Clocked::new(Disk::new(1));
    let options = tiny().retention(Retention::default().age(Duration::from_secs(60)));
    let wal = options.open_with(clocked.clone()).await.unwrap();
    for _ in 0..100 {
        wal.append(&[1; 200]).await.unwrap();
    }
    clocked.set(1_000_000 + 60_000);
    let synced = wal.watermarks().synced;
    assert!(synced < wal.watermarks().written, "the log syncs by itself only at rotations");
    wal.sync().await.unwrap();
    assert!(first(&wal) <= synced, "not synced when the flush decided");
    filled(&wal, 1).await;
    assert!(first(&wal) > Lsn::ZERO);
}

#[tokio::test]
async fn idle_log_applies_retention_when_it_is_called() {
    let clocked = Clocked::new(Disk::new(1));
    let options = tiny().retention(Retention::default().age(Duration::from_secs(60)));
    let wal = options.open_with(clocked.clone()).await.unwrap();
    filled(&wal, 200).await;
    assert_eq!(wal.apply_retention().await.unwrap(), Lsn::ZERO);
    clocked.set(1_000_000 + 60_000);
    let newest = wal.segments().last().unwrap().start;
    assert_eq!(wal.apply_retention().await.unwrap(), newest, "the newest segment stays");
    assert_eq!(wal.apply_retention().await.unwrap(), newest);
    wal.close().await.unwrap();
    assert!(wal.apply_retention().await.is_err());
}

#[tokio::test]
async fn log_that_was_opened_with_a_retention_applies_it() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    filled(&wal, 300).await;
    wal.close().await.unwrap();
    let options = tiny().retention(Retention::default().bytes(0));
    let wal = options.open_with(disk).await.unwrap();
    filled(&wal, 1).await;
    let segments = wal.segments();
    assert_eq!(first(&wal), segments.last().unwrap().start);
}

/// Appends with a retention of nothing beside a slot and a lease. Fails if either is passed.
async fn retained_beside_holders() -> Result<(), String> {
    let options = tiny().retention(Retention::default().bytes(0));
    let wal = options.open_with(MemoryStorage::new()).await.unwrap();
    let lsns = filled(&wal, 30).await;
    let slot = wal.slot_at("consumer", lsns[20]).await.unwrap();
    let check = |held: Lsn| match first(&wal) <= held {
        true => Ok(()),
        false => Err(format!("{} is above the holder at {held}", first(&wal))),
    };
    let more = filled(&wal, 300).await;
    check(lsns[20])?;
    let lease = wal.retain(more[100]).unwrap();
    slot.advance(more[200]).unwrap();
    filled(&wal, 60).await;
    check(more[100])?;
    assert!(first(&wal) > lsns[20], "the slot has moved on");
    assert_eq!(wal.read(more[100]).await.unwrap().lsn, more[100]);
    drop(lease);
    filled(&wal, 60).await;
    check(more[200])?;
    assert!(first(&wal) > more[100], "the lease is gone");
    slot.remove().await.unwrap();
    filled(&wal, 60).await;
    assert!(first(&wal) > more[200], "the slot is gone");
    Ok(())
}

#[tokio::test]
async fn retention_never_passes_a_slot_or_a_lease() {
    retained_beside_holders().await.unwrap();
}

#[test]
fn retention_past_a_slot_is_caught() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(retained_beside_holders())
    };
    let caught = sabotage::with(Sabotage::RetainPastSlot, run);
    assert!(caught.is_err(), "the check of the test above can't fail");
}

#[tokio::test]
async fn retention_passes_a_slot_beyond_its_own_limit() {
    let options = tiny().retention(Retention::default().bytes(0));
    let wal = options.open_with(MemoryStorage::new()).await.unwrap();
    let slot = wal.slot("dead").await.unwrap();
    slot.keep_at_most(4 * SEGMENT_BYTES).unwrap();
    filled(&wal, 100).await;
    assert_eq!(first(&wal), Lsn::ZERO);
    filled(&wal, 200).await;
    assert!(first(&wal) > Lsn::ZERO);
    assert!(matches!(slot.follow(), Err(Error::SlotLost { .. })));
}

/// One power cut at each of many operations, with slots that move, and retention.
#[test]
fn retention_survives_power_cuts() {
    let mut cut_count = 0;
    let mut dropped_count = 0;
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let disk = Disk::new(seed).cut_after(20 + seed * 7);
        let mut acknowledged: BTreeMap<Lsn, Vec<u8>> = BTreeMap::new();
        let mut durable = Lsn::ZERO;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = match seed % 2 {
            0 => tiny().retention(Retention::default().bytes(random.below(20_000) as u64)),
            _ => budget(4, OnBudget::DropOldest),
        };
        let passes_slots = seed % 2 == 1;
        let _: Result<(), Error> = runtime.block_on(async {
            let wal = options.clone().open_with(disk.clone()).await?;
            let slot: Slot = wal.slot("consumer").await?;
            for i in 0..400_u64 {
                let payload = i.to_le_bytes().repeat(1 + random.below(40));
                let lsn = wal.append_and_sync(&payload).await?;
                acknowledged.insert(lsn, payload);
                if random.below(4) == 0 {
                    match slot.advance_and_sync(lsn).await {
                        Ok(()) => durable = lsn,
                        Err(Error::SlotLost { .. }) if passes_slots => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(())
        });
        cut_count += 1;
        let survival = [Survival::Nothing, Survival::Everything, Survival::Random(seed)];
        for survival in survival {
            let disk = disk.crash(survival);
            runtime.block_on(async {
                let wal = options.clone().open_with(disk).await.unwrap();
                let begins_at = first(&wal);
                dropped_count += u64::from(begins_at > Lsn::ZERO);
                let found: BTreeMap<Lsn, Vec<u8>> = records(&wal).await.into_iter().collect();
                for (lsn, payload) in acknowledged.range(begins_at..) {
                    assert_eq!(found.get(lsn), Some(payload), "seed {seed}: {lsn} is lost");
                }
                if !passes_slots && durable > Lsn::ZERO {
                    let slot = wal.slots().into_iter().next().expect("the slot");
                    assert!(slot.position >= durable, "seed {seed}: the slot has moved back");
                    assert!(begins_at <= slot.position, "seed {seed}: dropped past the slot");
                }
            });
        }
    }
    assert!(dropped_count > cut_count / 2, "{dropped_count} of {cut_count} logs dropped anything");
}

#[tokio::test]
async fn full_budget_refuses_and_names_the_holder() {
    let disk = Disk::new(1);
    let wal = budget(4, OnBudget::Refuse).open_with(disk.clone()).await.unwrap();
    let error = fill_up(&wal).await;
    let Error::OverBudget { used_bytes, budget_bytes, ref holder, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((used_bytes, budget_bytes, holder.as_str()), (4 * FILE_BYTES, 4 * FILE_BYTES, ""));
    assert!(matches!(wal.health().get(), Health::Full { error: Error::OverBudget { .. }, .. }));
    // The log keeps space for one truncation in each round.
    for round in 0..20 {
        let end = wal.watermarks().synced;
        wal.truncate_before(end).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        segment_count_is(&wal, |count| count <= 2).await;
        within("the health", async {
            while !wal.health().get().is_good() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        assert!(matches!(fill_up(&wal).await, Error::OverBudget { .. }));
    }
    // A full log takes no new slot. A slot in the oldest segment is named.
    assert!(matches!(wal.slot("late").await, Err(Error::OverBudget { .. })));
    wal.truncate_before(wal.watermarks().synced).await.unwrap();
    segment_count_is(&wal, |count| count <= 2).await;
    let slot = wal.slot("indexer").await.unwrap();
    let error = fill_up(&wal).await.to_string();
    assert!(error.contains(r#"the slot "indexer" at LSN"#), "{error}");
    // A full log has no space for the record, and truncations pass the slot nevertheless.
    assert!(matches!(slot.remove().await, Err(Error::OverBudget { .. })));
    let _lease = wal.retain(first(&wal)).unwrap();
    let error = wal.append(vec![7; 200]).await.unwrap_err().to_string();
    assert!(error.contains("a lease at LSN"), "{error}");
    wal.close().await.unwrap();
}

#[tokio::test]
async fn log_above_its_budget_opens_and_refuses() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let lsns = filled(&wal, 400).await;
    wal.close().await.unwrap();
    let wal = budget(3, OnBudget::Refuse).open_with(disk.clone()).await.unwrap();
    assert_eq!(records(&wal).await.len(), 400, "all of it is readable");
    assert!(matches!(fill_up(&wal).await, Error::OverBudget { .. }));
    wal.truncate_before(lsns[399]).await.unwrap();
    segment_count_is(&wal, |count| count <= 2).await;
    wal.append_and_sync(&[1; 200]).await.unwrap();
    wal.close().await.unwrap();
    let wal = budget(3, OnBudget::DropOldest).open_with(disk).await.unwrap();
    filled(&wal, 400).await;
}

#[tokio::test]
async fn small_budget_and_raft_log_are_refused() {
    let opened = tiny().budget(3 * FILE_BYTES - 1, OnBudget::Wait).open_with(Disk::new(1)).await;
    assert!(matches!(opened, Err(Error::InvalidOption { option: "budget", .. })));
    let retention = tiny().retention(Retention::default().bytes(0));
    for options in [retention, budget(3, OnBudget::DropOldest)] {
        let opened = highwater::raft::RaftLog::options().wal(options).open_with(Disk::new(1)).await;
        let error = opened.expect_err("records of a group would be lost");
        assert!(error.to_string().contains("drops nothing by itself"), "{error}");
    }
}

#[test]
fn full_budget_waits_for_a_slot() {
    for threads in [1, 4] {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(wait_for_slot(directory.path()));
    }
}

async fn wait_for_slot(directory: &Path) {
    let options = budget(3, OnBudget::Wait).retention(Retention::default().bytes(0));
    let wal = options.open(directory.join("log")).await.unwrap();
    let slot = wal.slot("consumer").await.unwrap();
    let appender = tokio::spawn({
        let wal = wal.clone();
        async move {
            for i in 0..500_u64 {
                wal.append_and_sync(&i.to_le_bytes().repeat(24)).await.unwrap();
            }
        }
    });
    within("a full log", async {
        while !matches!(wal.health().get(), Health::Full { .. }) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    // A dropped wait leaves nothing behind. A call that never waits is refused.
    let wait = Duration::from_millis(20);
    while let Ok(appended) = tokio::time::timeout(wait, wal.append(vec![1; 900])).await {
        // The newest segment has room for a few more.
        appended.unwrap();
    }
    assert!(matches!(wal.try_enqueue(vec![1; 900]), Err(Error::Full)));
    assert!(wal.stats().room_wait_count > 0);
    // The consumer follows, and no wake-up of the append is lost.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !appender.is_finished() {
        assert!(Instant::now() < deadline, "the append hangs, though the slot has moved on");
        // Small steps, of which most free no segment.
        let step = Lsn::new(slot.position().as_u64() + 216);
        slot.advance(step.min(wal.watermarks().synced)).unwrap();
        tokio::time::sleep(Duration::from_micros(50)).await;
    }
    appender.await.unwrap();
    assert!(first(&wal) > Lsn::ZERO);
    wal.close().await.unwrap();
}

#[tokio::test]
async fn full_budget_waits_for_a_lease() {
    let options = budget(3, OnBudget::Wait).retention(Retention::default().bytes(0));
    let wal = options.open_with(MemoryStorage::new()).await.unwrap();
    let lsns = filled(&wal, 10).await;
    let lease = wal.retain(lsns[0]).unwrap();
    let mut waiting = Box::pin(async {
        for _ in 0..100 {
            wal.append_and_sync(&[1; 200]).await.unwrap();
        }
    });
    tokio::select! {
        () = &mut waiting => panic!("the lease holds the log"),
        () = tokio::time::sleep(Duration::from_millis(50)) => {}
    }
    drop(lease);
    within("appends after the lease", waiting).await;
}

/// The next segment is prepared, and a record that needs a larger one waits.
#[tokio::test]
async fn full_budget_waits_for_a_large_record() {
    let wal = budget(3, OnBudget::Wait).open_with(Disk::new(1)).await.unwrap();
    filled(&wal, 50).await;
    assert_eq!(wal.stats().segment_count, 2, "and one that is prepared");
    let mut waiting = Box::pin(wal.append(vec![1; 10_000]));
    tokio::select! {
        appended = &mut waiting => panic!("the budget is used up: {appended:?}"),
        () = tokio::time::sleep(Duration::from_millis(50)) => {}
    }
    let truncate = wal.truncate_before(wal.watermarks().synced);
    let (appended, truncated) =
        within("the large record", async { tokio::join!(waiting, truncate) }).await;
    appended.unwrap();
    truncated.unwrap();
    // A record that can't fit beside the newest segment never waits.
    let refused = within("the refusal", wal.append(vec![1; 60_000])).await;
    assert!(matches!(refused, Err(Error::OverBudget { .. })), "{refused:?}");
}

/// The oldest segments are dropped only when they are synced, so the log has to sync by itself.
#[test]
fn drop_oldest_needs_no_sync_of_the_user() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let files = directory.path().join("log");
        let options = budget(3, OnBudget::DropOldest);
        for wal in [
            options.clone().open_with(Disk::new(1)).await.unwrap(),
            options.clone().open_with(MemoryStorage::new()).await.unwrap(),
            options.open(files).await.unwrap(),
        ] {
            for i in 0..300_u64 {
                let payload = i.to_le_bytes().repeat(24);
                within("an append", wal.append(&payload)).await.unwrap();
            }
            assert!(first(&wal) > Lsn::ZERO);
        }
    });
}

/// A file that can't be removed does not count, so the append that waits continues.
#[tokio::test]
async fn full_budget_ends_also_if_a_removal_fails() {
    let disk = Disk::new(1);
    let wal = budget(3, OnBudget::Wait).open_with(disk.clone()).await.unwrap();
    filled(&wal, 60).await;
    disk.faults().on(Op::Remove).fail(std::io::ErrorKind::PermissionDenied);
    let mut waiting = Box::pin(async {
        for _ in 0..30 {
            wal.append_and_sync(&[1; 200]).await.unwrap();
        }
    });
    tokio::select! {
        () = &mut waiting => panic!("the budget is used up"),
        () = tokio::time::sleep(Duration::from_millis(50)) => {}
    }
    let truncate = async {
        wal.truncate_before(wal.watermarks().synced).await.unwrap();
    };
    within("appends after the truncation", async { tokio::join!(waiting, truncate) }).await;
}

/// A file that is kept for reuse gives way to a record that needs a larger one.
#[tokio::test]
async fn kept_files_do_not_hold_a_large_record_up() {
    for count in [3, 5] {
        let options = budget(count, OnBudget::Wait).recycle_segments(1);
        let wal = options.open_with(Disk::new(1)).await.unwrap();
        filled(&wal, 36 * (count - 1) - 20).await;
        let mut waiting = Box::pin(wal.append(vec![1; 10_000]));
        tokio::select! {
            appended = &mut waiting => panic!("the budget is used up: {appended:?}"),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        let newest = wal.segments().last().unwrap().start;
        let to = wal.watermarks().synced.min(newest);
        let truncate = wal.truncate_before(to);
        let (appended, truncated) =
            within("the large record", async { tokio::join!(waiting, truncate) }).await;
        appended.unwrap();
        truncated.unwrap();
    }
}

/// A truncation within a segment frees no file, and uses the space for one truncation.
#[tokio::test]
async fn drop_oldest_works_after_a_truncation_of_a_full_log() {
    let wal = budget(3, OnBudget::DropOldest).open_with(Disk::new(1)).await.unwrap();
    for _ in 0..20 {
        let lease = wal.retain(first(&wal)).unwrap();
        let error = fill_up(&wal).await;
        assert!(matches!(error, Error::OverBudget { .. }), "{error}");
        let record = within("a record", wal.replay(..).try_next()).await.unwrap().unwrap();
        wal.truncate_before(record.end).await.unwrap();
        drop(lease);
        within("appends", filled(&wal, 100)).await;
    }
}

/// A record that never fits keeps no other append waiting.
#[test]
fn drop_oldest_serves_others_beside_huge_records() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let options = budget(4, OnBudget::DropOldest).recycle_segments(1);
        let wal = options.open(directory.path().join("log")).await.unwrap();
        let slot = wal.slot("consumer").await.unwrap();
        let append = |task: usize| {
            let wal = wal.clone();
            tokio::spawn(async move {
                for i in 0..300 {
                    let bytes = [200, 900, 200, 5000][(task + i) % 4];
                    wal.append(vec![1; bytes]).await.unwrap();
                    if i % 10 == task {
                        let refused = wal.append(vec![1; 60_000]).await;
                        assert!(matches!(refused, Err(Error::OverBudget { .. })), "{refused:?}");
                    }
                }
            })
        };
        let tasks: Vec<_> = (0..6).map(append).collect();
        let finished = async {
            for task in tasks {
                task.await.unwrap();
                // The slot may be lost.
                let _ = slot.advance(wal.watermarks().synced);
            }
        };
        tokio::time::timeout(Duration::from_secs(30), finished).await.expect("appends hang");
        wal.close().await.unwrap();
    });
}

/// Records of slots keep files too, which must not use the budget up.
#[test]
fn records_of_slots_do_not_use_a_budget_up() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for when_used_up in [OnBudget::Wait, OnBudget::DropOldest] {
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let options = budget(3, when_used_up).retention(Retention::default().bytes(0));
            let wal = options.open(directory.path().join("log")).await.unwrap();
            let slot = wal.slot("consumer").await.unwrap();
            let append = |_: usize| {
                let wal = wal.clone();
                tokio::spawn(async move {
                    for i in 0..150 {
                        wal.append(vec![1; if i % 3 == 0 { 2000 } else { 900 }]).await.unwrap();
                    }
                })
            };
            let tasks: Vec<_> = (0..6).map(append).collect();
            let deadline = Instant::now() + Duration::from_secs(30);
            while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
                assert!(Instant::now() < deadline, "appends hang: {:?}", wal.stats());
                let _ = slot.advance(wal.watermarks().synced);
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
    }
}

/// A full log, of which a slot moves in steps that free no segment, can be freed by a later step.
#[tokio::test]
async fn small_steps_of_a_slot_can_free_a_full_log() {
    for is_disk_full in [false, true] {
        let disk = Disk::new(1);
        let options = if is_disk_full { tiny() } else { budget(4, OnBudget::Refuse) };
        let wal = options.open_with(disk.clone()).await.unwrap();
        let slot = wal.slot("consumer").await.unwrap();
        let lsns = filled(&wal, 60).await;
        if is_disk_full {
            let image = disk.image();
            let sizes = image.names().into_iter().map(|name| image.bytes(&name).unwrap().len());
            disk.set_capacity_bytes(sizes.sum::<usize>() as u64);
        }
        fill_up(&wal).await;
        for lsn in &lsns {
            slot.advance(*lsn).unwrap();
            // Truncates up to the slot, as far as it is durable.
            let _ = wal.truncate_before(*lsn).await;
        }
        assert!(first(&wal) > Lsn::ZERO, "no step has freed the log");
        wal.append_and_sync(&[1; 200]).await.unwrap();
    }
}

#[tokio::test]
async fn drop_oldest_loses_slots_and_respects_leases() {
    for count in [3, 5] {
        let wal = budget(count, OnBudget::DropOldest).open_with(Disk::new(1)).await.unwrap();
        let slot = wal.slot("slow").await.unwrap();
        filled(&wal, 1000).await;
        assert!(first(&wal) > Lsn::ZERO);
        assert!(wal.stats().segment_count <= count);
        let kept = kept_bytes(&wal);
        assert!(kept >= (count - 3) * SEGMENT_BYTES, "{kept} bytes kept of {count} segments");
        assert!(matches!(slot.follow(), Err(Error::SlotLost { .. })));
        assert!(wal.slots()[0].is_lost);
        // A record of a size that can never fit drops nothing.
        let before = first(&wal);
        let refused = wal.append(vec![0; 64 << 10]).await.unwrap_err();
        assert!(matches!(refused, Error::OverBudget { .. }), "{refused}");
        assert_eq!(first(&wal), before);
        // A lease is not passed.
        let lease = wal.retain(first(&wal)).unwrap();
        let refused = fill_up(&wal).await;
        assert!(refused.to_string().contains("a lease at LSN"), "{refused}");
        assert_eq!(first(&wal), before);
        drop(lease);
        filled(&wal, 300).await;
        assert!(first(&wal) > before);
        wal.close().await.unwrap();
    }
}

/// Appends of many tasks, most without a sync, on real files. The files never exceed the budget.
#[test]
fn drop_oldest_keeps_to_the_budget_under_load() {
    for recycles in [0, 2] {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        runtime.block_on(async {
            let options = budget(6, OnBudget::DropOldest).recycle_segments(recycles);
            let wal = options.clone().open(&path).await.unwrap();
            let append = |task: u64| {
                let wal = wal.clone();
                tokio::spawn(async move {
                    for i in 0..400_u64 {
                        let payload = (task << 32 | i).to_le_bytes().repeat(20);
                        wal.append(&payload).await.unwrap();
                        if i % 50 == task {
                            wal.sync().await.unwrap();
                        }
                    }
                })
            };
            let tasks: Vec<_> = (0..8).map(append).collect();
            let finished = async {
                while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
                    let bytes = bytes_in(&path);
                    // Files that are being removed do not count, and one segment may be lent.
                    assert!(bytes <= 12 * FILE_BYTES, "{bytes} bytes in the directory");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let limit = Duration::from_secs(30);
            tokio::time::timeout(limit, finished).await.expect("appends hang");
            for task in tasks {
                task.await.unwrap();
            }
            wal.close().await.unwrap();
            let bytes = bytes_in(&path);
            assert!(bytes <= 7 * FILE_BYTES, "{bytes} bytes in the directory of the closed log");
            let wal = options.open(&path).await.unwrap();
            assert!(!records(&wal).await.is_empty());
        });
    }
}

fn bytes_in(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap();
    // A file may be removed between the two calls.
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}
