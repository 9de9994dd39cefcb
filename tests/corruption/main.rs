//! Every kind of damage to small logs. The model (`invariant.rs`): records that surviving
//! commitments cover are there, or opening or replaying fails. No damage may lose records without
//! an error, panic or hang.
//!
//! `HIGHWATER_FLIPS=all` tries every bit and every pair of places. By default it tries every
//! bit of headers, one bit of each other byte, and one pair in 17.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and the coverage is printed"
)]

mod bytes;
mod cutting;
mod disasters;
mod hostile;
mod invariant;
mod limits;
mod log;
mod slots;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use bytes::file_name;
use highwater::{
    sabotage::{self, Sabotage},
    simulation::SECTOR_BYTES,
};
use invariant::Damages;
use log::{HEADER, Log, closed_log, logs, unclosed_log};
use support::edited;

fn all_damages() -> bool {
    std::env::var("HIGHWATER_FLIPS").is_ok_and(|value| value == "all")
}

fn flip_bits(log: &Log, damages: &mut Damages) {
    let all = all_damages();
    let every = if log.name == "closed" { 1 } else { 3 };
    for name in log.segments() {
        let heads: Vec<_> =
            log.frames.iter().filter(|f| f.name == name).map(|f| f.offset).collect();
        let bytes = log.image.bytes(&name).unwrap().to_vec();
        for offset in 0..bytes.len() {
            let is_head = offset < 124 || heads.iter().any(|&at| (at..at + 16).contains(&offset));
            let is_used = bytes[offset] != 0;
            for bit in 0..8 {
                let sampled =
                    bit == offset * 5 % 8 && (is_used && offset % every == 0 || offset % 64 == 0);
                let head_sampled = is_head && (offset < 124 || log.name == "closed");
                if !(all || head_sampled || sampled) {
                    continue;
                }
                let damaged = edited(&log.image, &name, |bytes| bytes[offset] ^= 1 << bit);
                damages.check(log, || format!("{name}, byte {offset}, bit {bit}"), &damaged);
            }
        }
    }
}

#[test]
fn flipped_bit_is_detected_or_harmless() {
    let mut damages = Damages::default();
    for log in logs() {
        flip_bits(&log, &mut damages);
    }
    damages.assert_none_broken(25_000);
}

/// Misdirected writes: each frame over the place of another, each sector over another.
fn misdirect(log: &Log, damages: &mut Damages) {
    let step = if all_damages() { 1 } else { 17 };
    for (i, from) in log.frames.iter().enumerate() {
        for to in log.frames.iter().skip(i % step).step_by(step) {
            let there = from.offset..from.offset + from.bytes;
            let bytes = log.image.bytes(&from.name).unwrap()[there].to_vec();
            let damaged = edited(&log.image, &to.name, |file| {
                let room = bytes.len().min(file.len() - to.offset);
                file[to.offset..to.offset + room].copy_from_slice(&bytes[..room]);
            });
            damages.check(log, || format!("frame {} over frame {}", from.lsn, to.lsn), &damaged);
        }
    }
    let mut sectors = Vec::new();
    for name in log.segments() {
        let count = log.image.bytes(&name).unwrap().len() / SECTOR_BYTES;
        sectors.extend((0..count).map(|sector| (name.clone(), sector * SECTOR_BYTES)));
    }
    for (i, (from, at)) in sectors.iter().enumerate() {
        let bytes = log.image.bytes(from).unwrap()[*at..at + SECTOR_BYTES].to_vec();
        for (name, offset) in sectors.iter().skip(i % step).step_by(step) {
            let damaged = edited(&log.image, name, |file| {
                file[*offset..offset + SECTOR_BYTES].copy_from_slice(&bytes);
            });
            damages.check(
                log,
                || format!("{from}, sector at {at} over {name}, {offset}"),
                &damaged,
            );
        }
    }
}

#[test]
fn misdirected_write_is_detected_or_harmless() {
    let mut damages = Damages::default();
    for log in logs() {
        misdirect(&log, &mut damages);
    }
    damages.assert_none_broken(2_000);
}

