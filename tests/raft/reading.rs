//! Reads from memory and from files, reads at opening, and many reopenings.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use highwater::{
    Error as LogError, Wal,
    raft::{Entries, Error, RaftLog, RaftOptions, Result},
    sabotage::{self, Sabotage},
    simulation::{Disk, Random},
};

use super::{
    model::{Model, ModelChange},
    sweep::block_on,
    workload::{options, random_change},
};

pub(crate) async fn apply(log: &RaftLog, id: u64, change: &ModelChange) -> Result<()> {
    let group = log.group(id);
    let ticket = match change.clone() {
        ModelChange::Append(entries) => group.append(entries).await?,
        ModelChange::Overwrite(entries) => group.append_overwriting(entries).await?,
        ModelChange::TruncateAfter(last) => group.truncate_after(last).await?,
        ModelChange::Purge(upto, term, id) => group.purge(upto, term, id).await?,
        ModelChange::Vote(bytes) => group.set_vote(bytes).await?,
        ModelChange::User(bytes) => group.set_user(bytes).await?,
        ModelChange::Remove => log.remove_group(id).await?,
        ModelChange::Committed(bytes) => return group.set_committed(bytes).await,
    };
    drop(ticket);
    Ok(())
}

/// Many groups in tiny segments, some of them idle, are reopened at any point.
#[test]
fn reopened_groups_match_the_model() {
    let [hints, rewritten, removed] = reopen_many_times(8);
    assert!(hints > 0 && rewritten > 0 && removed > 0, "{hints} {rewritten} {removed}");
}

/// Without the hint, the whole log is searched for the newest checkpoint. Its beginning is gone.
#[test]
fn open_without_hint_finds_the_same() {
    let [hints, _, removed] = sabotage::with(Sabotage::IgnoreHint, || reopen_many_times(4));
    assert!(hints == 0 && removed > 0, "{hints} {removed}");
}

fn reopen_many_times(seeds: u64) -> [u64; 3] {
    let (mut hints, mut rewritten, mut removed) = (0, 0, 0);
    highwater::simulation::for_each_seed(seeds, |seed| {
        block_on(async {
            let mut random = Random::new(seed);
            let disk = Disk::new(seed);
            let mut models: BTreeMap<u64, Model> = BTreeMap::new();
            let mut log = options(seed).open_with(disk.clone()).await.unwrap();
            for number in 0..600 {
                // Those of low numbers are changed often, the others hardly ever.
                let id = [1, 1, 1, 2, 2, 3, random.below(40) as u64][random.below(7)];
                let model = models.entry(id).or_default();
                let change = random_change(&mut random, model, number);
                let before = model.clone();
                match (model.apply(&change), apply(&log, id, &change).await) {
                    (true, outcome) => outcome.unwrap(),
                    (false, Err(Error::NotContiguous { .. } | Error::Purged { .. })) => {
                        assert_eq!(*model, before);
                    }
                    (false, outcome) => panic!("{change:?} of {before:?}: {outcome:?}"),
                }
                if random.one_in(40) {
                    let stats = log.stats();
                    rewritten += stats.rewritten_bytes;
                    removed += log.wal().stats().removed_count;
                    if random.one_in(2) {
                        log.close().await.unwrap();
                    }
                    drop(log);
                    log = options(seed + number).open_with(disk.clone()).await.unwrap();
                    hints += u64::from(log.stats().opened_from_hint);
                }
                if random.one_in(10) {
                    assert_eq!(Model::of(&log.group(id)).await.unwrap(), models[&id], "group {id}");
                }
                if random.one_in(60) {
                    let mut expected = models.clone();
                    expected.retain(|_, model| *model != Model::default());
                    assert_eq!(Model::all_of(&log).await.unwrap(), expected, "change {number}");
                }
            }
        });
    });
    println!(
        "{hints} openings from a hint, {rewritten} bytes rewritten, {removed} segments removed"
    );
    [hints, rewritten, removed]
}

fn small() -> RaftOptions {
    RaftOptions::default().wal(Wal::options().segment_bytes(64 << 10))
}

