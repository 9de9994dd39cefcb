//! Reads appended entries from memory. They must be exactly the entries of the log.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures::TryStreamExt;
use highwater::{raft::RaftOptions, simulation::Random, storage::MemoryStorage};
use highwater_openraft::{
    Codec, LogStore, Postcard,
    codec::{CodecError, Copier},
};
use openraft::{
    RaftLogReader, Vote,
    storage::{IOFlushed, RaftLogStorage},
    type_config::alias::{EntryOf, LeaderIdOf, LogIdOf, VoteOf},
    vote::RaftLeaderId,
};

use crate::{
    doctored::{Doctored, Mistake},
    medium::{Medium, Store, append, append_durably, entries, log_id},
    state_machine::Types,
};

/// The expected terms of the entries, from `first` on.
#[derive(Clone, Debug)]
struct Model {
    first: u64,
    terms: Vec<u64>,
}

impl Model {
    fn next(&self) -> u64 {
        self.first + self.terms.len() as u64
    }

    fn entries(&self, range: Range<u64>) -> Vec<EntryOf<Types>> {
        let all = (self.first..).zip(&self.terms);
        let inside = all.filter(|(index, _)| range.contains(index));
        inside.flat_map(|(index, term)| entries(*term, index..index + 1)).collect()
    }
}

/// Changes the log through one of its stores.
async fn change<S: RaftLogStorage<Types>>(
    store: &mut S,
    model: &mut Model,
    random: &mut Random,
    term: u64,
) {
    let (next, count) = (model.next(), 1 + random.below(6) as u64);
    match random.below(8) {
        0..5 => {
            drop(append(store, entries(term, next..next + count)).await.unwrap());
            model.terms.extend((0..count).map(|_| term));
        }
        5 | 6 if !model.terms.is_empty() => {
            let kept = random.below(model.terms.len()).max(model.terms.len().saturating_sub(9));
            model.terms.truncate(kept);
            let last = (model.next() - 1, model.terms.last().copied().unwrap_or_default());
            store.truncate_after(Some(log_id(last.1, last.0))).await.unwrap();
        }
        _ if model.terms.len() > 12 => {
            let gone = model.terms.len() - 10;
            store
                .purge(log_id(model.terms[gone - 1], model.first + gone as u64 - 1))
                .await
                .unwrap();
            model.terms.drain(..gone);
            model.first += gone as u64;
        }
        _ => {}
    }
}

/// Checks each way of reading a range.
async fn reads<S: RaftLogReader<Types>>(
    store: &mut S,
    range: Range<u64>,
) -> [Vec<EntryOf<Types>>; 4] {
    let all = store.try_get_log_entries(range.clone()).await.unwrap();
    let streamed = store.entries_stream(range.clone()).await.try_collect().await.unwrap();
    let leader = LeaderIdOf::<Types>::new(1 << 40, 1);
    let bounded = store.leader_bounded_stream(leader, range.clone()).await;
    let bounded = bounded.try_collect().await.unwrap();
    let limited = store.limited_get_log_entries(range.start, range.end).await.unwrap_or_default();
    [all, streamed, bounded, limited]
}

async fn check<S: RaftLogReader<Types>>(
    store: &mut S,
    model: &Model,
    range: Range<u64>,
) -> Result<(), String> {
    let expected = model.entries(range.clone());
    let [all, streamed, bounded, limited] = reads(store, range.clone()).await;
    let is_limited = match range.start < model.first {
        true => limited.is_empty(),
        false => expected.starts_with(&limited) && limited.is_empty() == expected.is_empty(),
    };
    match all == expected && streamed == expected && bounded == expected && is_limited {
        true => Ok(()),
        false => {
            Err(format!("{range:?} of {model:?}: {all:?} {streamed:?} {bounded:?} {limited:?}"))
        }
    }
}

fn options(seed: u64) -> RaftOptions {
    Store::options().tail_cache_bytes([0, 700, 4000, 1 << 20][seed as usize % 4])
}

