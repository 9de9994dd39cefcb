//! Negative controls: mistakes that other logs have made, made on purpose in this one. The sweeps
//! must catch each within their default number of seeds.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and the coverage is printed"
)]

mod contract;

use contract::{
    in_place::{InPlace, set_durable_writes, set_inline_syncs, set_inline_writes},
    sweep::{
        FULL, Tally, fail_syncs_of, sweep_simulated_with_thread_settings,
        sweep_with_thread_settings,
    },
    with_failing_waiters, with_retention,
    workload::{Running, random_script, slots_script, stalled_script},
};
use highwater::sabotage::{self, Sabotage};

/// Makes the mistake and runs a sweep over its default seeds until one fails.
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
    sweep_with_thread_settings(seed, &random_script(seed), FULL, tally)
}

fn simulated(seed: u64, tally: &mut Tally) -> Result<(), String> {
    sweep_simulated_with_thread_settings(seed, &random_script(seed), FULL, tally)
}

fn failing(seed: u64, tally: &mut Tally) -> Result<(), String> {
    fail_syncs_of(&random_script(seed), seed, Running::InPlace, tally)
}

#[test]
fn trusting_short_inline_write_is_caught() {
    assert_caught(Sabotage::BelieveShortWrite, 20, |seed, tally| {
        set_inline_writes(InPlace::Nonblocking(seed));
        simulated(seed, tally)
    });
}

#[test]
fn indeterminate_for_reused_lsn_is_caught() {
    with_failing_waiters(|| {
        assert_caught(Sabotage::MisnameIndeterminate, 20, |seed, tally| {
            sweep_simulated_with_thread_settings(seed, &stalled_script(seed), FULL, tally)
        });
    });
}

#[test]
fn durable_write_that_lost_its_flag_is_caught() {
    set_durable_writes(true);
    assert_caught(Sabotage::DropDurability, 14, in_place);
    assert_caught(Sabotage::DropDurability, 14, simulated);
}

#[test]
fn durable_write_that_skips_earlier_ones_is_caught() {
    set_durable_writes(true);
    assert_caught(Sabotage::ForgetEarlierWrites, 14, in_place);
    assert_caught(Sabotage::ForgetEarlierWrites, 14, simulated);
}

#[test]
fn acknowledging_before_the_flush_is_caught() {
    assert_caught(Sabotage::AcknowledgeBeforeFlush, 14, simulated);
    assert_caught(Sabotage::AcknowledgeBeforeFlush, 40, failing);
    assert_caught(Sabotage::AcknowledgeBeforeFlush, 14, |seed, tally| {
        set_inline_syncs(true);
        simulated(seed, tally)
    });
}

#[test]
fn skipping_the_directory_flush_is_caught() {
    assert_caught(Sabotage::SkipDirectoryFlush, 14, in_place);
}

#[test]
fn marking_later_byte_synced_is_caught() {
    assert_caught(Sabotage::MarkLaterByte, 100, simulated);
}

#[test]
fn retrying_failed_flush_is_caught() {
    assert_caught(Sabotage::RetryFailedFlush, 40, failing);
}

#[test]
fn trusting_page_cache_is_caught() {
    assert_caught(Sabotage::TrustPageCache, 40, failing);
}

#[test]
fn failing_only_one_waiter_is_caught() {
    assert_caught(Sabotage::BlameOneWaiter, 40, failing);
}

#[test]
fn resuming_without_rewriting_is_caught() {
    assert_caught(Sabotage::ResumeUnwritten, 40, failing);
}

#[test]
fn reusing_lsn_is_caught() {
    assert_caught(Sabotage::ReuseLsn, 14, in_place);
}

#[test]
fn returning_from_truncation_before_flush_is_caught() {
    assert_caught(Sabotage::CutBeforeFlush, 14, in_place);
}

#[test]
fn removing_segments_before_flush_is_caught() {
    assert_caught(Sabotage::RemoveBeforeFlush, 60, in_place);
}

fn moving_slots(seed: u64, tally: &mut Tally) -> Result<(), String> {
    sweep_simulated_with_thread_settings(seed, &slots_script(seed), FULL, tally)
}

#[test]
fn advancing_slot_before_flush_is_caught() {
    assert_caught(Sabotage::AdvanceBeforeFlush, 20, moving_slots);
}

#[test]
fn retaining_past_slot_is_caught() {
    with_retention(|| assert_caught(Sabotage::RetainPastSlot, 20, moving_slots));
}

#[test]
fn truncating_past_slot_is_caught() {
    assert_caught(Sabotage::TruncatePastSlot, 20, moving_slots);
}
