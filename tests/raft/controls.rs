//! Negative controls: mistakes that Raft logs have really made. The sweeps must catch each, or they
//! prove nothing.

use highwater::sabotage::{self, Sabotage};

use super::sweep::{How, Tally, fail_syncs, sweep};

const IN_PLACE: How = How { in_simulation: false, one_in: 10, swapped: false };
const SIMULATED: How = How { in_simulation: true, one_in: 10, swapped: false };

/// Runs seeds with the mistake made until one says something.
fn assert_caught(what: &str, seeds: u64, run: impl Fn(u64, &mut Tally) -> Result<(), String>) {
    let mut tally = Tally::default();
    let caught = (0..seeds).find_map(|seed| run(seed, &mut tally).err());
    let told = caught.unwrap_or_else(|| panic!("{what} was not caught: {tally:?}"));
    println!("{what} is caught after {tally:?}:\n  {}", &told[..told.len().min(300)]);
}

fn assert_sabotage_caught(sabotage: Sabotage, seeds: u64, how: How) {
    sabotage::with(sabotage, || {
        assert_caught(&format!("{sabotage:?}"), seeds, |seed, tally| sweep(seed, how, tally));
    });
}

#[test]
fn acknowledging_before_the_flush_is_caught() {
    assert_sabotage_caught(Sabotage::AcknowledgeBeforeFlush, 20, SIMULATED);
}

#[test]
fn answering_a_vote_without_a_flush_is_caught() {
    assert_sabotage_caught(Sabotage::SkipVoteFlush, 20, SIMULATED);
    assert_sabotage_caught(Sabotage::SkipVoteFlush, 20, IN_PLACE);
}

#[test]
fn moving_the_beginning_before_the_purge_is_durable_is_caught() {
    assert_sabotage_caught(Sabotage::BeginBeforePurge, 60, SIMULATED);
}

#[test]
fn removing_files_before_it_is_durable_is_caught() {
    assert_sabotage_caught(Sabotage::RemoveBeforeFlush, 40, IN_PLACE);
}

#[test]
fn beginning_above_the_newest_state_record_is_caught() {
    assert_sabotage_caught(Sabotage::ForgetState, 20, IN_PLACE);
}

#[test]
fn trusting_what_was_recovered_and_not_synced_is_caught() {
    sabotage::with(Sabotage::TrustPageCache, || {
        assert_caught("TrustPageCache", 40, fail_syncs);
    });
}

#[test]
fn a_vote_behind_the_entries_that_follow_it_is_caught() {
    let how = How { swapped: true, ..IN_PLACE };
    assert_caught("a swapped vote", 20, |seed, tally| sweep(seed, how, tally));
}
