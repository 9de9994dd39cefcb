//! Typed records: encoded before any reservation, decoded completely or with an error.

use std::{error::Error as _, io};

use bytes::{BufMut, BytesMut};
use futures::{StreamExt, TryStreamExt};
use highwater::{
    Wal,
    simulation::{Disk, Simulation, Survival, for_each_seed},
    storage::MemoryStorage,
    typed::{Change, Error, KeyValue, Postcard, Typed},
};
use serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder, LinesCodec};

use crate::{
    closed, held, poisoned, runtimes,
    support::{assert_ring_is_whole, poll_and_drop, records, small, within},
};

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
enum Event {
    Opened { account: u64, owner: String },
    Paid { account: u64, cents: i64 },
    Nothing,
}

fn event(i: u64) -> Event {
    match i % 3 {
        0 => Event::Opened { account: i, owner: "x".repeat(usize::try_from(i).unwrap() % 50) },
        1 => Event::Paid { account: i, cents: -i64::try_from(i).unwrap() },
        _ => Event::Nothing,
    }
}

async fn memory() -> Wal {
    small().open_with(MemoryStorage::new()).await.unwrap()
}

#[test]
fn typed_records_are_read_back() {
    for runtime in runtimes() {
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let wal = small().open(directory.path()).await.unwrap();
            let events = wal.typed::<Event, Postcard<Event>>();
            let mut expected = Vec::new();
            for i in (0..40).step_by(4) {
                expected.push((events.append(event(i)).await.unwrap(), event(i)));
                // By reference, too.
                let synced = within("sync", events.append_and_sync(&event(i + 1))).await.unwrap();
                assert!(wal.watermarks().synced > synced);
                expected.push((synced, event(i + 1)));
                let ticket = events.enqueue(event(i + 2)).await.unwrap();
                within("written", ticket.written()).await.unwrap();
                expected.push((ticket.lsn(), event(i + 2)));
                let batch = events.append_batch([event(i + 3), event(i)]).await.unwrap();
                expected.push((batch.start, event(i + 3)));
            }
            for (lsn, event) in &expected {
                assert_eq!(events.read(*lsn).await.unwrap(), *event);
            }
            within("close", wal.close()).await.unwrap();
            let wal = small().open(directory.path()).await.unwrap();
            let events = wal.typed::<Event, Postcard<Event>>();
            let all: Vec<_> = events.replay(..).try_collect().await.unwrap();
            assert_eq!(all.len(), 50);
            assert!(expected.iter().all(|item| all.contains(item)));
            let later: Vec<_> = events.replay(expected[20].0..).try_collect().await.unwrap();
            assert_eq!(later[0], expected[20]);
            assert!(events.append_batch(Vec::<Event>::new()).await.unwrap().is_empty());
        });
    }
}

#[tokio::test]
async fn key_value_and_foreign_codecs_work() {
    let wal = memory().await;
    let changes: Typed<Change, KeyValue> = wal.typed();
    let all = [Change::put("k", "v"), Change::delete("k"), Change::NoOp, Change::put("", "")];
    let lsns = changes.append_batch(&all).await.unwrap();
    let found: Vec<_> =
        changes.replay(lsns.start..).map_ok(|item| item.1).try_collect().await.unwrap();
    assert_eq!(found, all);
    // A codec with settings, which encodes `&str` and decodes `String`.
    let wal = memory().await;
    let lines = wal.typed_with::<String, _>(LinesCodec::new_with_max_length(10));
    let lsn = lines.append("a line").await.unwrap();
    assert_eq!(lines.read(lsn).await.unwrap(), "a line");
    let lsn = wal.append("far more than ten characters").await.unwrap();
    assert!(matches!(lines.read(lsn).await.unwrap_err(), Error::Decode { .. }));
}

#[tokio::test]
async fn undecodable_record_is_an_error_with_its_lsn() {
    let wal = memory().await;
    let changes = wal.typed::<Change, KeyValue>();
    let first = changes.append(Change::NoOp).await.unwrap();
    let foreign = wal.append(b"\x77 is no change").await.unwrap();
    let empty = wal.append(b"").await.unwrap();
    let last = changes.append(Change::delete("k")).await.unwrap();
    let items: Vec<_> = changes.replay(..).collect().await;
    assert_eq!(items.len(), 4, "the stream must continue after errors");
    assert_eq!(items[0].as_ref().unwrap(), &(first, Change::NoOp));
    assert_eq!(items[3].as_ref().unwrap(), &(last, Change::delete("k")));
    for (item, at) in [(&items[1], foreign), (&items[2], empty)] {
        let error = item.as_ref().unwrap_err();
        assert!(matches!(error, Error::Decode { lsn, .. } if *lsn == at), "{error}");
        assert!(error.to_string().contains(&format!("LSN {at}")), "{error}");
        assert!(error.source().is_some());
        assert_eq!(changes.read(at).await.unwrap_err().to_string(), error.to_string());
    }
    assert!(format!("{:#}", items[1].as_ref().unwrap_err()).contains("0x77"));
    // A payload with extra bytes, or with too few, is an error.
    let numbers = wal.typed::<u32, Postcard<u32>>();
    for payload in [&b"\x05rest"[..], b"\x80", b""] {
        let lsn = wal.append(payload).await.unwrap();
        let error = numbers.read(lsn).await.unwrap_err();
        assert!(matches!(error, Error::Decode { .. }), "{error}");
    }
    // The log still works.
    assert!(!wal.append(b"x").await.is_err_and(|error| error.is_poisoned()));
}

