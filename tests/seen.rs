//! A consumer resumes after the last record it has seen, also if that record was truncated since.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod support;

use std::ops::Bound::{Excluded, Unbounded};

use futures::{Stream, StreamExt, TryStreamExt};
use highwater::{
    Error, Lsn, Reader, Record, Result, Start, Wal,
    storage::MemoryStorage,
    typed::{Change, KeyValue},
};
use support::{records, small, within};

type Found = Result<Vec<Lsn>>;

/// Returns the LSNs of the first `count` records, or the first error.
async fn first_of(stream: impl Stream<Item = Result<Record>>, count: usize) -> Found {
    let lsns = stream.map_ok(|record| record.lsn).take(count).try_collect();
    within("records", lsns).await
}

/// Resumes after `seen` by each kind of stream. Returns the LSNs, or the error.
async fn resumed_after(wal: &Wal, seen: Lsn, count: usize) -> Vec<(&'static str, Found)> {
    wal.sync().await.unwrap();
    vec![
        ("follow", first_of(wal.follow(Start::After(seen)), count).await),
        ("follow_written", first_of(wal.follow_written(Start::After(seen)), count).await),
        ("replay", first_of(wal.replay((Excluded(seen), Unbounded)), usize::MAX).await),
    ]
}

async fn reader_resumed_after(
    reader: &Reader,
    seen: Lsn,
    count: usize,
) -> Vec<(&'static str, Found)> {
    reader.refresh().await.unwrap();
    vec![
        ("Reader::follow", first_of(reader.follow(Start::After(seen)), count).await),
        ("Reader::replay", first_of(reader.replay((Excluded(seen), Unbounded)), usize::MAX).await),
    ]
}

fn assert_resumed(all: Vec<(&'static str, Found)>, expected: &[Lsn]) {
    for (way, found) in all {
        assert_eq!(found.unwrap_or_else(|error| panic!("{way}: {error}")), expected, "{way}");
    }
}

fn assert_missed(all: Vec<(&'static str, Found)>) {
    for (way, found) in all {
        assert!(matches!(found, Err(Error::BelowFirst { .. })), "{way}: {found:?}");
    }
}

#[tokio::test]
async fn stream_resumes_after_truncated_record() {
    let memory = MemoryStorage::new();
    let wal = small().open_with(memory.clone()).await.unwrap();
    let reader = Reader::options().written(true).open_with(memory.clone()).await.unwrap();
    let a = wal.append_and_sync("a").await.unwrap();
    let x = wal.append_and_sync("x").await.unwrap();
    let b = wal.append_and_sync("b").await.unwrap();
    let c = wal.append_and_sync("c").await.unwrap();
    assert_resumed(resumed_after(&wal, x, 2).await, &[b, c]);
    wal.truncate_before(b).await.unwrap();
    assert_resumed(resumed_after(&wal, x, 2).await, &[b, c]);
    assert_resumed(reader_resumed_after(&reader, x, 2).await, &[b, c]);
    assert_resumed(resumed_after(&wal, b, 1).await, &[c]);
    assert_resumed(reader_resumed_after(&reader, b, 1).await, &[c]);
    // A consumer that has seen only `a` has missed `x`.
    assert_missed(resumed_after(&wal, a, 1).await);
    assert_missed(reader_resumed_after(&reader, a, 1).await);
    // An LSN as a start means "not yet seen", so `x` is missed.
    assert!(matches!(first_of(wal.follow(x), 1).await, Err(Error::BelowFirst { .. })));
    assert!(matches!(first_of(wal.replay(x..), 1).await, Err(Error::BelowFirst { .. })));
    // No record begins at this LSN.
    assert_missed(resumed_after(&wal, Lsn::new(x.as_u64() + 8), 1).await);
    wal.close().await.unwrap();
    let again = small().open_with(memory).await.unwrap();
    assert_resumed(resumed_after(&again, x, 2).await, &[b, c]);
    assert_missed(resumed_after(&again, a, 1).await);
}

#[tokio::test]
async fn typed_replay_resumes_after_seen_record() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let changes = wal.typed::<Change, KeyValue>();
    let a = changes.append(Change::delete("a")).await.unwrap();
    let b = changes.append_and_sync(Change::delete("b")).await.unwrap();
    wal.truncate_before(b).await.unwrap();
    let found: Vec<_> = changes.replay((Excluded(a), Unbounded)).try_collect().await.unwrap();
    assert_eq!(found, [(b, Change::delete("b"))]);
}

#[tokio::test]
async fn stream_of_emptied_log_yields_later_records() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let a = wal.append_and_sync("a").await.unwrap();
    wal.truncate_before(wal.watermarks().reserved).await.unwrap();
    let replayed = first_of(wal.replay((Excluded(a), Unbounded)), 9).await;
    assert_eq!(replayed.unwrap(), []);
    let follower = wal.follow(Start::After(a));
    let b = wal.append_and_sync("b").await.unwrap();
    assert_eq!(first_of(follower, 1).await.unwrap(), [b]);
}

