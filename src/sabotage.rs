//! Mistakes that the tests must catch, made on demand: each guarantee's negative control.
//!
//! A check that can't fail proves nothing. So the mistakes that logs have really made are kept in
//! the code, at the place where they would be made, behind the private feature `__sabotage`, and
//! `tests/controls.rs` fails if a sweep overlooks one. Without the feature none of this exists.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "__sabotage"),
    allow(dead_code, unreachable_pub, reason = "none can be made")
)]
pub enum Sabotage {
    /// The synced mark moves before the flush.
    AcknowledgeBeforeFlush,
    /// The directory is not flushed when a segment was prepared.
    SkipDirectoryFlush,
    /// The synced mark moves to what is written when the flush ends, not when it began.
    MarkLaterByte,
    /// A flush that failed is asked for again, and its Ok believed.
    RetryFailedFlush,
    /// An unclosed log goes on in place, behind what may be in the page cache alone.
    TrustPageCache,
    /// One of those who wait hears of a failed flush; then it is tried again for the others.
    BlameOneWaiter,
    /// Recovery ends the log at the last commitment, and hands out the LSNs above it again.
    ReuseLsn,
    /// The search past damage goes on where a length says that the next frame is.
    TrustLength,
    /// Old segments are removed before the record that says so is durable.
    RemoveBeforeFlush,
    /// A truncation of the end is answered before the header that says so is durable.
    CutBeforeFlush,
    /// Who waits for a record that was cut is answered when the log has grown past it again.
    ForgetCuts,
    /// What a cut of durable data takes away is set aside before the manifest tells of it.
    CutBeforeManifest,
    /// A copy of a log that isn't finished isn't marked as such.
    ForgetUnfinished,
    /// A follower of durable records doesn't wait for the flush.
    FollowUnsynced,
    /// Checksums don't cover where a frame belongs.
    ForgetLsn,
    /// A Raft log begins above its newest state record.
    ForgetState,
    /// A Raft log's beginning moves before the purge that lets it is durable.
    BeginBeforePurge,
    /// What the headers tell of a Raft log's state record isn't looked at. No mistake: opening takes
    /// longer, and finds the same.
    IgnoreHint,
    /// A vote is answered without a flush.
    SkipVoteFlush,
}

#[cfg(not(feature = "__sabotage"))]
pub(crate) use none::{blame, is_on, take_blamed};
#[cfg(feature = "__sabotage")]
pub use switch::with;
#[cfg(feature = "__sabotage")]
pub(crate) use switch::{blame, current, enter, is_on, take_blamed};

#[cfg(not(feature = "__sabotage"))]
mod none {
    use super::Sabotage;
    use crate::error::Error;

    pub(crate) const fn is_on(_: Sabotage) -> bool {
        false
    }

    pub(crate) const fn blame(_: &Error) -> bool {
        false
    }

    pub(crate) const fn take_blamed() -> Option<Error> {
        None
    }
}

#[cfg(feature = "__sabotage")]
mod switch {
    use std::{
        cell::{Cell, RefCell},
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::Sabotage;
    use crate::error::Error;

    /// Whether any thread ever made a mistake: keeps the others quick.
    static IS_USED: AtomicBool = AtomicBool::new(false);

    thread_local! {
        static CURRENT: Cell<Option<Sabotage>> = const { Cell::new(None) };
        static BLAMED: RefCell<Option<Error>> = const { RefCell::new(None) };
    }

    /// Whether the caller's thread is to make this mistake.
    pub(crate) fn is_on(sabotage: Sabotage) -> bool {
        IS_USED.load(Ordering::Relaxed) && CURRENT.get() == Some(sabotage)
    }

    pub(crate) fn current() -> Option<Sabotage> {
        CURRENT.get()
    }

    /// Has the caller's thread make a mistake, or none, from now on.
    pub(crate) fn enter(sabotage: Option<Sabotage>) {
        IS_USED.fetch_or(sabotage.is_some(), Ordering::Relaxed);
        CURRENT.set(sabotage);
        BLAMED.take();
    }

    /// Runs `run` with a mistake made on this thread and on those of its simulations.
    pub fn with<T>(sabotage: Sabotage, run: impl FnOnce() -> T) -> T {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                enter(None);
            }
        }
        enter(Some(sabotage));
        let _leave = Leave;
        run()
    }

    /// If one waiter is to be blamed: keeps the error for the first who asks on this thread.
    pub(crate) fn blame(error: &Error) -> bool {
        let is_on = is_on(Sabotage::BlameOneWaiter);
        if is_on {
            BLAMED.set(Some(error.clone()));
        }
        is_on
    }

    pub(crate) fn take_blamed() -> Option<Error> {
        if !IS_USED.load(Ordering::Relaxed) {
            return None;
        }
        BLAMED.take()
    }
}