/// A codec that fails or panics on certain items.
#[derive(Clone, Default)]
struct FailingCodec;

impl Encoder<&str> for FailingCodec {
    type Error = io::Error;
    fn encode(&mut self, item: &str, to: &mut BytesMut) -> io::Result<()> {
        to.put_slice(item.as_bytes());
        match item {
            "fail" => Err(io::Error::other("encoding failed")),
            "panic" => panic!("a codec that panics"),
            _ => Ok(()),
        }
    }
}

impl Decoder for FailingCodec {
    type Item = String;
    type Error = io::Error;
    fn decode(&mut self, from: &mut BytesMut) -> io::Result<Option<String>> {
        Ok(Some(String::from_utf8_lossy(&from.split()).into_owned()))
    }
}

#[tokio::test]
async fn failing_codec_reserves_nothing() {
    let wal = memory().await;
    let typed = wal.typed::<String, FailingCodec>();
    let errors = [
        typed.append("fail").await.unwrap_err(),
        typed.append_and_sync("fail").await.unwrap_err(),
        typed.enqueue("fail").await.unwrap_err(),
        typed.append_batch(["good", "fail"]).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::Encode { .. }), "{error}");
        assert!(format!("{error:#}").contains("encoding failed"), "{error}");
    }
    let panics = tokio::spawn({
        let typed = typed.clone();
        async move { typed.append("panic").await }
    });
    assert!(panics.await.unwrap_err().is_panic());
    assert_eq!(wal.watermarks().reserved.as_u64(), 0, "a failed encoding must reserve nothing");
    let lsn = typed.append("good").await.unwrap();
    assert_eq!(typed.read(lsn).await.unwrap(), "good");
    assert_ring_is_whole(&wal).await;
}

#[tokio::test]
async fn dropped_it_is_there_whole_or_not_at_all() {
    let item = || Event::Paid { account: 1, cents: 2 };
    for polls in 0..=4 {
        for operation in 0..4 {
            let (wal, _memory, writes) = held().await;
            let events = wal.typed::<Event, Postcard<Event>>();
            let step = |_| writes.allow(1);
            let returned = match operation {
                0 => poll_and_drop(events.append(item()), polls, step).map(|done| done.is_ok()),
                1 => poll_and_drop(events.append_and_sync(item()), polls, step)
                    .map(|done| done.is_ok()),
                2 => poll_and_drop(events.enqueue(item()), polls, step).map(|done| done.is_ok()),
                _ => poll_and_drop(events.append_batch([item()]), polls, step)
                    .map(|done| done.is_ok()),
            };
            writes.open();
            within("sync", wal.sync()).await.unwrap();
            let found = records(&wal).await.len() - 1;
            assert_eq!(
                found,
                usize::from(polls >= 2),
                "{operation} {polls}: the first poll waits for space"
            );
            assert!(returned.is_none_or(|is_ok| is_ok && found == 1));
            assert_ring_is_whole(&wal).await;
        }
    }
}

#[tokio::test]
async fn typed_calls_fail_on_stopped_log() {
    let wal = poisoned().await;
    let changes = wal.typed::<Change, KeyValue>();
    assert!(changes.append(Change::NoOp).await.unwrap_err().is_poisoned());
    assert!(changes.append_and_sync(Change::NoOp).await.unwrap_err().is_poisoned());
    assert!(changes.enqueue(Change::NoOp).await.unwrap_err().is_poisoned());
    assert!(changes.append_batch([Change::NoOp]).await.unwrap_err().is_poisoned());
    let items: Vec<_> = changes.replay(..).collect().await;
    assert!(
        items.iter().all(|item| matches!(item, Err(Error::Decode { .. }))),
        "reading must work"
    );
    let changes = closed().await.typed::<Change, KeyValue>();
    assert!(changes.append(Change::NoOp).await.unwrap_err().is_closed());
    assert!(changes.replay(..).next().await.unwrap().unwrap_err().is_closed());
}

