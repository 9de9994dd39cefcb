//! The model holds, and each mistake has a counterexample.

use super::{
    ACKED_ONCE, AGREE, COPIES, PROMOTED_HAS_IT,
    rules::{Mistake, Promotion},
};
use crate::check::{assert_broken, assert_holds, bound};

#[test]
fn promotion_keeps_records_of_one_follower() {
    assert_holds(Promotion::new(1, Mistake::None), 500_000);
}

#[test]
fn promotion_keeps_records_of_two_followers() {
    assert_holds(Promotion::new(2, Mistake::None), 50_000);
}

/// A promotion of a leader in office is what an operator does to end a tie.
#[test]
fn repeated_promotion_keeps_records() {
    let crashes = bound(0, 1);
    let model = Promotion { stands_again: true, crashes, ..Promotion::new(1, Mistake::None) };
    assert_holds(model, 250_000);
}

#[test]
fn first_come_of_two_lines_keeps_records() {
    for (k, states_min) in [(1, 40_000), (2, 5_000)] {
        let crashes = bound(0, 1);
        let model = Promotion { is_first_come: true, crashes, ..Promotion::new(k, Mistake::None) };
        assert_holds(model, states_min);
    }
}

#[test]
fn lower_term_accepted_acks_an_lsn_twice() {
    assert_broken(Promotion::new(1, Mistake::AcceptLowerTerm), ACKED_ONCE);
}

#[test]
fn lower_term_accepted_loses_records() {
    assert_broken(Promotion::new(1, Mistake::AcceptLowerTerm), PROMOTED_HAS_IT);
}

#[test]
fn promise_unsynced_loses_records() {
    assert_broken(Promotion::new(1, Mistake::PromiseUnsynced), PROMOTED_HAS_IT);
}

#[test]
fn header_unsynced_loses_copies() {
    assert_broken(Promotion::new(1, Mistake::HeaderUnsynced), COPIES);
}

#[test]
fn equal_epochs_diverge_unnoticed() {
    assert_broken(Promotion::new(2, Mistake::NoTag), AGREE);
}

#[test]
fn plain_numbers_diverge_unnoticed() {
    assert_broken(Promotion::new(1, Mistake::PlainNumbers), AGREE);
}

#[test]
fn recovery_that_outranks_promotion_loses_records() {
    let model = Promotion { crashes: 2, ..Promotion::new(1, Mistake::RecoveryRaisesTerm) };
    assert_broken(model, PROMOTED_HAS_IT);
}

#[test]
fn position_read_before_the_promise_loses_records() {
    assert_broken(Promotion::new(1, Mistake::ReadFirst), PROMOTED_HAS_IT);
}

#[test]
fn too_few_promises_lose_records() {
    assert_broken(Promotion::new(1, Mistake::TooFewPromises), PROMOTED_HAS_IT);
}

#[test]
fn highest_by_end_loses_records() {
    let model =
        Promotion { stands_again: true, crashes: 0, ..Promotion::new(1, Mistake::HighestByEnd) };
    assert_broken(model, PROMOTED_HAS_IT);
}

#[test]
fn claim_as_position_loses_records() {
    assert_broken(Promotion::new(1, Mistake::ClaimedPosition), PROMOTED_HAS_IT);
}

#[test]
fn highest_by_last_record_loses_records() {
    let model =
        Promotion { stands_again: true, crashes: 0, ..Promotion::new(1, Mistake::HighestByRecord) };
    assert_broken(model, PROMOTED_HAS_IT);
}

#[test]
fn counting_older_lines_loses_records() {
    let model =
        Promotion { stands_again: true, crashes: 0, ..Promotion::new(1, Mistake::CountOlderLines) };
    assert_broken(model, PROMOTED_HAS_IT);
}

#[test]
fn both_lines_of_a_term_ack_an_lsn_twice() {
    assert_broken(Promotion::new(1, Mistake::IgnoreTag), ACKED_ONCE);
}

#[test]
fn cut_before_arrival_loses_copies() {
    assert_broken(Promotion::new(1, Mistake::CutFirst), COPIES);
}

#[test]
fn copy_opened_in_place_diverges_unnoticed() {
    assert_broken(Promotion::new(1, Mistake::CopyInPlace), AGREE);
}
