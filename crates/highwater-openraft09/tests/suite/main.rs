//! Runs openraft 0.9's own suite in four ways, a node on the store, and tests beyond the suite.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test panics")]

mod conformance;
mod node;
mod reopening;
mod state_machine;
