//! The empty twin of `on`, for a library without the feature `metrics`.
//!
//! The types that callers make with `default()` hold a unit, because Clippy wants a unit struct
//! made by its name, which the types of `on` do not allow.

use std::time::Duration;

use super::{Flow, Holdings, SlotValues};

/// The name of the log in its metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogName(());

/// A sum of payload bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PayloadBytes(());

impl PayloadBytes {
    pub(crate) fn of<'a>(_: impl Iterator<Item = &'a [u8]>) -> Self {
        PayloadBytes(())
    }

    #[inline]
    pub(crate) fn add(&mut self, _: u64) {}

    #[inline]
    pub(crate) fn join(&mut self, _: PayloadBytes) {}
}

/// The payload bytes that were written since the log was opened.
#[derive(Debug, Default)]
pub(crate) struct PayloadTotal;

impl PayloadTotal {
    #[inline]
    pub(crate) fn add(&self, _: PayloadBytes) {}

    pub(crate) fn get(&self) -> u64 {
        0
    }
}

/// A call that waits until its records are durable.
pub(crate) struct Commit;

impl Commit {
    #[inline]
    pub(crate) fn done(self) {}
}

/// The handles of a log's metrics.
#[derive(Debug, Default)]
pub(crate) struct Instruments;

impl Instruments {
    /// Whether the log has metrics.
    pub(crate) const IS_ON: bool = false;

    pub(crate) fn new(_: &LogName, _: impl FnOnce() -> String) -> Self {
        Instruments
    }

    #[inline]
    pub(crate) fn commit(&self) -> Commit {
        Commit
    }

    #[inline]
    pub(crate) fn flushed(&self, _: Duration) {}

    #[inline]
    pub(crate) fn group(&self, _: u64) {}

    #[inline]
    pub(crate) fn room_waited(&self, _: Duration) {}

    #[inline]
    pub(crate) fn publish_flow(&self, _: impl FnOnce() -> Flow) {}

    #[inline]
    pub(crate) fn publish_holdings(&self, _: impl FnOnce() -> Holdings) {}

    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "only a user's call does it"))]
    #[inline]
    pub(crate) fn publish_slots(&self, _: impl FnOnce() -> Vec<SlotValues>) {}
}
