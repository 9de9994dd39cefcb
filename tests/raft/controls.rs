//! Negative controls: mistakes that real Raft logs have made. The sweeps must catch each of them.

use highwater::sabotage::{self, Sabotage};

use super::sweep::{SweepOptions, Tally, fail_syncs, sweep};

const IN_PLACE: SweepOptions =
    SweepOptions { in_simulation: false, one_in: 10, delays_votes: false };
const SIMULATED: SweepOptions =
    SweepOptions { in_simulation: true, one_in: 10, delays_votes: false };

/// Runs seeds with the mistake until one fails.
fn assert_caught(mistake: &str, seeds: u64, run: impl Fn(u64, &mut Tally) -> Result<(), String>) {
    let mut tally = Tally::default();
    let caught = (0..seeds).find_map(|seed| run(seed, &mut tally).err());
    let failure = caught.unwrap_or_else(|| panic!("{mistake} was not caught: {tally:?}"));
    println!("{mistake} is caught after {tally:?}:\n  {}", &failure[..failure.len().min(300)]);
}

fn assert_sabotage_caught(sabotage: Sabotage, seeds: u64, options: SweepOptions) {
    sabotage::with(sabotage, || {
        assert_caught(&format!("{sabotage:?}"), seeds, |seed, tally| sweep(seed, options, tally));
    });
}

#[test]
fn acknowledge_before_flush_is_caught() {
    assert_sabotage_caught(Sabotage::AcknowledgeBeforeFlush, 20, SIMULATED);
}

#[test]
fn vote_without_flush_is_caught() {
    assert_sabotage_caught(Sabotage::SkipVoteFlush, 20, SIMULATED);
    assert_sabotage_caught(Sabotage::SkipVoteFlush, 20, IN_PLACE);
}

#[test]
fn begin_before_durable_purge_is_caught() {
    assert_sabotage_caught(Sabotage::BeginBeforePurge, 60, SIMULATED);
}

#[test]
fn remove_before_flush_is_caught() {
    assert_sabotage_caught(Sabotage::RemoveBeforeFlush, 40, IN_PLACE);
}

#[test]
fn begin_above_newest_checkpoint_is_caught() {
    assert_sabotage_caught(Sabotage::ForgetState, 20, IN_PLACE);
}

#[test]
fn trust_in_unsynced_recovery_is_caught() {
    sabotage::with(Sabotage::TrustPageCache, || {
        assert_caught("TrustPageCache", 40, fail_syncs);
    });
}

#[test]
fn vote_issued_after_its_entries_is_caught() {
    let options = SweepOptions { delays_votes: true, ..IN_PLACE };
    assert_caught("a delayed vote", 20, |seed, tally| sweep(seed, options, tally));
}
