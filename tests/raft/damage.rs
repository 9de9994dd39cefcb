//! Damages a synced log everywhere. Opening or reading must fail, unless the damage hit unused
//! bytes.
//!
//! No group may differ from before: no entry is lost, none is back, no vote is forgotten.

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

/// Counts the outcomes.
#[derive(Debug, Default)]
struct DamageCounts {
    /// Opening failed.
    refused: u64,
    /// Opening succeeded, but reading failed.
    unreadable: u64,
    /// Every group is unchanged: the damage hit unused bytes.
    harmless: u64,
    /// A group differs, without an error.
    lost: u64,
}

type Groups = BTreeMap<u64, Model>;

/// Returns a synced log with changes of several groups, closed or not, and the state of its groups.
fn synced_log(seed: u64, is_closed: bool) -> (Image, Groups) {
    let disk = Disk::new(seed);
    block_on(async {
        let log = options(seed).open_with(disk.clone()).await.unwrap();
        let driver = Driver {
            log: log.clone(),
            disk: disk.clone(),
            notes: Arc::new(Mutex::new(History::default())),
            delayed_votes: None,
        };
        driver.drive(&[1, 2, 300], seed, 90).await.unwrap();
        drop(driver);
        log.sync().await.unwrap();
        let groups = Model::all_of(&log).await.unwrap();
        // Nothing far from the last flush claims that it happened. Damage to one sector can hit
        // both the records and the claim, and then looks like a torn tail, closed or not. So
        // another group writes more than a sector after the checked groups: that confirms their
        // records.
        for _ in 0..3 {
            log.group(9).set_vote(vec![b'9'; 600]).await.unwrap().synced().await.unwrap();
        }
        if is_closed {
            log.close().await.unwrap();
        }
        (disk.image(), groups)
    })
}

/// Opens a damaged log and compares its groups with the state before.
fn check(image: Image, seed: u64, groups: &Groups, counts: &mut DamageCounts) {
    block_on(async {
        let Ok(log) = options(seed).open_with(Disk::with_image(image, seed)).await else {
            counts.refused += 1;
            return;
        };
        let Ok(mut found) = Model::all_of(&log).await else {
            counts.unreadable += 1;
            return;
        };
        found.retain(|id, _| groups.contains_key(id));
        match found == *groups {
            true => counts.harmless += 1,
            false => counts.lost += 1,
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

/// Flips bits, zeroes sectors, replaces sectors with others, and removes whole segments.
fn damage(seed: u64, is_closed: bool, counts: &mut DamageCounts) {
    let (image, groups) = synced_log(seed, is_closed);
    let mut random = Random::new(seed ^ 0xda3a6e);
    let names: Vec<_> = image.names().into_iter().filter(|name| name.ends_with(".wal")).collect();
    assert!(names.len() > 1, "the log has rotated");
    for name in &names {
        let length = image.bytes(name).unwrap().len();
        for _ in 0..60 {
            let (at, bit) = (random.below(length), random.below(8));
            let damaged = edited(&image, name, |bytes| bytes[at] ^= 1 << bit);
            check(damaged, seed, &groups, counts);
        }
        for sector in 0..length / 512 {
            let there = sector * 512..(sector + 1) * 512;
            let damaged = edited(&image, name, |bytes| bytes[there.clone()].fill(0));
            check(damaged, seed, &groups, counts);
            let from = names[random.below(names.len())].clone();
            let other = random.below(image.bytes(&from).unwrap().len() / 512) * 512;
            let stale = image.bytes(&from).unwrap()[other..other + 512].to_vec();
            let damaged = edited(&image, name, |bytes| bytes[there].copy_from_slice(&stale));
            check(damaged, seed, &groups, counts);
        }
        // A missing newest segment looks like a crash before it was created (DURABILITY.md).
        let has_begun = |name: &&String| image.bytes(name).unwrap()[..8] != [0; 8];
        if Some(name) != names.iter().filter(has_begun).max() {
            let mut gone = image.clone();
            gone.delete(name);
            check(gone, seed, &groups, counts);
        }
    }
}

#[test]
fn damage_never_changes_a_group_silently() {
    for is_closed in [true, false] {
        let mut counts = DamageCounts::default();
        for_each_seed(4, |seed| damage(seed, is_closed, &mut counts));
        println!("closed: {is_closed}, {counts:?}");
        assert_eq!(counts.lost, 0, "{counts:?}");
        assert!(counts.refused > 100 && counts.unreadable > 0, "{counts:?}");
    }
}
