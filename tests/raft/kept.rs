//! What the cache keeps in place of bytes is never of an entry that the group doesn't hold.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use highwater::{
    Error, Wal,
    raft::{Entries, Entry, RaftGroup, RaftLog, RaftOptions},
    simulation::{self, Disk, Random},
    storage::MemoryStorage,
};

use super::{
    model::{Change, Model},
    reading::apply,
    sweep::block_on,
    workload::{options, random_change},
};

/// What is kept here: the entries themselves.
type Value = Arc<Vec<Entry>>;

fn keeping(entries: Vec<Entry>) -> (Entries, Value) {
    let value = Arc::new(entries);
    let mut gathered: Entries = value.iter().cloned().collect();
    gathered.keep(value.clone(), 10);
    (gathered, value)
}

async fn apply_keeping(log: &RaftLog, id: u64, change: &Change) -> Result<(), Error> {
    let group = log.group(id);
    match change.clone() {
        Change::Append(entries) => drop(group.append(keeping(entries).0).await?),
        Change::Overwrite(entries) => drop(group.append_overwriting(keeping(entries).0).await?),
        change => apply(log, id, &change).await?,
    }
    Ok(())
}

/// The entries that were found, from the first of the range on: as the model has them?
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

fn kept(group: &RaftGroup, model: &Model, range: &Range<u64>, bytes_max: u64) -> Vec<Entry> {
    let kept = group.kept(range.clone(), bytes_max);
    let first = range.start.max(model.first());
    assert_eq!(kept.indexes, first..range.end.min(model.next()).max(first), "of {range:?}");
    let mut next = first;
    let mut found = Vec::new();
    for part in &kept.parts {
        assert!(part.indexes.start == next && !part.indexes.is_empty(), "{kept:?}");
        next = part.indexes.end;
        let entries = part.value.downcast_ref::<Vec<Entry>>().unwrap();
        found.extend(entries.iter().filter(|entry| part.indexes.contains(&entry.index)).cloned());
    }
    assert_eq!(found.len() as u64, next - first, "{kept:?}");
    found
}

/// A cache by index to which nobody tells what is cut: the mistake that the check must find.
#[derive(Default)]
struct ByIndex(BTreeMap<u64, Entry>);

impl ByIndex {
    fn apply(&mut self, change: &Change) {
        if let Change::Append(entries) | Change::Overwrite(entries) = change {
            self.0.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
        }
    }

    fn get(&self, range: &Range<u64>, first: u64) -> Vec<Entry> {
        let from = range.start.max(first)..range.end.max(range.start.max(first));
        from.map_while(|index| self.0.get(&index).cloned()).collect()
    }
}

#[test]
fn what_is_kept_is_what_the_group_holds_whatever_is_changed() {
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
                let is_taken = model.apply(&change);
                let keeps = random.below(4) > 0;
                let answer = match keeps {
                    true => apply_keeping(&log, id, &change).await,
                    false => apply(&log, id, &change).await,
                };
                assert_eq!(answer.is_ok(), is_taken, "{change:?}: {answer:?}");
                if is_taken {
                    doctored.entry(id).or_default().apply(&change);
                }
                let (first, next) = (model.first().saturating_sub(2), model.next());
                let start = first + random.below((next - first + 2) as usize) as u64;
                let ranges = [0..u64::MAX, start..start + random.below(9) as u64];
                for range in ranges {
                    let bytes_max = [0, 100, u64::MAX][random.below(3)];
                    let found = kept(&log.group(id), model, &range, bytes_max);
                    check(model, &range, &found).unwrap();
                    count += found.len();
                    let stale = doctored[&id].get(&range, model.first());
                    caught += u64::from(check(model, &range, &stale).is_err());
                }
                if random.one_in(20) {
                    // The bytes are there as well, in the files.
                    assert_eq!(Model::of(&log.group(id)).await.unwrap(), *model);
                }
            }
        });
    });
    println!("{count} entries were kept; a cache by index is caught {caught} times");
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
async fn the_bound_holds_for_what_is_kept_and_what_has_no_room_is_let_go() {
    for cache_bytes in [0, 3000, 20_000] {
        let log = small(cache_bytes).open_with(MemoryStorage::new()).await.unwrap();
        let group = log.group(1);
        let mut values = Vec::new();
        for first in (1..200).step_by(4) {
            let (gathered, value) = keeping(entries(first..first + 4, 100));
            drop(group.append(gathered).await.unwrap());
            values.push(Arc::downgrade(&value));
            assert!(log.stats().cached_bytes <= cache_bytes);
        }
        let alive = values.iter().filter(|value| value.upgrade().is_some()).count();
        // 100 bytes, their head, 10 on top, and 64 a record.
        let each = 4 * (100 + 3 + 10) + 64;
        assert!((alive as u64) <= cache_bytes / each, "{alive}");
        assert_eq!(alive == 0, cache_bytes == 0);
        assert_eq!(group.read(1..201, u64::MAX).await.unwrap(), entries(1..201, 100));
    }
}

/// An append of many records has one value, which stands for as many of them as are cached.
#[tokio::test]
async fn the_records_of_one_append_share_what_is_kept() {
    let log = small(400 << 10).open_with(MemoryStorage::new()).await.unwrap();
    let group = log.group(1);
    let (gathered, value) = keeping(entries(1..1001, 1000));
    drop(group.append(gathered).await.unwrap());
    assert!(group.kept(1..1001, u64::MAX).parts.is_empty(), "the first has no room any more");
    let kept = group.kept(800..1001, u64::MAX);
    assert_eq!((kept.parts.len(), &kept.parts[0].indexes), (1, &(800..1001)));
    assert!(Arc::ptr_eq(&kept.parts[0].value.clone().downcast().unwrap(), &value));
    // It ends with the record in which there are enough bytes.
    let kept = group.kept(800..1001, 1000);
    assert!(kept.parts[0].indexes.start == 800 && kept.parts[0].indexes.end < 1001);
}

#[tokio::test]
async fn what_is_refused_or_dropped_is_not_kept() {
    let wal = Wal::options().ring_bytes(4 << 10).segment_bytes(64 << 10);
    let log = small(1 << 20).wal(wal).open_with(Disk::new(1)).await.unwrap();
    let group = log.group(1);
    let (gathered, _value) = keeping(entries(1..3, 10));
    drop(group.append(gathered).await.unwrap());
    let (gathered, refused) = keeping(entries(4..6, 10));
    assert!(matches!(group.append(gathered).await, Err(Error::NotContiguous { .. })));
    assert_eq!(Arc::strong_count(&refused), 1);
    let (gathered, dropped) = keeping(entries(3..4, 10));
    drop(group.append(gathered));
    assert_eq!(Arc::strong_count(&dropped), 1);
    assert_eq!(group.kept(0..9, u64::MAX).indexes, 1..3);
    log.close().await.unwrap();
    let (gathered, closed) = keeping(entries(3..4, 10));
    assert!(matches!(group.append(gathered).await, Err(Error::Closed { .. })));
    assert_eq!(Arc::strong_count(&closed), 1);
}
