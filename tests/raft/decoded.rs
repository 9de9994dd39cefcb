//! A decoded value in the cache is never returned for an entry that the group does not hold.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use highwater::{
    Wal,
    raft::{Entries, Entry, Error, RaftGroup, RaftLog, RaftOptions},
    simulation::{self, Disk, Random},
    storage::MemoryStorage,
};

use super::{
    model::{Model, ModelChange},
    reading::apply,
    sweep::block_on,
    workload::{options, random_change},
};

/// The decoded value: the entries themselves.
type EntriesValue = Arc<Vec<Entry>>;

fn with_decoded(entries: Vec<Entry>) -> (Entries, EntriesValue) {
    let value = Arc::new(entries);
    let mut gathered: Entries = value.iter().cloned().collect();
    gathered.cache_decoded(value.clone(), 10);
    (gathered, value)
}

async fn apply_with_decoded(log: &RaftLog, id: u64, change: &ModelChange) -> Result<(), Error> {
    let group = log.group(id);
    match change.clone() {
        ModelChange::Append(entries) => drop(group.append(with_decoded(entries).0).await?),
        ModelChange::Overwrite(entries) => {
            drop(group.append_overwriting(with_decoded(entries).0).await?)
        }
        change => apply(log, id, &change).await?,
    }
    Ok(())
}

/// Checks that the entries found, from the first of the range on, are those of the model.
fn check(model: &Model, range: &Range<u64>, found: &[Entry]) -> Result<(), String> {
    let first = range.start.max(model.first());
    for (index, entry) in (first..).zip(found) {
        let expected = model.entries.get(&index).cloned();
        let is = Some((entry.term, entry.payload.to_vec()));
        if entry.index != index || expected != is || index >= range.end {
            return Err(format!("{index} of {range:?} is {expected:?}, and not {entry:?}"));
        }
    }
    Ok(())
}

fn decoded(group: &RaftGroup, model: &Model, range: &Range<u64>, bytes_max: u64) -> Vec<Entry> {
    let decoded = group.decoded(range.clone(), bytes_max);
    let first = range.start.max(model.first());
    assert_eq!(decoded.indexes, first..range.end.min(model.next()).max(first), "of {range:?}");
    let mut next = first;
    let mut found = Vec::new();
    for part in &decoded.parts {
        assert!(part.indexes.start == next && !part.indexes.is_empty(), "{decoded:?}");
        next = part.indexes.end;
        let entries = part.value.downcast_ref::<Vec<Entry>>().unwrap();
        found.extend(entries.iter().filter(|entry| part.indexes.contains(&entry.index)).cloned());
    }
    assert_eq!(found.len() as u64, next - first, "{decoded:?}");
    found
}

/// A cache by index that is not updated at a truncation: a mistake that the check must find.
#[derive(Default)]
struct ByIndex(BTreeMap<u64, Entry>);

impl ByIndex {
    fn apply(&mut self, change: &ModelChange) {
        if let ModelChange::Append(entries) | ModelChange::Overwrite(entries) = change {
            self.0.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
        }
    }

    fn get(&self, range: &Range<u64>, first: u64) -> Vec<Entry> {
        let from = range.start.max(first)..range.end.max(range.start.max(first));
        from.map_while(|index| self.0.get(&index).cloned()).collect()
    }
}

#[test]
fn decoded_values_match_the_group_after_any_change() {
    let (mut count, mut caught) = (0, 0);
    simulation::for_each_seed(9, |seed| {
        block_on(async {
            let mut random = Random::new(seed);
            let mut models: BTreeMap<u64, Model> = BTreeMap::new();
            let mut doctored: BTreeMap<u64, ByIndex> = BTreeMap::new();
            let log = options(seed).open_with(Disk::new(seed)).await.unwrap();
            for number in 0..500 {
                let id = [1, 1, 1, 2, random.below(20) as u64][random.below(5)];
                let model = models.entry(id).or_default();
                let change = random_change(&mut random, model, number);
                let is_accepted = model.apply(&change);
                let decodes = random.below(4) > 0;
                let outcome = match decodes {
                    true => apply_with_decoded(&log, id, &change).await,
                    false => apply(&log, id, &change).await,
                };
                assert_eq!(outcome.is_ok(), is_accepted, "{change:?}: {outcome:?}");
                if is_accepted {
                    doctored.entry(id).or_default().apply(&change);
                }
                let (first, next) = (model.first().saturating_sub(2), model.next());
                let start = first + random.below((next - first + 2) as usize) as u64;
                let ranges = [0..u64::MAX, start..start + random.below(9) as u64];
                for range in ranges {
                    let bytes_max = [0, 100, u64::MAX][random.below(3)];
                    let found = decoded(&log.group(id), model, &range, bytes_max);
                    check(model, &range, &found).unwrap();
                    count += found.len();
                    let stale = doctored[&id].get(&range, model.first());
                    caught += u64::from(check(model, &range, &stale).is_err());
                }
                if random.one_in(20) {
                    // The bytes can be read from the files.
                    assert_eq!(Model::of(&log.group(id)).await.unwrap(), *model);
                }
            }
        });
    });
    println!("{count} decoded entries; a cache by index is caught {caught} times");
    assert!(count > 1000 && caught > 10);
}

