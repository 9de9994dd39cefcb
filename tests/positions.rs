//! The end of a record is a checkpoint: every stream continues there, without a gap or a duplicate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod support;

use futures::{Stream, StreamExt, TryStreamExt};
use highwater::{
    Compression, Error, LogSegment, Lsn, Reader, Record, Result, Wal,
    storage::{MemoryStorage, Storage},
};
use support::{PATIENCE, tiny, within};

type Found = Result<Vec<Lsn>>;

/// Returns the LSNs of the first `count` records, or the first error.
async fn first_of(stream: impl Stream<Item = Result<Record>>, count: usize) -> Found {
    let lsns = stream.map_ok(|record| record.lsn).take(count).try_collect();
    within("records", lsns).await
}

/// Continues at `position` by each stream of the log. Returns the LSNs, or the error.
async fn continued_in_log(wal: &Wal, position: Lsn, count: usize) -> Vec<(&'static str, Found)> {
    wal.sync().await.unwrap();
    vec![
        ("follow", first_of(wal.follow(position), count).await),
        ("follow_written", first_of(wal.follow_written(position), count).await),
        ("replay", first_of(wal.replay(position..), usize::MAX).await),
    ]
}

/// As [`continued_in_log`], and by the streams of a reader.
async fn continued_at(
    wal: &Wal,
    memory: &MemoryStorage,
    position: Lsn,
    count: usize,
) -> Vec<(&'static str, Found)> {
    let mut found = continued_in_log(wal, position, count).await;
    let reader = Reader::options().written(true).open_with(memory.clone()).await.unwrap();
    found.push(("Reader::follow", first_of(reader.follow(position), count).await));
    found.push(("Reader::replay", first_of(reader.replay(position..), usize::MAX).await));
    found
}

async fn assert_continued(wal: &Wal, memory: &MemoryStorage, position: Lsn, expected: &[Lsn]) {
    for (way, found) in continued_at(wal, memory, position, expected.len()).await {
        assert_eq!(found.unwrap_or_else(|error| panic!("{way}: {error}")), expected, "{way}");
    }
}

async fn all(wal: &Wal) -> Vec<Record> {
    wal.replay(..).try_collect().await.unwrap()
}

/// Appends records of many sizes, alone and in batches, with marks of the log between them.
async fn filled(wal: &Wal) -> Vec<Record> {
    let mut random = 1_u64;
    for number in 0..30_usize {
        let mut payload = vec![b'a'; 1 + number * 37 % 700];
        let incompressible = payload.len() / 2;
        payload[..incompressible].fill_with(|| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            (random >> 56) as u8
        });
        match number % 3 {
            0 => drop(wal.append_and_sync(payload).await.unwrap()),
            1 => drop(wal.append(payload).await.unwrap()),
            _ => drop(wal.append_batch([&payload[..], b"", b"two"]).await.unwrap()),
        }
    }
    all(wal).await
}

#[tokio::test]
async fn stream_continues_at_the_end_of_each_record() {
    for compression in [Compression::None, Compression::Lz4] {
        let memory = MemoryStorage::new();
        let options = tiny().compression(compression).compression_bytes_min(1);
        let wal = options.clone().open_with(memory.clone()).await.unwrap();
        let records = filled(&wal).await;
        let lsns: Vec<_> = records.iter().map(|record| record.lsn).collect();
        assert!(wal.stats().rotation_count > 0);
        for (number, record) in records.iter().enumerate().step_by(3) {
            assert_continued(&wal, &memory, record.end, &lsns[number + 1..]).await;
        }
        wal.close().await.unwrap();
        let again = options.open_with(memory.clone()).await.unwrap();
        for (number, record) in records.iter().enumerate().skip(1).step_by(7) {
            assert_continued(&again, &memory, record.end, &lsns[number + 1..]).await;
        }
    }
}

#[tokio::test]
async fn stream_position_is_the_end_of_its_last_record() {
    let memory = MemoryStorage::new();
    let wal = tiny().open_with(memory.clone()).await.unwrap();
    let records = filled(&wal).await;
    wal.sync().await.unwrap();
    let reader = Reader::options().written(true).open_with(memory).await.unwrap();
    let (mut replay, mut follow) = (wal.replay(..), wal.follow(Lsn::ZERO));
    let (mut reader_replay, mut tail) = (reader.replay(..), reader.follow(Lsn::ZERO));
    assert_eq!((replay.position(), follow.position()), (Lsn::ZERO, Lsn::ZERO));
    for record in &records {
        assert_eq!(replay.next().await.unwrap().unwrap().end, record.end);
        assert_eq!(follow.next().await.unwrap().unwrap().end, record.end);
        assert_eq!(reader_replay.next().await.unwrap().unwrap().end, record.end);
        assert_eq!(tail.next().await.unwrap().unwrap().end, record.end);
        let positions =
            [replay.position(), follow.position(), reader_replay.position(), tail.position()];
        assert_eq!(positions, [record.end; 4]);
        assert_eq!(wal.read(record.lsn).await.unwrap(), *record);
    }
}

