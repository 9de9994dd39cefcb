//! Records of a type of one's own: encoded before anything is reserved, decoded whole or an error.

use std::{error::Error as _, io};

use bytes::{BufMut, BytesMut};
use futures::{StreamExt, TryStreamExt};
use highwater::{
    Error, Wal,
    simulation::{Disk, Simulation, Survival, for_each_seed},
    storage::MemoryStorage,
    typed::{Change, KeyValue, Postcard, Typed},
};
use serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder, LinesCodec};

use crate::{
    closed, held, poisoned, poll_and_drop, runtimes,
    support::{assert_ring_is_whole, records, small, within},
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
fn what_was_written_as_a_type_is_read_as_it() {
    for runtime in runtimes() {
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let wal = small().open(directory.path()).await.unwrap();
            let events = wal.typed::<Event, Postcard<Event>>();
            let mut expected = Vec::new();
            for i in (0..40).step_by(4) {
                expected.push((events.append(event(i)).await.unwrap(), event(i)));
                // By reference as well.
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
async fn changes_of_a_map_and_foreign_codecs_work() {
    let wal = memory().await;
    let changes: Typed<Change, KeyValue> = wal.typed();
    let all = [Change::put("k", "v"), Change::delete("k"), Change::NoOp, Change::put("", "")];
    let lsns = changes.append_batch(&all).await.unwrap();
    let found: Vec<_> =
        changes.replay(lsns.start..).map_ok(|item| item.1).try_collect().await.unwrap();
    assert_eq!(found, all);
    // One with settings, and `&str` as what it encodes and `String` as what it gives.
    let wal = memory().await;
    let lines = wal.typed_with::<String, _>(LinesCodec::new_with_max_length(10));
    let lsn = lines.append("a line").await.unwrap();
    assert_eq!(lines.read(lsn).await.unwrap(), "a line");
    let lsn = wal.append("far more than ten characters").await.unwrap();
    assert!(matches!(lines.read(lsn).await.unwrap_err(), Error::Decode { .. }));
}

#[tokio::test]
async fn a_record_that_the_codec_cannot_read_is_an_item_that_says_where() {
    let wal = memory().await;
    let changes = wal.typed::<Change, KeyValue>();
    let first = changes.append(Change::NoOp).await.unwrap();
    let foreign = wal.append(b"\x77 is no change").await.unwrap();
    let empty = wal.append(b"").await.unwrap();
    let last = changes.append(Change::delete("k")).await.unwrap();
    let items: Vec<_> = changes.replay(..).collect().await;
    assert_eq!(items.len(), 4, "it goes on behind them");
    assert_eq!(items[0].as_ref().unwrap(), &(first, Change::NoOp));
    assert_eq!(items[3].as_ref().unwrap(), &(last, Change::delete("k")));
    for (item, at) in [(&items[1], foreign), (&items[2], empty)] {
        let error = item.as_ref().unwrap_err();
        assert!(matches!(error, Error::Decode { lsn, .. } if *lsn == at), "{error}");
        assert!(error.to_string().contains(&format!("LSN {at}")), "{error}");
        assert!(error.source().is_some());
        assert_eq!(changes.read(at).await.unwrap_err().to_string(), error.to_string());
    }
    assert!(items[1].as_ref().unwrap_err().to_string().contains("0x77"));
    // More than an item: the rest isn't dropped in silence. Less than one.
    let numbers = wal.typed::<u32, Postcard<u32>>();
    for payload in [&b"\x05rest"[..], b"\x80", b""] {
        let lsn = wal.append(payload).await.unwrap();
        let error = numbers.read(lsn).await.unwrap_err();
        assert!(matches!(error, Error::Decode { .. }), "{error}");
    }
    // The log is as good as before.
    assert!(!wal.append(b"x").await.is_err_and(|error| error.is_poisoned()));
}

/// Fails, or panics, on what it is told to.
#[derive(Clone, Default)]
struct Moody;

impl Encoder<&str> for Moody {
    type Error = io::Error;
    fn encode(&mut self, item: &str, to: &mut BytesMut) -> io::Result<()> {
        to.put_slice(item.as_bytes());
        match item {
            "fail" => Err(io::Error::other("not today")),
            "panic" => panic!("a codec that panics"),
            _ => Ok(()),
        }
    }
}

impl Decoder for Moody {
    type Item = String;
    type Error = io::Error;
    fn decode(&mut self, from: &mut BytesMut) -> io::Result<Option<String>> {
        Ok(Some(String::from_utf8_lossy(&from.split()).into_owned()))
    }
}

#[tokio::test]
async fn a_codec_that_fails_or_panics_leaves_nothing_behind() {
    let wal = memory().await;
    let moody = wal.typed::<String, Moody>();
    let errors = [
        moody.append("fail").await.unwrap_err(),
        moody.append_and_sync("fail").await.unwrap_err(),
        moody.enqueue("fail").await.unwrap_err(),
        moody.append_batch(["good", "fail"]).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::Encode { .. }), "{error}");
        assert!(error.to_string().contains("not today"), "{error}");
    }
    let panics = tokio::spawn({
        let moody = moody.clone();
        async move { moody.append("panic").await }
    });
    assert!(panics.await.unwrap_err().is_panic());
    assert_eq!(wal.watermarks().reserved.as_u64(), 0, "nothing was reserved");
    let lsn = moody.append("good").await.unwrap();
    assert_eq!(moody.read(lsn).await.unwrap(), "good");
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
            let answered = match operation {
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
            assert_eq!(found, usize::from(polls >= 2), "{operation} {polls}: room first");
            assert!(answered.is_none_or(|is_ok| is_ok && found == 1));
            assert_ring_is_whole(&wal).await;
        }
    }
}

#[tokio::test]
async fn a_log_that_stopped_says_so() {
    let wal = poisoned().await;
    let changes = wal.typed::<Change, KeyValue>();
    assert!(changes.append(Change::NoOp).await.unwrap_err().is_poisoned());
    assert!(changes.append_and_sync(Change::NoOp).await.unwrap_err().is_poisoned());
    assert!(changes.enqueue(Change::NoOp).await.unwrap_err().is_poisoned());
    assert!(changes.append_batch([Change::NoOp]).await.unwrap_err().is_poisoned());
    let items: Vec<_> = changes.replay(..).collect().await;
    assert!(items.iter().all(|item| matches!(item, Err(Error::Decode { .. }))), "reading goes on");
    let changes = closed().await.typed::<Change, KeyValue>();
    assert!(changes.append(Change::NoOp).await.unwrap_err().is_closed());
    assert!(changes.replay(..).next().await.unwrap().unwrap_err().is_closed());
}

/// A map rebuilt from what a loss of power left is the map at some point behind the last sync.
#[test]
fn a_map_comes_back_as_it_was_synced() {
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