/// A map rebuilt after a power cut is the map at some time after the last sync.
#[test]
fn map_is_rebuilt_as_it_was_synced() {
    for_each_seed(20, |seed| {
        let disk = Disk::new(seed);
        let crashed = Simulation::new(seed).run(async {
            let wal = small().open_with(disk.clone()).await.unwrap();
            let changes = wal.typed::<Change, KeyValue>();
            for i in 0..30u8 {
                changes.append(Change::put(vec![i % 7], vec![i])).await.unwrap();
            }
            changes.append_and_sync(Change::delete(vec![3])).await.unwrap();
            changes.append(Change::delete(vec![4])).await.unwrap();
            disk.crash(Survival::Nothing)
        });
        let found = Simulation::new(seed).run(async {
            let wal = small().open_with(crashed).await.unwrap();
            let changes = wal.typed::<Change, KeyValue>().replay(..);
            changes.map_ok(|(_, change)| change).try_collect::<Vec<_>>().await.unwrap()
        });
        assert!(found.len() >= 31, "seed {seed}");
        assert_eq!(found[29], Change::put(vec![1], vec![29]));
        assert_eq!(found[30], Change::delete(vec![3]));
    });
}

/// Every way to write and to read items.
#[tokio::test]
async fn typed_log_offers_what_the_log_offers() {
    use futures::{FutureExt, SinkExt};
    use highwater::{Durability, Reader, Start, typed::TypedRecovered};

    let storage = MemoryStorage::new();
    let wal = small().open_with(storage.clone()).await.unwrap();
    let events = wal.typed::<Event, Postcard<Event>>();
    let appended = events.append_with(event(0), Durability::Synced).await.unwrap();
    assert!(appended.synced);
    events.try_enqueue(&event(1)).unwrap().synced().await.unwrap();
    let mut sink = events.sink();
    sink.feed(event(2)).await.unwrap();
    sink.send(event(3)).await.unwrap();
    let unreadable = wal.append_and_sync(b"\x77").await.unwrap();
    events.append_and_sync(event(4)).await.unwrap();

    let mut follow = events.follow(wal.watermarks().first);
    for number in 0..4 {
        assert_eq!(follow.next().await.unwrap().unwrap().1, event(number));
    }
    let refused = follow.next().await.unwrap();
    assert!(matches!(refused, Err(Error::Decode { lsn, .. }) if lsn == unreadable));
    assert_eq!(follow.next().await.unwrap().unwrap().1, event(4));
    assert!(follow.next().now_or_never().is_none());
    let checkpoint = follow.records().position();
    let last = events.append_and_sync(event(5)).await.unwrap();
    let again = events.follow(checkpoint).next().await.unwrap().unwrap();
    assert_eq!(again, (last, event(5)));
    let after = events.follow(Start::After(unreadable)).next().await.unwrap().unwrap();
    assert_eq!(after.1, event(4));
    let record = wal.read(last).await.unwrap();
    assert_eq!(events.decode(&record).unwrap(), event(5));
    let bad = wal.read(unreadable).await.unwrap();
    assert!(matches!(events.decode(&bad), Err(Error::Decode { .. })));
    let reader = Reader::options().written(true).open_with(storage.clone()).await.unwrap();
    let read: Vec<_> = events.decode_all(reader.replay(last..)).try_collect().await.unwrap();
    assert_eq!(read, [(last, event(5))]);
    wal.close().await.unwrap();

    let recovery = small().recover_with(storage).await.unwrap();
    let mut recovery = recovery.typed::<Event, Postcard<Event>>();
    assert!(recovery.report().was_closed);
    let (mut found, mut refused) = (Vec::new(), 0);
    while let Some(item) = recovery.next().await {
        match item {
            Ok(TypedRecovered::Item(_, event)) => found.push(event),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(matches!(error, Error::Decode { lsn, .. } if lsn == unreadable));
                refused += 1;
            }
        }
    }
    assert_eq!((found, refused), ((0..6).map(event).collect(), 1));
    let events = recovery.into_typed().await.unwrap();
    events.append(event(6)).await.unwrap();
}

#[tokio::test]
async fn typed_sink_refuses_unencodable_item_and_goes_on() {
    use futures::SinkExt;

    let wal = memory().await;
    let names = wal.typed::<String, FailingCodec>();
    let mut sink = names.sink();
    sink.feed("before").await.unwrap();
    assert!(matches!(sink.feed("fail").await, Err(Error::Encode { .. })));
    sink.send("after").await.unwrap();
    let all: Vec<_> = names.replay(..).map_ok(|item| item.1).try_collect().await.unwrap();
    assert_eq!(all, ["before", "after"]);
}

#[tokio::test]
async fn state_of_the_log_can_be_serialized() {
    let wal = memory().await;
    wal.append_and_sync("record").await.unwrap();
    let marks = wal.watermarks();
    let bytes = postcard::to_allocvec(&(marks, marks.synced)).unwrap();
    let back: (highwater::Watermarks, highwater::Lsn) = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(back, (marks, marks.synced));
    postcard::to_allocvec(&wal.stats()).unwrap();
    postcard::to_allocvec(&wal.segments()).unwrap();
}