#[tokio::test]
async fn read_clips_bounds_and_rejects_ranges() {
    for cache_bytes in [0, 2000, 1 << 20] {
        let options = small().tail_cache_bytes(cache_bytes);
        let log = options.open_with(Disk::new(1)).await.unwrap();
        let group = log.group(1);
        for index in 1..=300u64 {
            let mut entries = Entries::new();
            entries.push(index, index / 100, &[7; 100]);
            drop(group.append(entries).await.unwrap());
        }
        let _ = group.purge(10, 0, "id").await.unwrap();
        let indexes = |entries: &[highwater::raft::Entry]| {
            (entries.first().map(|e| e.index), entries.last().map(|e| e.index), entries.len())
        };
        let read = |from, to, bytes| {
            let group = group.clone();
            async move { group.read(from..to, bytes).await.map(|entries| indexes(&entries)) }
        };
        assert_eq!(read(11, 1000, u64::MAX).await.unwrap(), (Some(11), Some(300), 290));
        assert_eq!(read(20, 30, u64::MAX).await.unwrap(), (Some(20), Some(29), 10));
        assert_eq!(read(20, 300, 1000).await.unwrap(), (Some(20), Some(29), 10));
        assert_eq!(read(20, 300, 0).await.unwrap(), (Some(20), Some(20), 1));
        assert_eq!(read(20, 20, u64::MAX).await.unwrap(), (None, None, 0));
        assert_eq!(read(301, 400, u64::MAX).await.unwrap(), (None, None, 0));
        let purged = read(10, 20, u64::MAX).await;
        assert!(matches!(purged, Err(Error::Purged { first: 11, .. })), "{purged:?}");
        let streamed: Vec<_> = group.stream(11..301).try_collect().await.unwrap();
        assert_eq!(indexes(&streamed), (Some(11), Some(300), 290));
        let tried = group.try_read(290..301, u64::MAX).unwrap();
        assert_eq!(tried.is_some(), cache_bytes > 0);
        assert!(log.stats().cached_bytes <= cache_bytes);
        assert_eq!(group.last_entry().await.unwrap().unwrap().index, 300);
        assert_eq!((group.term(10), group.term(99), group.term(100)), (Some(0), Some(0), Some(1)));
        assert_eq!((group.term(9), group.term(301)), (None, None));
        log.close().await.unwrap();
    }
}

/// Opening reads the newest checkpoint and the records after it, however long the log is.
#[tokio::test]
async fn opening_reads_only_the_newest_checkpoint() {
    let disk = Disk::new(3);
    let log = small().open_with(disk.clone()).await.unwrap();
    let group = log.group(1);
    for index in 1..=8000u64 {
        let mut entries = Entries::new();
        entries.push(index, 1, &[9; 200]);
        drop(group.append(entries).await.unwrap());
    }
    log.close().await.unwrap();
    let log = small().open_with(disk.clone()).await.unwrap();
    let (stats, written) = (log.stats(), log.wal().watermarks().reserved.as_u64());
    println!("{} of {written} bytes read", stats.opened_bytes);
    assert!(stats.opened_from_hint && stats.opened_bytes < written / 4, "{stats:?} of {written}");
    assert_eq!(log.group(1).read(1..8001, u64::MAX).await.unwrap().len(), 8000);
    log.close().await.unwrap();
}

/// The log of a busy group does not grow without limit because of an idle group.
#[tokio::test]
async fn idle_group_is_rewritten_at_the_end() {
    let disk = Disk::new(4);
    let log = small().open_with(disk.clone()).await.unwrap();
    let idle = log.group(7);
    let mut entries = Entries::new();
    (1..=50).for_each(|index| entries.push(index, 3, format!("idle {index}").as_bytes()));
    idle.append(entries).await.unwrap().synced().await.unwrap();
    let busy = log.group(1);
    for index in 1..=6000u64 {
        let mut entries = Entries::new();
        entries.push(index, 1, &[9; 300]);
        drop(busy.append(entries).await.unwrap());
        if index % 100 == 0 {
            drop(busy.purge(index - 50, 1, "id").await.unwrap());
        }
    }
    let (stats, wal) = (log.stats(), log.wal().stats());
    assert!(stats.rewritten_bytes > 0 && wal.segment_count < 12, "{stats:?} {wal:?}");
    let expected: Vec<_> = (1..=50).map(|index| format!("idle {index}").into_bytes()).collect();
    for log in [log.clone(), {
        log.close().await.unwrap();
        drop((idle, busy, log));
        small().open_with(disk.clone()).await.unwrap()
    }] {
        if log.wal().sync().await.is_ok() {
            let entries = log.group(7).read(1..51, u64::MAX).await.unwrap();
            let payloads: Vec<_> = entries.iter().map(|entry| entry.payload.to_vec()).collect();
            assert_eq!(payloads, expected);
        }
    }
}

#[tokio::test]
async fn other_codec_and_other_kind_of_log_are_rejected() {
    let disk = Disk::new(5);
    small().codec(1).open_with(disk.clone()).await.unwrap().close().await.unwrap();
    let refused = small().codec(2).open_with(disk.clone()).await;
    assert!(matches!(refused, Err(Error::OtherCodec { found: 1, expected: 2 })), "{refused:?}");
    let cutting = Wal::options().on_damage(highwater::OnDamage::TruncateAtDamage);
    let refused = small().codec(1).wal(cutting).open_with(disk.clone()).await;
    assert!(
        matches!(refused, Err(Error::Log(LogError::InvalidOption { option: "on_damage", .. }))),
        "{refused:?}"
    );
    assert!(small().codec(1).open_with(disk).await.is_ok());
    let disk = Disk::new(6);
    let wal = Wal::options().open_with(disk.clone()).await.unwrap();
    wal.append_and_sync("not a record of a Raft log").await.unwrap();
    drop(wal);
    let refused = small().open_with(disk).await;
    assert!(matches!(refused, Err(Error::BadRecord { .. })), "{refused:?}");
}