/// Compares a model with two stores over one group, each with a clone.
async fn begin(seed: u64) -> (Model, [Store; 4]) {
    let log = Medium::Memory(MemoryStorage::new()).open_log(options(seed)).await.unwrap();
    let mut one = Store::of_group(log.group(7)).unwrap();
    let two = Store::of_group(log.group(7)).unwrap().read_bytes_max(60);
    one.save_vote(&Vote::new_committed(1 << 40, 1)).await.unwrap();
    (Model { first: 1, terms: Vec::new() }, [one.clone(), one, two.clone(), two])
}

fn range(random: &mut Random, model: &Model) -> Range<u64> {
    let low = model.first.saturating_sub(3);
    let start = low + random.below((model.next() - low + 3) as usize) as u64;
    start..start + random.below(20) as u64
}

#[tokio::test]
async fn two_stores_over_one_group_match_the_log() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let (mut model, mut stores) = begin(seed).await;
        // The first entry of an empty log may have any index.
        append_durably(&mut stores[0], entries(1, 1..2)).await.unwrap();
        model.terms.push(1);
        for term in 1..150 {
            change(&mut stores[random.below(4)], &mut model, &mut random, term).await;
            let range = range(&mut random, &model);
            check(&mut stores[random.below(4)], &model, range).await.unwrap();
        }
        check(&mut stores[random.below(4)], &model, 0..u64::MAX).await.unwrap();
    }
}

/// The check detects a cache that is not updated at truncations.
#[tokio::test]
async fn store_that_reads_truncated_entries_is_caught() {
    let mut caught = 0;
    for seed in 0..10 {
        let mut random = Random::new(seed);
        let (mut model, [store, ..]) = begin(seed).await;
        let mut store = Doctored::new(store, Mistake::ReadsWhatWasTruncated);
        append_durably(&mut store, entries(1, 1..2)).await.unwrap();
        model.terms.push(1);
        let mut is_caught = false;
        for term in 1..100 {
            change(&mut store, &mut model, &mut random, term).await;
            let range = range(&mut random, &model);
            let read = store.try_get_log_entries(range.clone()).await.unwrap();
            is_caught |= read != model.entries(range);
        }
        caught += u64::from(is_caught);
    }
    assert_eq!(caught, 10);
}

/// Terms ascend along the log at every moment, so a mix of two moments is detected.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn readers_beside_truncations_see_one_moment() {
    for cache_bytes in [2000, 1 << 20] {
        let options = Store::options().tail_cache_bytes(cache_bytes);
        let mut store = Medium::Memory(MemoryStorage::new()).open(options).await.unwrap();
        append_durably(&mut store, entries(1, 1..30)).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..2)
            .map(|number| {
                let stop = Arc::clone(&stop);
                let group = store.group().clone();
                let mut reader = [store.clone(), Store::of_group(group).unwrap()][number].clone();
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let read = reader.try_get_log_entries(5..).await.unwrap();
                        assert_eq!(read.first().map(|entry| entry.log_id.index), Some(5));
                        for pair in read.windows(2) {
                            assert_eq!(pair[0].log_id.index + 1, pair[1].log_id.index);
                            assert!(pair[0].log_id.leader_id <= pair[1].log_id.leader_id);
                        }
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for term in 2..400 {
            store.truncate_after(Some(log_id(1, 5 + term % 20))).await.unwrap();
            let first = 6 + term % 20;
            drop(append(&mut store, entries(term, first..first + 12)).await.unwrap());
            // The next change truncates at a lower or a higher index.
            store.truncate_after(Some(log_id(1, 5))).await.unwrap();
            drop(append(&mut store, entries(term, 6..40)).await.unwrap());
            tokio::task::yield_now().await;
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.await.unwrap();
        }
    }
}

/// Postcard that counts decoded entries, with or without a copier.
#[derive(Debug)]
enum Counting<const COPIES: bool> {}

static DECODED_WITH_COPIES: AtomicU64 = AtomicU64::new(0);
static DECODED_WITHOUT: AtomicU64 = AtomicU64::new(0);

type Plain = Postcard<1>;

impl<const COPIES: bool> Codec<Types> for Counting<COPIES> {
    const ID: u64 = 77;

    fn encode_entry(entry: &EntryOf<Types>, to: &mut Vec<u8>) -> Result<(), CodecError> {
        <Plain as Codec<Types>>::encode_entry(entry, to)
    }