/// Each sector in each of its earlier states: acknowledged writes that were lost.
#[test]
fn stale_sector_is_detected_or_harmless() {
    let mut damages = Damages::default();
    for log in logs() {
        for name in log.segments() {
            let now = log.image.bytes(&name).unwrap();
            let mut seen = BTreeSet::new();
            for image in &log.history {
                let Some(then) = image.bytes(&name) else { continue };
                for (i, sector) in then.chunks(SECTOR_BYTES).enumerate() {
                    let at = i * SECTOR_BYTES;
                    let is_new = now.get(at..at + sector.len()).is_some_and(|now| now != sector)
                        && seen.insert((at, sector.to_vec()));
                    if is_new {
                        let damaged = edited(&log.image, &name, |bytes| {
                            bytes[at..at + sector.len()].copy_from_slice(sector);
                        });
                        damages.check(&log, || format!("{name}, stale sector at {at}"), &damaged);
                    }
                }
            }
        }
    }
    damages.assert_none_broken(150);
}

fn assert_caught(sabotage: Sabotage, log: fn() -> Log, damage: fn(&Log, &mut Damages)) {
    let mut damages = Damages::default();
    sabotage::with(sabotage, || damage(&log(), &mut damages));
    let (count, broken) = (damages.count, damages.broken.len());
    assert!(broken > 0, "{sabotage:?} was not caught by {count} damages");
    println!("{sabotage:?} is caught by {broken} of {count} damages: {}", damages.broken[0]);
}

#[test]
fn search_trusting_a_length_is_caught() {
    assert_caught(Sabotage::TrustLength, unclosed_log, flip_bits);
}

#[test]
fn checksum_without_lsn_is_caught() {
    assert_caught(Sabotage::ForgetLsn, unclosed_log, misdirect);
}

#[test]
fn zeroed_sector_or_page_is_detected_or_harmless() {
    let mut damages = Damages { cuts_all: true, ..Damages::default() };
    for log in logs() {
        for name in log.segments() {
            let length = log.image.bytes(&name).unwrap().len();
            for size in [SECTOR_BYTES, HEADER] {
                for start in (0..length).step_by(size) {
                    let damaged = edited(&log.image, &name, |bytes| {
                        let end = length.min(start + size);
                        bytes[start..end].fill(0);
                    });
                    damages.check(&log, || format!("{name}, {size} bytes at {start}"), &damaged);
                }
            }
        }
    }
    damages.assert_none_broken(150);
}

#[test]
fn shortened_segment_is_detected_or_harmless() {
    let mut damages = Damages::default();
    for log in logs() {
        for name in log.segments() {
            for length in (0..log.image.bytes(&name).unwrap().len()).step_by(64) {
                let damaged = edited(&log.image, &name, |bytes| bytes.truncate(length));
                damages.check(&log, || format!("{name}, cut to {length} bytes"), &damaged);
            }
        }
    }
    damages.assert_none_broken(1_000);
}

#[test]
fn misplaced_segment_is_detected_or_harmless() {
    let mut damages = Damages { cuts_all: true, ..Damages::default() };
    let foreign = closed_log(77);
    for log in logs() {
        let names = log.segments();
        for name in &names {
            let mut deleted = log.image.clone();
            deleted.delete(name);
            damages.check(&log, || format!("{name} deleted"), &deleted);
            let bytes = log.image.bytes(name).unwrap().to_vec();
            for sequence in [90, 91] {
                let mut twice = log.image.clone();
                twice.put(&file_name(sequence), bytes.clone());
                damages.check(&log, || format!("{name} also as {sequence}"), &twice);
            }
            for other in foreign.segments() {
                let theirs = foreign.image.bytes(&other).unwrap().to_vec();
                let replaced = edited(&log.image, name, |bytes| *bytes = theirs.clone());
                damages.check(&log, || format!("{name} is {other} of another log"), &replaced);
                let mut added = log.image.clone();
                added.put(&file_name(90), theirs);
                damages.check(&log, || format!("{other} of another log added"), &added);
            }
            for other in names.iter().filter(|other| *other > name) {
                let theirs = log.image.bytes(other).unwrap().to_vec();
                let swapped = edited(&log.image, name, |bytes| *bytes = theirs.clone());
                let swapped = edited(&swapped, other, |theirs| *theirs = bytes.clone());
                damages.check(&log, || format!("{name} and {other} swapped"), &swapped);
                let copied = edited(&log.image, name, |bytes| *bytes = theirs.clone());
                damages.check(&log, || format!("{name} overwritten with {other}"), &copied);
            }
        }
    }
    damages.assert_none_broken(100);
}
