//! openraft's requirements beyond its suite: durability, restarts, many groups, limits.

use std::io;

use highwater::{
    Wal,
    raft::Error,
    simulation::{Disk, Op, Survival},
    storage::MemoryStorage,
};
use highwater_openraft::{LogStore, Postcard, StoreError};
use openraft::{
    RaftLogReader, Vote,
    storage::{IOFlushed, RaftLogStorage},
};

use crate::{
    medium::{Medium, Store, append, append_durably, entries, entry, log_id, tiny},
    state_machine::Types,
};

#[tokio::test]
async fn saved_vote_survives_an_immediate_power_cut() {
    let disk = Disk::new(3);
    let mut store = Medium::Disk(disk.clone()).open(Store::options()).await.unwrap();
    for term in 1..20 {
        store.save_vote(&Vote::new(term, 7)).await.unwrap();
        let after = Medium::Disk(disk.crash(Survival::Nothing));
        let mut after = after.open(Store::options()).await.unwrap();
        assert_eq!(after.read_vote().await.unwrap(), Some(Vote::new(term, 7)));
    }
}

#[tokio::test]
async fn only_a_vote_waits_for_the_disk() {
    let disk = Disk::new(3);
    disk.faults().record(true);
    let mut store = Medium::Disk(disk.clone()).open(Store::options()).await.unwrap();
    append_durably(&mut store, entries(1, 1..20)).await.unwrap();
    let syncs = |disk: &Disk| {
        use highwater::simulation::Event;
        disk.faults().count(|event| matches!(event, Event::SyncEnded { .. }))
    };
    let before = syncs(&disk);
    store.save_committed(Some(log_id(1, 5))).await.unwrap();
    store.truncate_after(Some(log_id(1, 18))).await.unwrap();
    store.purge(log_id(1, 3)).await.unwrap();
    assert_eq!(syncs(&disk), before);
    store.save_vote(&Vote::new(2, 1)).await.unwrap();
    assert!(syncs(&disk) > before);
    // The other changes were synced with it.
    let after = Medium::Disk(disk.crash(Survival::Nothing));
    let mut after = after.open(Store::options()).await.unwrap();
    assert_eq!(after.read_committed().await.unwrap(), Some(log_id(1, 5)));
    assert_eq!(after.try_get_log_entries(..).await.unwrap(), entries(1, 4..19));
}

#[tokio::test]
async fn restart_restores_everything() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).await.unwrap();
    store.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    append_durably(&mut store, entries(1, 1..100)).await.unwrap();
    store.truncate_after(Some(log_id(1, 60))).await.unwrap();
    append_durably(&mut store, entries(3, 61..80)).await.unwrap();
    store.purge(log_id(1, 40)).await.unwrap();
    store.save_committed(Some(log_id(3, 70))).await.unwrap();
    store.close().await.unwrap();

    let mut store = Store::open(directory.path()).await.unwrap();
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 40)));
    assert_eq!(state.last_log_id, Some(log_id(3, 79)));
    assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new_committed(3, 2)));
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(3, 70)));
    let mut expected = entries(1, 41..61);
    expected.extend(entries(3, 61..80));
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), expected);
    store.save_committed(None).await.unwrap();
    store.close().await.unwrap();
    let mut store = Store::open(directory.path()).await.unwrap();
    assert_eq!(store.read_committed().await.unwrap(), None);
}

