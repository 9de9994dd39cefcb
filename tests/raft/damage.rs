//! Damage to a log that was synced, anywhere: it is refused when it is opened, or when what is damaged
//! is read, or nothing of the log was in it. Never is a group another one than it was: no entry is
//! gone, none is back, no vote is forgotten.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use highwater::simulation::{Disk, Image, Random, for_each_seed};

use super::{
    model::Model,
    sweep::block_on,
    workload::{Driver, History, options},
};

/// What the damages came to.
#[derive(Debug, Default)]
struct Verdicts {
    /// Opening refused.
    refused: u64,
    /// Opening went well, and reading did not.
    unreadable: u64,
    /// All is as it was: the damage hit nothing that counts.
    harmless: u64,
    lost: u64,
}

type Groups = BTreeMap<u64, Model>;

/// A log that several groups have changed, closed or left as a process leaves it that ends, all of it
/// synced; and what its groups are.
fn some_log(seed: u64, is_closed: bool) -> (Image, Groups) {
    let disk = Disk::new(seed);
    block_on(async {
        let log = options(seed).open_with(disk.clone()).await.unwrap();
        let driver = Driver {
            log: log.clone(),
            disk: disk.clone(),
            notes: Arc::new(Mutex::new(History::default())),
            swapped: None,
        };
        driver.drive(&[1, 2, 300], seed, 90).await.unwrap();
        drop(driver);
        log.sync().await.unwrap();
        let groups = Model::all_of(&log).await.unwrap();
        // What the last flush covered is claimed by nothing that stands far from it: a sector's damage
        // can take both, and is a torn tail then, closed or not. So another group says more than a
        // sector's worth, and what stands before it is claimed behind it.
        for _ in 0..3 {
            log.group(9).set_vote(vec![b'9'; 600]).await.unwrap().synced().await.unwrap();
        }
        if is_closed {
            log.close().await.unwrap();
        }
        (disk.image(), groups)
    })
}

/// Opens a damaged log and looks at all that was in it before.
fn judge(image: Image, seed: u64, groups: &Groups, verdicts: &mut Verdicts) {
    block_on(async {
        let Ok(log) = options(seed).open_with(Disk::with_image(image, seed)).await else {
            verdicts.refused += 1;
            return;
        };
        let Ok(mut found) = Model::all_of(&log).await else {
            verdicts.unreadable += 1;
            return;
        };
        found.retain(|id, _| groups.contains_key(id));
        match found == *groups {
            true => verdicts.harmless += 1,
            false => verdicts.lost += 1,
        }
    });
}

fn edited(image: &Image, name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Image {
    let mut damaged = image.clone();
    let mut bytes = image.bytes(name).unwrap().to_vec();
    edit(&mut bytes);
    damaged.put(name, bytes);
    damaged
}

/// Flips bits, zeroes sectors, puts one sector where another was, takes whole segments away.
fn damage(seed: u64, is_closed: bool, verdicts: &mut Verdicts) {
    let (image, groups) = some_log(seed, is_closed);
    let mut random = Random::new(seed ^ 0xda3a6e);
    let names: Vec<_> = image.names().into_iter().filter(|name| name.ends_with(".wal")).collect();
    assert!(names.len() > 1, "the log has rotated");
    for name in &names {
        let length = image.bytes(name).unwrap().len();
        for _ in 0..60 {
            let (at, bit) = (random.below(length), random.below(8));
            let damaged = edited(&image, name, |bytes| bytes[at] ^= 1 << bit);
            judge(damaged, seed, &groups, verdicts);
        }
        for sector in 0..length / 512 {
            let there = sector * 512..(sector + 1) * 512;
            let damaged = edited(&image, name, |bytes| bytes[there.clone()].fill(0));
            judge(damaged, seed, &groups, verdicts);
            let from = names[random.below(names.len())].clone();
            let other = random.below(image.bytes(&from).unwrap().len() / 512) * 512;
            let stale = image.bytes(&from).unwrap()[other..other + 512].to_vec();
            let damaged = edited(&image, name, |bytes| bytes[there].copy_from_slice(&stale));
            judge(damaged, seed, &groups, verdicts);
        }
        // That the newest is gone can't be told from a crash before it began (DURABILITY.md).
        let begun = |name: &&String| image.bytes(name).unwrap()[..8] != [0; 8];
        if Some(name) != names.iter().filter(begun).max() {
            let mut gone = image.clone();
            gone.delete(name);
            judge(gone, seed, &groups, verdicts);
        }
    }
}

#[test]
fn damage_anywhere_is_refused_and_changes_no_group_in_silence() {
    for is_closed in [true, false] {
        let mut verdicts = Verdicts::default();
        for_each_seed(4, |seed| damage(seed, is_closed, &mut verdicts));
        println!("closed: {is_closed}, {verdicts:?}");
        assert_eq!(verdicts.lost, 0, "{verdicts:?}");
        assert!(verdicts.refused > 100 && verdicts.unreadable > 0, "{verdicts:?}");
    }
}