fn entries(indexes: Range<u64>, bytes: usize) -> Vec<Entry> {
    let entry = |index| Entry { index, term: 1, payload: vec![index as u8; bytes].into() };
    indexes.map(entry).collect()
}

fn small(cache_bytes: u64) -> RaftOptions {
    RaftOptions::default().tail_cache_bytes(cache_bytes)
}

#[tokio::test]
async fn decoded_values_respect_the_cache_size() {
    for cache_bytes in [0, 3000, 20_000] {
        let log = small(cache_bytes).open_with(MemoryStorage::new()).await.unwrap();
        let group = log.group(1);
        let mut values = Vec::new();
        for first in (1..200).step_by(4) {
            let (gathered, value) = with_decoded(entries(first..first + 4, 100));
            drop(group.append(gathered).await.unwrap());
            values.push(Arc::downgrade(&value));
            assert!(log.stats().cached_bytes <= cache_bytes);
        }
        let alive = values.iter().filter(|value| value.upgrade().is_some()).count();
        // Per entry 100 bytes, 3 for its head and 10 extra; 64 per record.
        let each = 4 * (100 + 3 + 10) + 64;
        assert!((alive as u64) <= cache_bytes / each, "{alive}");
        assert_eq!(alive == 0, cache_bytes == 0);
        assert_eq!(group.read(1..201, u64::MAX).await.unwrap(), entries(1..201, 100));
    }
}

/// An append of many records has one value, which is valid for all its records in the cache.
#[tokio::test]
async fn records_of_one_append_share_the_decoded_value() {
    let log = small(400 << 10).open_with(MemoryStorage::new()).await.unwrap();
    let group = log.group(1);
    let (gathered, value) = with_decoded(entries(1..1001, 1000));
    drop(group.append(gathered).await.unwrap());
    assert!(group.decoded(1..1001, u64::MAX).parts.is_empty(), "the first record was evicted");
    let decoded = group.decoded(800..1001, u64::MAX);
    assert_eq!((decoded.parts.len(), &decoded.parts[0].indexes), (1, &(800..1001)));
    assert!(Arc::ptr_eq(&decoded.parts[0].value.clone().downcast().unwrap(), &value));
    // It ends with the record that reaches the maximum.
    let decoded = group.decoded(800..1001, 1000);
    assert!(decoded.parts[0].indexes.start == 800 && decoded.parts[0].indexes.end < 1001);
}

#[tokio::test]
async fn rejected_or_dropped_append_caches_nothing() {
    let wal = Wal::options().ring_bytes(4 << 10).segment_bytes(64 << 10);
    let log = small(1 << 20).wal(wal).open_with(Disk::new(1)).await.unwrap();
    let group = log.group(1);
    let (gathered, _value) = with_decoded(entries(1..3, 10));
    drop(group.append(gathered).await.unwrap());
    let (gathered, refused) = with_decoded(entries(4..6, 10));
    assert!(matches!(group.append(gathered).await, Err(Error::NotContiguous { .. })));
    assert_eq!(Arc::strong_count(&refused), 1);
    let (gathered, dropped) = with_decoded(entries(3..4, 10));
    drop(group.append(gathered));
    assert_eq!(Arc::strong_count(&dropped), 1);
    assert_eq!(group.decoded(0..9, u64::MAX).indexes, 1..3);
    log.close().await.unwrap();
    let (gathered, closed) = with_decoded(entries(3..4, 10));
    assert!(group.append(gathered).await.is_err_and(|error| error.is_closed()));
    assert_eq!(Arc::strong_count(&closed), 1);
}