#[tokio::test]
async fn purge_beyond_the_end_leaves_an_empty_log() {
    let medium = Medium::Memory(MemoryStorage::new());
    let mut store = medium.open(tiny()).await.unwrap();
    append_durably(&mut store, entries(1, 1..10)).await.unwrap();
    store.purge(log_id(4, 1000)).await.unwrap();
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id, Some(log_id(4, 1000)));
    append_durably(&mut store, entries(4, 1001..1010)).await.unwrap();
    // An older snapshot changes nothing.
    store.purge(log_id(1, 5)).await.unwrap();
    store.close().await.unwrap();
    let mut store = medium.open(tiny()).await.unwrap();
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(4, 1000)));
    assert_eq!(store.try_get_log_entries(5..).await.unwrap(), entries(4, 1001..1010));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_share_a_log_and_its_flushes() {
    const GROUPS: u64 = 300;
    let directory = tempfile::tempdir().unwrap();
    let options = || Store::options().wal(Wal::options().segment_bytes(64 << 10));
    let log = options().open(directory.path()).await.unwrap();
    let tasks: Vec<_> = (0..GROUPS)
        .map(|group| {
            let mut store = Store::of_group(log.group(group)).unwrap();
            tokio::spawn(async move {
                store.save_vote(&Vote::new(group + 1, group)).await.unwrap();
                let last = 10 + group % 7;
                append_durably(&mut store, entries(group + 1, 1..last)).await.unwrap();
                store.purge(log_id(group + 1, group % 5)).await.unwrap();
                store.save_committed(Some(log_id(group + 1, last - 1))).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let syncs = log.wal().stats().sync_count;
    assert!(syncs < GROUPS, "{syncs} flushes for {GROUPS} groups with two each");
    log.close().await.unwrap();

    let log = options().open(directory.path()).await.unwrap();
    assert_eq!(log.groups().len() as u64, GROUPS);
    for group in 0..GROUPS {
        let mut store = Store::of_group(log.group(group)).unwrap();
        let last = 10 + group % 7;
        assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new(group + 1, group)));
        assert_eq!(store.read_committed().await.unwrap(), Some(log_id(group + 1, last - 1)));
        let expected = entries(group + 1, group % 5 + 1..last);
        assert_eq!(store.try_get_log_entries(..).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn log_of_another_codec_is_rejected() {
    let medium = Medium::Memory(MemoryStorage::new());
    let mut store = medium.open(Store::options()).await.unwrap();
    append_durably(&mut store, entries(1, 1..3)).await.unwrap();
    store.close().await.unwrap();

    type Newer = LogStore<Types, Postcard<2>>;
    let refused = medium.open_log(Newer::options()).await.unwrap_err();
    assert!(matches!(refused, Error::OtherCodec { .. }), "{refused}");
    // A store also rejects an open log of another codec.
    let log = medium.open_log(Store::options()).await.unwrap();
    let refused = Newer::of_group(log.group(0)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    let inner = refused.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    assert!(matches!(inner, Some(Error::OtherCodec { .. })), "{refused}");
    let mut store = Store::of_log(log).unwrap();
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), entries(1, 1..3));
}

#[tokio::test]
async fn append_with_a_gap_is_rejected_as_a_whole() {
    let medium = Medium::Memory(MemoryStorage::new());
    let mut store = medium.open(Store::options()).await.unwrap();
    append_durably(&mut store, entries(1, 1..5)).await.unwrap();
    let error = store.append(entries(1, 6..8), IOFlushed::noop()).await.unwrap_err();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>());
    let is_expected = |inner| {
        matches!(inner, StoreError::Log { source: Error::NotContiguous { expected: 5, .. }, .. })
    };
    assert!(inner.cloned().is_some_and(is_expected), "{error}");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), entries(1, 1..5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_above_a_batch_is_split() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).await.unwrap();
    let all: Vec<_> = (1..=40).map(|i| entry(1, i, "x".repeat(1 << 20))).collect();
    append_durably(&mut store, all.clone()).await.unwrap();
    append_durably(&mut store, Vec::new()).await.unwrap();
    store.close().await.unwrap();
    let mut store = Store::open(directory.path()).await.unwrap();
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), all);
    // A message to a follower has some of them, at least one.
    assert_eq!(store.limited_get_log_entries(3, 41).await.unwrap(), all[2..3].to_vec());
    let mut store = store.read_bytes_max(5 << 20);
    assert_eq!(store.limited_get_log_entries(3, 41).await.unwrap(), all[2..6].to_vec());
    let mut store = store.read_bytes_max(0);
    assert_eq!(store.limited_get_log_entries(3, 41).await.unwrap(), all[2..3].to_vec());
}

#[tokio::test]
async fn entry_that_cannot_be_stored_is_rejected() {
    let medium = Medium::Memory(MemoryStorage::new());
    let options = Store::options().wal(Wal::options().record_bytes_max(1 << 10));
    let mut store = medium.open(options).await.unwrap();
    let large = vec![entry(1, 1, "x".repeat(2 << 10))];
    let error = store.append(large, IOFlushed::noop()).await.unwrap_err();
    let first: &dyn std::error::Error = &error;
    let mut chain = std::iter::successors(Some(first), |error| error.source());
    assert!(chain.any(|error| error.to_string().contains("record_bytes_max")), "{error:?}");
    append_durably(&mut store, entries(1, 1..2)).await.unwrap();
}

#[tokio::test]
async fn full_device_rejects_and_recovers() {
    let disk = Disk::new(1);
    let mut store = Medium::Disk(disk.clone()).open(tiny()).await.unwrap();
    append_durably(&mut store, entries(1, 1..2)).await.unwrap();
    disk.set_capacity_bytes(20 << 10);
    let mut next = 2;
    let error = loop {
        let large = vec![entry(1, next, "x".repeat(900))];
        match append(&mut store, large).await {
            Ok(called) => called.await.expect("it is called").unwrap(),
            Err(error) => break error,
        }
        next += 1;
        assert!(next < 1000, "the device is small");
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    disk.set_capacity_bytes(u64::MAX);
    append_durably(&mut store, entries(1, next..next + 1)).await.unwrap();
}

#[tokio::test]
async fn failed_read_is_reported_and_stops_nothing() {
    let disk = Disk::new(1);
    let mut store = Medium::Disk(disk.clone()).open(tiny()).await.unwrap();
    append_durably(&mut store, entries(1, 1..200)).await.unwrap();
    disk.faults().on(Op::Read).fail(io::ErrorKind::TimedOut);
    let error = store.try_get_log_entries(1..5).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    disk.faults().heal();
    assert_eq!(store.try_get_log_entries(1..5).await.unwrap(), entries(1, 1..5));
}

/// Bytes of another codec may decode by chance, so the entry must have the requested index.
#[tokio::test]
async fn bytes_of_another_entry_are_rejected() {
    use highwater_openraft::Codec;
    let medium = Medium::Memory(MemoryStorage::new());
    let mut store = medium.open(Store::options()).await.unwrap();
    let mut bytes = Vec::new();
    <Postcard as Codec<Types>>::encode_entry(&entry(1, 7, "x"), &mut bytes).unwrap();
    let mut raw = highwater::raft::Entries::new();
    raw.push(1, 0, &bytes);
    raw.push(2, 0, b"no entry at all");
    store.group().append(raw).await.unwrap().synced().await.unwrap();
    for index in 1..3 {
        let error = store.try_get_log_entries(index..=index).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }
    assert!(store.get_log_state().await.is_err());
}
