//! Streams entries while the log is purged, truncated and taken over by another leader.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::{StreamExt, TryStreamExt};
use highwater::storage::MemoryStorage;
use openraft::{
    RaftLogReader, Vote,
    storage::{LeaderBoundedStreamError, RaftLogStorage},
    type_config::alias::LeaderIdOf,
    vote::RaftLeaderId,
};

use crate::{
    medium::{Medium, Store, append, append_durably, entries, log_id, tiny},
    state_machine::Types,
};

async fn store_of(term: u64, end: u64) -> Store {
    let mut store = Medium::Memory(MemoryStorage::new()).open(tiny()).await.unwrap();
    store.save_vote(&Vote::new_committed(term, 1)).await.unwrap();
    append_durably(&mut store, entries(term, 1..end)).await.unwrap();
    // About ten entries at a time.
    store.read_bytes_max(100)
}

fn leader(term: u64) -> LeaderIdOf<Types> {
    LeaderIdOf::<Types>::new(term, 1)
}

#[tokio::test]
async fn stream_yields_all_entries_in_order() {
    let mut store = store_of(1, 200).await;
    for range in [1..200, 1..1, 50..70, 150..900, 0..3] {
        let inside = range.start.max(1)..range.end.min(200);
        let all: Vec<_> = store.entries_stream(range).await.try_collect().await.unwrap();
        assert_eq!(all, entries(1, inside));
    }
    store.purge(log_id(1, 60)).await.unwrap();
    let all: Vec<_> = store.entries_stream(..).await.try_collect().await.unwrap();
    assert_eq!(all, entries(1, 61..200));
    let all: Vec<_> = store.try_get_log_entries(..=70).await.unwrap();
    assert_eq!(all, entries(1, 61..71));
}

#[tokio::test]
async fn stream_never_has_a_gap() {
    let mut store = store_of(1, 200).await;
    let mut purger = store.clone();
    let mut stream = Box::pin(store.entries_stream(1..200).await);
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(first.log_id.index, 1);
    purger.purge(log_id(1, 150)).await.unwrap();
    let mut next = 2;
    let error = loop {
        match stream.next().await.expect("it doesn't just end") {
            Ok(entry) => assert_eq!(entry.log_id.index, next),
            Err(error) => break error,
        }
        next += 1;
    };
    assert!(next < 150 && error.to_string().contains("purged"), "{error}");
    assert!(stream.next().await.is_none());
    // A message to a follower has no gap either.
    assert!(purger.limited_get_log_entries(100, 200).await.is_err());
}

#[tokio::test]
async fn leader_bounded_stream_ends_with_its_vote() {
    let mut store = store_of(2, 200).await;
    let all: Vec<_> =
        store.leader_bounded_stream(leader(2), 1..200).await.try_collect().await.unwrap();
    assert_eq!(all, entries(2, 1..200));

    let changed = |item| {
        let Some(Err(LeaderBoundedStreamError::LeaderChanged(changed))) = item else {
            panic!("{item:?}");
        };
        changed.current_vote
    };
    let mut stream = Box::pin(store.leader_bounded_stream(leader(1), 1..200).await);
    assert_eq!(changed(stream.next().await), Some(Vote::new_committed(2, 1)));
    assert!(stream.next().await.is_none());
    drop(stream);

    let mut other = store.clone();
    let mut stream = Box::pin(store.leader_bounded_stream(leader(2), 1..200).await);
    assert_eq!(stream.next().await.unwrap().unwrap().log_id.index, 1);
    // Another leader overwrites entries that the stream has not yielded yet.
    other.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
    other.truncate_after(Some(log_id(2, 5))).await.unwrap();
    append_durably(&mut other, entries(3, 6..300)).await.unwrap();
    let mut next = 2;
    let end = loop {
        match stream.next().await {
            Some(Ok(entry)) => {
                assert_eq!((entry.log_id.leader_id.term, entry.log_id.index), (2, next))
            }
            end => break end,
        }
        next += 1;
    };
    assert_eq!(changed(end), Some(Vote::new_committed(3, 1)));
}

/// Readers beside a writer see a range without gaps, with all committed entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn readers_beside_a_writer_see_no_gap() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Medium::Directory(directory.path().into()).open(tiny()).await.unwrap();
    append_durably(&mut store, entries(1, 1..100)).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (mut reader, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move {
                let mut count = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    let read = reader.try_get_log_entries(..).await.unwrap();
                    for pair in read.windows(2) {
                        assert_eq!(pair[0].log_id.index + 1, pair[1].log_id.index);
                        assert!(pair[0].log_id.leader_id <= pair[1].log_id.leader_id);
                    }
                    count += 1;
                }
                count
            })
        })
        .collect();
    let (mut next, mut first) = (100, 1);
    for term in 2..150 {
        drop(append(&mut store, entries(term, next..next + 10)).await.unwrap());
        next += 10;
        store.truncate_after(Some(log_id(term, next - 4))).await.unwrap();
        next -= 3;
        let read = store.try_get_log_entries(next - 7..).await.unwrap();
        assert_eq!(read, entries(term, next - 7..next));
        if term % 5 == 0 {
            first += 30;
            store.purge(log_id(1, first - 1)).await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
}
