//! Shared by the parent and the child of `power_cut.rs`.

pub(crate) mod child;

use highwater::{Options, Wal};

/// Options with small segments and a small ring, so that rotations and waits are frequent.
pub(crate) fn options() -> Options {
    Wal::options().segment_bytes(32 << 10).ring_bytes(8 << 10)
}

/// Returns the words `cut`, `task`, `number`, and bytes derived from them.
pub(crate) fn payload(cut: u64, task: u64, number: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    for word in [cut, task, number] {
        payload.extend(word.to_le_bytes());
    }
    let mut more = (cut * 31 + task * 7 + number * 13) % 900;
    if number % 37 == 5 {
        more += 3000;
    }
    payload.resize(24 + more as usize, (number % 255) as u8 + 1);
    payload
}

pub(crate) fn words(payload: &[u8]) -> (u64, u64, u64) {
    let word = |i: usize| u64::from_le_bytes(payload[i * 8..i * 8 + 8].try_into().unwrap());
    (word(0), word(1), word(2))
}

/// Returns a pseudorandom number derived from `cut`.
pub(crate) fn mixed(cut: u64, below: u64) -> u64 {
    let mixed = (cut + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) % below
}
