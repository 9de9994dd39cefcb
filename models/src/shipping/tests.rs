//! The model holds, and each mistake has a counterexample.

use super::{COPIES, COPIES_AT_ACK, GROWS, MARKS, Mistake, SAME_BYTES, SOUND, Shipping};
use crate::check::{assert_broken, assert_holds};

#[test]
fn shipping_with_one_confirmation_holds() {
    assert_holds(Shipping::new(1, Mistake::None), 300_000);
}

#[test]
fn shipping_with_two_confirmations_holds() {
    assert_holds(Shipping::new(2, Mistake::None), 250_000);
}

#[test]
fn shipping_unsynced_records_diverges_unnoticed() {
    assert_broken(Shipping::new(1, Mistake::ShipUnsynced), SAME_BYTES);
}

#[test]
fn reporting_written_records_acks_early() {
    assert_broken(Shipping::new(1, Mistake::ReportWritten), COPIES_AT_ACK);
}

#[test]
fn report_of_earlier_connection_acks_early() {
    assert_broken(Shipping::new(2, Mistake::KeepReport), COPIES_AT_ACK);
}

#[test]
fn report_of_earlier_connection_is_above_the_end() {
    assert_broken(Shipping::new(1, Mistake::KeepReport), MARKS);
}

#[test]
fn common_point_by_ends_mixes_epochs() {
    assert_broken(Shipping::new(1, Mistake::CompareEnds), SOUND);
}

#[test]
fn cut_before_arrival_loses_copies() {
    assert_broken(Shipping::new(1, Mistake::CutFirst), COPIES);
}

#[test]
fn follower_with_its_own_epoch_outranks_leader() {
    assert_broken(Shipping::new(1, Mistake::FollowerBeginsEpoch), GROWS);
}