    fn decode_entry(bytes: &[u8]) -> Result<EntryOf<Types>, CodecError> {
        let count = if COPIES { &DECODED_WITH_COPIES } else { &DECODED_WITHOUT };
        count.fetch_add(1, Ordering::Relaxed);
        <Plain as Codec<Types>>::decode_entry(bytes)
    }

    fn copier() -> Option<Copier<EntryOf<Types>>> {
        COPIES.then_some(Clone::clone)
    }

    fn encode_vote(vote: &VoteOf<Types>, to: &mut Vec<u8>) -> Result<(), CodecError> {
        <Plain as Codec<Types>>::encode_vote(vote, to)
    }

    fn decode_vote(bytes: &[u8]) -> Result<VoteOf<Types>, CodecError> {
        <Plain as Codec<Types>>::decode_vote(bytes)
    }

    fn encode_log_id(id: &LogIdOf<Types>, to: &mut Vec<u8>) -> Result<(), CodecError> {
        <Plain as Codec<Types>>::encode_log_id(id, to)
    }

    fn decode_log_id(bytes: &[u8]) -> Result<LogIdOf<Types>, CodecError> {
        <Plain as Codec<Types>>::decode_log_id(bytes)
    }
}

#[tokio::test]
async fn cached_entries_are_not_decoded() {
    type Copying = LogStore<Types, Counting<true>>;
    type Decoding = LogStore<Types, Counting<false>>;
    let storage = MemoryStorage::new();
    let options = Copying::options().tail_cache_bytes(40_000);
    let log = options.open_with(storage.clone()).await.unwrap();
    let mut store = Copying::of_log(log.clone()).unwrap();
    append_durably(&mut store, entries(1, 1..100)).await.unwrap();
    let _ = store.try_get_log_entries(..).await.unwrap();
    let _ = store.limited_get_log_entries(20, 30).await.unwrap();
    let _: Vec<_> = store.entries_stream(5..=90).await.try_collect().await.unwrap();
    assert_eq!(DECODED_WITH_COPIES.load(Ordering::Relaxed), 0);
    // Enough entries to evict the first ones.
    for first in (100..2000).step_by(50) {
        append_durably(&mut store, entries(1, first..first + 50)).await.unwrap();
    }
    assert!(log.stats().cached_bytes <= 40_000);
    assert_eq!(store.try_get_log_entries(3..8).await.unwrap(), entries(1, 3..8));
    assert_eq!(DECODED_WITH_COPIES.load(Ordering::Relaxed), 5);
    assert_eq!(store.try_get_log_entries(1990..).await.unwrap(), entries(1, 1990..2000));
    assert_eq!(DECODED_WITH_COPIES.load(Ordering::Relaxed), 5);
    // A store without a copier reads the entries of a store with one, and the reverse.
    let mut decoding = Decoding::of_log(log).unwrap();
    assert_eq!(decoding.try_get_log_entries(1990..).await.unwrap(), entries(1, 1990..2000));
    assert_eq!(DECODED_WITHOUT.load(Ordering::Relaxed), 10);
    append_durably(&mut decoding, entries(1, 2000..2010)).await.unwrap();
    assert_eq!(store.try_get_log_entries(1995..).await.unwrap(), entries(1, 1995..2010));
}

#[tokio::test]
async fn failed_or_dropped_append_leaves_nothing() {
    let medium = Medium::Memory(MemoryStorage::new());
    let mut store = medium.open(Store::options()).await.unwrap();
    append_durably(&mut store, entries(1, 1..5)).await.unwrap();
    assert!(store.append(entries(2, 8..12), IOFlushed::noop()).await.is_err());
    drop(store.append(entries(2, 5..9), IOFlushed::noop()));
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), entries(1, 1..5));
    append_durably(&mut store, entries(3, 5..9)).await.unwrap();
    assert_eq!(store.limited_get_log_entries(5, 100).await.unwrap(), entries(3, 5..9));
    store.close().await.unwrap();
    assert!(store.append(entries(4, 9..10), IOFlushed::noop()).await.is_err());
    assert_eq!(store.limited_get_log_entries(5, 100).await.unwrap(), entries(3, 5..9));
}
