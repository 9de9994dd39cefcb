//! The model holds, and each mistake has a counterexample.

use super::{ACKED_IS_KEPT, ACKED_ONCE, CUT_STAYS_CUT, DAMAGE_IS_REPORTED, Mistake, Recovery};
use crate::check::{assert_broken, assert_holds};

#[test]
fn recovery_keeps_acknowledged_records() {
    assert_holds(Recovery::new(Mistake::None), 120_000);
}

#[test]
fn recovery_reports_damage() {
    assert_holds(Recovery::damaged(Mistake::None), 90_000);
}

#[test]
fn acknowledging_before_flush_loses_records() {
    assert_broken(Recovery::new(Mistake::AcknowledgeEarly), ACKED_IS_KEPT);
}

#[test]
fn acknowledging_before_flush_acks_an_lsn_twice() {
    assert_broken(Recovery::new(Mistake::AcknowledgeEarly), ACKED_ONCE);
}

#[test]
fn cut_in_the_same_epoch_revives_records() {
    assert_broken(Recovery::new(Mistake::KeepEpoch), CUT_STAYS_CUT);
}

#[test]
fn header_used_before_its_flush_loses_records() {
    assert_broken(Recovery::new(Mistake::UseHeaderEarly), ACKED_IS_KEPT);
}

#[test]
fn resuming_without_rewriting_loses_records() {
    assert_broken(Recovery::new(Mistake::ResumeUnwritten), ACKED_IS_KEPT);
}

#[test]
fn epoch_without_unclaimed_units_loses_records() {
    assert_broken(Recovery::new(Mistake::DropAboveClaim), ACKED_IS_KEPT);
}

#[test]
fn ignored_claims_hide_damage() {
    assert_broken(Recovery::damaged(Mistake::IgnoreClaims), DAMAGE_IS_REPORTED);
}
