//! The status of the log: whether it works, and if not, why. Every caller gets the first cause.

use std::sync::OnceLock;

use crate::{
    error::{ClosedBy, Error, Result},
    sync::{AtomicBool, AtomicU64, Ordering},
};

#[derive(Debug)]
pub(crate) struct Status {
    is_closing: AtomicBool,
    stopped: OnceLock<Error>,
    /// The handles, tickets and jobs that can move the marks. It stays 0 once the last is gone.
    holder_count: AtomicU64,
}

impl Status {
    /// Returns the status of a log with one holder.
    pub(crate) fn new() -> Self {
        Status {
            is_closing: AtomicBool::new(false),
            stopped: OnceLock::new(),
            holder_count: AtomicU64::new(1),
        }
    }

    /// Returns why the log has stopped, if it has.
    pub(crate) fn check(&self) -> Result<()> {
        self.stopped.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Returns whether the log has stopped.
    #[inline]
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.get().is_some()
    }

    /// Returns whether a new append or sync may begin.
    pub(crate) fn check_new(&self) -> Result<()> {
        self.check()?;
        self.check_closing()
    }

    /// Returns whether reads are possible. A failure does not end reads; a close does.
    pub(crate) fn check_read(&self) -> Result<()> {
        match self.check() {
            Ok(()) => Ok(()),
            Err(closed @ Error::Closed { .. }) => Err(closed),
            Err(_) => self.check_closing(),
        }
    }

    fn check_closing(&self) -> Result<()> {
        match self.is_closing.load(Ordering::Acquire) {
            true => Err(Error::Closed { by: ClosedBy::Close }),
            false => Ok(()),
        }
    }

    pub(crate) fn begin_closing(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    /// Returns whether the log was ended by `close`, not by a failure.
    pub(crate) fn was_closed(&self) -> bool {
        matches!(self.check(), Err(Error::Closed { by: ClosedBy::Close }))
    }

    /// Returns why a call fails: the cause of the stop, or the close that is under way.
    pub(crate) fn why_stopped(&self) -> Error {
        self.check().err().unwrap_or(Error::Closed { by: ClosedBy::Close })
    }

    /// Stops the log. Keeps the first cause.
    pub(crate) fn stop(&self, cause: Error) {
        // An error here means that there is a cause already.
        let _ = self.stopped.set(cause);
    }

    /// Adds a holder. Returns `false` if the last one is gone.
    pub(crate) fn enter(&self) -> bool {
        let mut count = self.holder_count.load(Ordering::Relaxed);
        while count > 0 {
            let order = (Ordering::Relaxed, Ordering::Relaxed);
            match self.holder_count.compare_exchange_weak(count, count + 1, order.0, order.1) {
                Ok(_) => return true,
                Err(now) => count = now,
            }
        }
        false
    }

    /// Removes a holder. Returns whether it was the last.
    pub(crate) fn leave(&self) -> bool {
        self.holder_count.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Returns whether no holder is left, so that no mark moves any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.holder_count.load(Ordering::Acquire) == 0
    }
}
