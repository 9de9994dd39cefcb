//! The store under openraft 0.9's own suite, in four ways, and a node on it; and what that suite
//! doesn't look at.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on panics")]

mod conformance;
mod node;
mod reopening;
mod state_machine;