/// The segment of the seen record has been removed.
#[tokio::test]
async fn stream_resumes_after_record_of_removed_segment() {
    for bytes in [100, 900, 3000] {
        let wal = small().open_with(MemoryStorage::new()).await.unwrap();
        let mut lsns = vec![wal.append_and_sync(vec![0; bytes]).await.unwrap()];
        let mut boundaries = Vec::new();
        while boundaries.len() < 3 {
            let rotations = wal.stats().rotation_count;
            lsns.push(wal.append_and_sync(vec![1; bytes]).await.unwrap());
            if wal.stats().rotation_count > rotations {
                boundaries.push(lsns.len() - 1);
            }
        }
        for place in boundaries {
            let (before, seen, next) = (lsns[place - 2], lsns[place - 1], lsns[place]);
            wal.truncate_before(next).await.unwrap();
            assert!(wal.read(seen).await.is_err());
            let count = lsns.len() - place;
            assert_resumed(resumed_after(&wal, seen, count).await, &lsns[place..]);
            assert_missed(resumed_after(&wal, before, 1).await);
        }
    }
}

#[tokio::test]
async fn stream_resumes_after_last_record_of_batch() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let batch = wal.append_batch(["one", "two"]).await.unwrap();
    let two = records(&wal).await[1].0;
    let next = wal.append_and_sync("next").await.unwrap();
    wal.truncate_before(next).await.unwrap();
    assert_resumed(resumed_after(&wal, two, 1).await, &[next]);
    assert_missed(resumed_after(&wal, batch.start, 1).await);
}

#[tokio::test]
async fn follower_resumes_after_later_truncation() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let a = wal.append_and_sync("a").await.unwrap();
    let b = wal.append_and_sync("b").await.unwrap();
    let follower = wal.follow(Start::After(a));
    wal.truncate_before(b).await.unwrap();
    assert_eq!(first_of(follower, 1).await.unwrap(), [b]);
}

#[tokio::test]
async fn cut_of_the_seen_record_is_reported() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let a = wal.append_and_sync("a").await.unwrap();
    let b = wal.append_and_sync("b").await.unwrap();
    let c = wal.append_and_sync("c").await.unwrap();
    let (mut kept, mut taken) = (wal.follow(Start::After(b)), wal.follow(Start::After(c)));
    let end = wal.truncate_after(b).await.unwrap();
    let other = wal.append_and_sync("other").await.unwrap();
    assert!(other == end && end <= c);
    assert_eq!(within("kept", kept.next()).await.unwrap().unwrap().lsn, other);
    let cut = within("taken", taken.next()).await.unwrap();
    assert!(matches!(cut, Err(Error::Truncated { to }) if to == end), "{cut:?}");
    assert_eq!(within("taken", taken.next()).await.unwrap().unwrap().lsn, other);
    assert!(a < b);
}
