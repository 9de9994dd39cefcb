//! Mistakes that the tests must catch: the negative control of each guarantee.
//!
//! A check that cannot fail proves nothing. So mistakes that real logs have made are kept in the
//! code, at the place where each could be made, behind the private feature `__sabotage`.
//! `tests/controls.rs` fails if a sweep does not detect one. Without the feature this code is not
//! compiled.

/// A mistake that a test can switch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "__sabotage"),
    allow(dead_code, unreachable_pub, reason = "no mistake can be switched on")
)]
pub enum Sabotage {
    /// The synced mark moves before the flush.
    AcknowledgeBeforeFlush,
    /// The directory is not flushed after a segment was prepared.
    SkipDirectoryFlush,
    /// After a flush, `synced` moves to the `written` of its end, not of its beginning.
    MarkLaterByte,
    /// A failed flush is repeated, and the success of the second one is believed.
    RetryFailedFlush,
    /// An unclosed log is continued as a closed one, without a rewrite of cached bytes.
    TrustPageCache,
    /// Only one waiter gets the error of a failed flush. The flush is repeated for the others.
    BlameOneWaiter,
    /// Recovery ends the log at the last commitment and assigns the LSNs above it again.
    ReuseLsn,
    /// The search past damage trusts the length of a damaged frame.
    TrustLength,
    /// Old segments are removed before the record of the truncation is durable.
    RemoveBeforeFlush,
    /// A truncation of the end returns before its header is durable.
    CutBeforeFlush,
    /// The waiter of a truncated record succeeds when the log has passed its LSN again.
    ForgetCuts,
    /// A cut of durable data moves files away before the manifest lists them.
    CutBeforeManifest,
    /// An unfinished copy of a log is not marked as unfinished.
    ForgetUnfinished,
    /// A follower of durable records does not wait for the flush.
    FollowUnsynced,
    /// Checksums do not cover the LSN of a frame.
    ForgetLsn,
    /// A reused file is overwritten before its new name is durable.
    RecycleBeforeFlush,
    /// A file is reused before its zeros are durable.
    RecycleUnflushed,
    /// A file is reused with its old header.
    RecycleHeader,
    /// A file that has a second name is reused.
    RecycleShared,
    /// A file that a reader has open is reused.
    RecycleOpen,
    /// A Raft log begins above its newest checkpoint.
    ForgetState,
    /// A Raft log's beginning moves before the purge that permits it is durable.
    BeginBeforePurge,
    /// The hint to a Raft log's checkpoint in the headers is ignored. This is no mistake: opening
    /// takes longer and finds the same.
    IgnoreHint,
    /// A vote is reported saved without a flush.
    SkipVoteFlush,
    /// A short inline write of an append is taken for a complete one.
    BelieveShortWrite,
    /// A group is flushed without a frame that claims the previous group.
    ForgetClaim,
    /// The mark that a run of flushes owes is never written.
    ForgetOwedMark,
    /// A conditional append takes its place although another append came before it.
    ForgetConflict,
    /// A durable write is an ordinary one, and is believed to be durable.
    DropDurability,
    /// A durable write is believed to cover frames that were written before it.
    ForgetEarlierWrites,
    /// Closing a log does not write the note of the last close.
    ForgetClosedNote,
    /// `Indeterminate` names the next record's LSN, which is given to another record.
    MisnameIndeterminate,
    /// An unclosed log is resumed without rewriting bytes that may be only cached.
    ResumeUnwritten,
    /// The move of a slot is reported durable before the flush.
    AdvanceBeforeFlush,
    /// Truncations go up to a slot's position that is not durable yet.
    TruncatePastSlot,
    /// The retention ignores slots and leases.
    RetainPastSlot,
    /// A closed log whose last slots records can't be read is opened without slots.
    ForgetDamagedSlots,
    /// A time mark repeats the clock, which may have jumped back.
    TimeGoesBack,
    /// The position of a time is that of the newest mark below it.
    TrustNewestMark,
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

    /// Set once any thread has switched a mistake on. Keeps the other threads fast.
    static IS_USED: AtomicBool = AtomicBool::new(false);

    thread_local! {
        static CURRENT: Cell<Option<Sabotage>> = const { Cell::new(None) };
        static BLAMED: RefCell<Option<Error>> = const { RefCell::new(None) };
    }

    /// Returns whether the calling thread makes this mistake.
    pub(crate) fn is_on(sabotage: Sabotage) -> bool {
        IS_USED.load(Ordering::Relaxed) && CURRENT.get() == Some(sabotage)
    }

    pub(crate) fn current() -> Option<Sabotage> {
        CURRENT.get()
    }

    /// Switches the mistake of the calling thread, or switches it off.
    pub(crate) fn enter(sabotage: Option<Sabotage>) {
        IS_USED.fetch_or(sabotage.is_some(), Ordering::Relaxed);
        CURRENT.set(sabotage);
        BLAMED.take();
    }

    /// Runs `run` with a mistake switched on, for this thread and its simulations.
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

    /// Keeps the error for the first waiter on this thread, if `BlameOneWaiter` is on.
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