#[tokio::test]
async fn consumer_that_saw_everything_is_never_refused() {
    let memory = MemoryStorage::new();
    let mut wal = tiny().open_with(memory.clone()).await.unwrap();
    for round in 0..24 {
        filled(&wal).await;
        wal.append_and_sync("last").await.unwrap();
        let seen = all(&wal).await.last().unwrap().end;
        if round % 2 == 1 {
            // The close, and the mark of the next process, are between two records.
            wal.close().await.unwrap();
            wal = tiny().open_with(memory.clone()).await.unwrap();
        }
        assert_continued(&wal, &memory, seen, &[]).await;
        if round % 3 == 2 {
            wal.truncate_before(wal.watermarks().reserved).await.unwrap();
            assert!(wal.watermarks().first >= seen);
            for (way, found) in continued_in_log(&wal, seen, 0).await {
                assert_eq!(found.unwrap_or_else(|error| panic!("{way}: {error}")), [], "{way}");
            }
        }
        let next = wal.append_and_sync("next").await.unwrap();
        assert_continued(&wal, &memory, seen, &[next]).await;
        wal.truncate_before(next).await.unwrap();
        // The segment may be removed, which a new reader can't know.
        for (way, found) in continued_in_log(&wal, seen, 1).await {
            assert_eq!(found.unwrap_or_else(|error| panic!("{way}: {error}")), [next], "{way}");
        }
        let later = wal.append_and_sync("later").await.unwrap();
        wal.truncate_before(later).await.unwrap();
        for (way, found) in continued_at(&wal, &memory, seen, 1).await {
            let is_missed = matches!(found, Err(Error::BelowFirst { lsn, first }) if lsn == seen && first == later);
            assert!(is_missed, "{way}: {found:?}");
        }
    }
}

/// The follower waits behind the last record. Before it is polled again, the log writes
/// control records, and is truncated behind them.
#[tokio::test]
async fn waiting_follower_passes_over_truncated_controls() {
    let wal = tiny().open_with(MemoryStorage::new()).await.unwrap();
    let mut seen = wal.append_and_sync("seen").await.unwrap();
    let mut follower = wal.follow(Lsn::ZERO);
    for _ in 0..50 {
        assert_eq!(within("a record", follower.next()).await.unwrap().unwrap().lsn, seen);
        assert!(futures::poll!(follower.next()).is_pending());
        // The truncation writes a record of the log, and the idle log a mark.
        wal.truncate_before(wal.watermarks().reserved).await.unwrap();
        wal.truncate_before(wal.watermarks().reserved).await.unwrap();
        let next = wal.append_and_sync(vec![0; 300]).await.unwrap();
        wal.truncate_before(next).await.unwrap();
        seen = next;
    }
    assert!(wal.stats().rotation_count > 2);
}

#[tokio::test]
async fn position_above_the_end_is_not_there_yet() {
    let memory = MemoryStorage::new();
    let wal = tiny().open_with(memory.clone()).await.unwrap();
    wal.append_and_sync("record").await.unwrap();
    let above = Lsn::new(1 << 20);
    for (way, found) in continued_at(&wal, &memory, above, 1).await {
        let end = match &found {
            Err(Error::AboveEnd { lsn, end }) if *lsn == above => *end,
            other => panic!("{way}: {other:?}"),
        };
        assert!(end >= wal.watermarks().reserved && end < above, "{way}: {end}");
    }
    let error = wal.read(above).await.unwrap_err();
    assert!(error.to_string().contains("not there yet"), "{error}");
}

#[tokio::test]
async fn segments_are_listed_without_reading() {
    let memory = MemoryStorage::new();
    let wal = tiny().open_with(memory.clone()).await.unwrap();
    let records = filled(&wal).await;
    let segments = wal.segments();
    assert_eq!(segments.len() as u64, wal.stats().segment_count);
    assert!(segments.len() > 2);
    assert_eq!(segments[0].start, Lsn::ZERO);
    assert!(segments.windows(2).all(|pair| pair[0].end == pair[1].start && pair[0].is_sealed));
    let newest = segments.last().unwrap();
    assert!(!newest.is_sealed);
    assert_eq!(newest.end, wal.watermarks().written);
    for segment in &segments {
        let names = memory.list().unwrap();
        assert!(names.contains(&segment.name), "{segment:?}");
        assert!(segment.file_bytes >= 8 << 10 && segment.age() < PATIENCE);
        let begins =
            records.iter().any(|record| (segment.start..segment.end).contains(&record.lsn));
        assert!(begins, "a record begins in each segment: {segment:?}");
    }
    let reader = Reader::options().written(true).open_with(memory.clone()).await.unwrap();
    assert_eq!(reader.segments(), segments);
    wal.close().await.unwrap();
    let again = tiny().open_with(memory).await.unwrap();
    let ranges = |segments: &[LogSegment]| segments.iter().map(|s| s.start).collect::<Vec<_>>();
    assert_eq!(ranges(&again.segments()), ranges(&segments));
    assert_eq!(again.segments()[0].created, segments[0].created);
    again.truncate_before(again.watermarks().reserved).await.unwrap();
    assert_eq!(again.segments().len(), 1);
}
