//! Waits for a mark.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{
    error::{Error, Result},
    pipeline::{
        core::Core,
        state::{
            mark::{Mark, WaiterId},
            unit::Span,
        },
    },
    sabotage::{self, Sabotage},
};

/// Resolves when everything below the goal is synced. Requests nothing.
pub(crate) fn reach_synced(core: &Core, span: impl Into<Span>) -> Reached<'_> {
    Reached { core, mark: core.synced(), span: span.into(), waiter: None }
}

/// Resolves when the operating system has everything below the goal. Requests nothing.
pub(crate) fn reach_written(core: &Core, span: impl Into<Span>) -> Reached<'_> {
    Reached { core, mark: core.written(), span: span.into(), waiter: None }
}

/// Waits for a mark. Dropping the future removes its waiter.
pub(crate) struct Reached<'a> {
    core: &'a Core,
    mark: &'a Mark,
    span: Span,
    waiter: Option<WaiterId>,
}

impl Reached<'_> {
    /// Returns whether waits may fail: the log has stopped, or its I/O stalls.
    #[inline]
    fn may_fail(&self) -> bool {
        self.core.status().is_stopped() || self.core.vitals().stalls().fails_any()
    }

    /// Polls while waits may fail. Kept apart, because it would take registers from `poll`.
    #[cold]
    #[inline(never)]
    fn poll_failed(&self) -> Poll<Result<()>> {
        self.core.status().check()?;
        let stalls = self.core.vitals().stalls();
        let fails = match std::ptr::eq(self.mark, self.core.synced()) {
            true => stalls.fails_synced(),
            false => stalls.fails_written(),
        };
        if !fails {
            return Poll::Pending;
        }
        let Span { lsn, goal } = self.span;
        let misnames = sabotage::is_on(Sabotage::MisnameIndeterminate);
        Poll::Ready(Err(Error::Indeterminate { lsn: if misnames { goal.end } else { lsn } }))
    }
}

impl Future for Reached<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let is_reached = this.mark.register(this.span.goal.end, &mut this.waiter, context.waker());
        // Checked after registering, because a later truncation or stop wakes this task. Checked
        // after the mark was read, because the mark may be of a later epoch.
        this.core.epochs().check(this.span.goal)?;
        if is_reached {
            return Poll::Ready(Ok(()));
        }
        if this.may_fail() {
            return this.poll_failed();
        }
        sabotage::take_blamed().map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
    }
}

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.mark.cancel(waiter);
        }
    }
}
