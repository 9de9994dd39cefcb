//! Negative controls: mistakes that logs have really made, made on purpose in this one. The sweeps
//! must catch each within their default budget, or they prove nothing.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and what it covered is said"
)]

mod contract;

use contract::{
    in_place::{InPlace, sync_in_place, write_in_place},
    sweep::{FULL, Tally, fail_syncs_of, sweep_as_it_is, sweep_simulated_as_it_is},
    workload::{Running, random_script},
};
use highwater::sabotage::{self, Sabotage};

/// Runs a sweep over its default seeds with the mistake made, until it says something.
fn assert_caught(
    sabotage: Sabotage,
    seeds: u64,
    run: impl Fn(u64, &mut Tally) -> Result<(), String>,
) {
    let mut tally = Tally::default();
    let caught =
        sabotage::with(sabotage, || (0..seeds).find_map(|seed| run(seed, &mut tally).err()));
    let what = caught.unwrap_or_else(|| panic!("{sabotage:?} was not caught: {tally}"));
    println!("{sabotage:?} is caught after {tally}:\n  {what}");
}

fn in_place(seed: u64, tally: &mut Tally) -> Result<(), String> {
    sweep_as_it_is(seed, &random_script(seed), FULL, tally)
}

fn simulated(seed: u64, tally: &mut Tally) -> Result<(), String> {
    sweep_simulated_as_it_is(seed, &random_script(seed), FULL, tally)
}

fn failing(seed: u64, tally: &mut Tally) -> Result<(), String> {
    fail_syncs_of(&random_script(seed), seed, Running::InPlace, tally)
}

#[test]
fn taking_a_short_write_in_place_for_whole_is_caught() {
    assert_caught(Sabotage::BelieveShortWrite, 20, |seed, tally| {
        write_in_place(InPlace::Nonblocking(seed));
        simulated(seed, tally)
    });
}

#[test]
fn acknowledging_before_the_flush_is_caught() {
    assert_caught(Sabotage::AcknowledgeBeforeFlush, 14, simulated);
    assert_caught(Sabotage::AcknowledgeBeforeFlush, 40, failing);
    assert_caught(Sabotage::AcknowledgeBeforeFlush, 14, |seed, tally| {
        sync_in_place(true);
        simulated(seed, tally)
    });
}

#[test]
fn skipping_the_directory_flush_is_caught() {
    assert_caught(Sabotage::SkipDirectoryFlush, 14, in_place);
}

#[test]
fn marking_a_later_byte_synced_is_caught() {
    assert_caught(Sabotage::MarkLaterByte, 20, simulated);
}

#[test]
fn asking_again_for_a_failed_flush_is_caught() {
    assert_caught(Sabotage::RetryFailedFlush, 40, failing);
}

#[test]
fn going_on_behind_what_only_the_page_cache_holds_is_caught() {
    assert_caught(Sabotage::TrustPageCache, 40, failing);
}

#[test]
fn telling_one_waiter_alone_of_a_failed_flush_is_caught() {
    assert_caught(Sabotage::BlameOneWaiter, 40, failing);
}

#[test]
fn handing_out_an_lsn_twice_is_caught() {
    assert_caught(Sabotage::ReuseLsn, 14, in_place);
}

#[test]
fn answering_a_cut_before_its_header_is_durable_is_caught() {
    assert_caught(Sabotage::CutBeforeFlush, 14, in_place);
}

#[test]
fn removing_segments_before_it_is_durable_is_caught() {
    assert_caught(Sabotage::RemoveBeforeFlush, 14, in_place);
}
