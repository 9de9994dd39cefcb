//! The log of Raft groups against a model: in order, reopened at any point, and after a loss of power
//! at every operation of the disk.
//!
//! `HIGHWATER_SEEDS` multiplies the budget; `HIGHWATER_SEED` replays one seed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and what it covered is said"
)]

mod completions;
mod controls;
mod damage;
mod kept;
mod model;
mod reading;
mod sweep;
mod workload;
