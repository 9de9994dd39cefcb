//! The store under openraft's own suite, and what that suite doesn't look at: durability, crashes,
//! the order of callbacks, errors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test that can't go on panics"
)]

mod bytes;
mod callbacks;
mod conformance;
mod contract;
mod damage;
mod doctored;
mod medium;
mod memory;
mod reopening;
#[allow(dead_code, reason = "tests don't read the keys")]
#[path = "../../examples/single_node/state_machine.rs"]
mod state_machine;
mod streams;
mod sweep;
