//! Compares the Raft log with a model: in order, reopened at any point, and after a power cut at
//! every disk operation.
//!
//! `HIGHWATER_SEEDS` multiplies the number of seeds; `HIGHWATER_SEED` replays one seed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a failure must stop the test, and the tests print their coverage"
)]

mod completions;
mod controls;
mod damage;
mod decoded;
mod model;
mod reading;
mod sweep;
mod workload;
