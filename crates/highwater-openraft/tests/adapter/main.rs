//! Runs openraft's own suite, and tests beyond it: durability, crashes, callback order, errors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a failed test panics"
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
