//! Mistakes that the tests make on purpose and must catch.
//!
//! A mistake is on for the thread that turned it on. Without `cfg(test)` or the private feature,
//! none is ever on.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
#[allow(unreachable_pub, reason = "public only with the private feature")]
pub enum Mistake {
    /// Reports bytes as synced before the flush.
    ReportEarly,
    /// Writes frames before everything that they claim is durable.
    IgnoreClaims,
    /// Accepts a leader of a lower term.
    AcceptLowerEpoch,
    /// Takes the last claim for the durable end of a copy that is opened.
    RankByClaim,
}

#[cfg(feature = "__sabotage")]
mod on {
    use std::cell::Cell;

    use super::Mistake;

    thread_local! {
        static MADE: Cell<Option<Mistake>> = const { Cell::new(None) };
    }

    /// Turns a mistake on for this thread, or all off.
    pub fn make(mistake: Option<Mistake>) {
        MADE.set(mistake);
    }

    pub(crate) fn is_on(mistake: Mistake) -> bool {
        MADE.get() == Some(mistake)
    }
}

#[cfg(feature = "__sabotage")]
pub(crate) use on::is_on;
#[cfg(feature = "__sabotage")]
pub use on::make;

#[cfg(not(feature = "__sabotage"))]
pub(crate) const fn is_on(_: Mistake) -> bool {
    false
}
