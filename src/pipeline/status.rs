//! Whether the log still works, and if not, why: the first cause is kept for everybody.

use std::sync::OnceLock;

use crate::{
    error::{Error, Result},
    sync::{AtomicBool, Ordering},
};

#[derive(Debug, Default)]
pub(crate) struct Status {
    closing: AtomicBool,
    abandoned: AtomicBool,
    stopped: OnceLock<Error>,
}

impl Status {
    /// Whether work that was begun may go on.
    pub(crate) fn check(&self) -> Result<()> {
        self.stopped.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Whether a new append or sync may begin.
    pub(crate) fn check_new(&self) -> Result<()> {
        self.check()?;
        self.check_closing()
    }

    /// Whether reading may go on: it does after a failure, until the log is closed.
    pub(crate) fn check_read(&self) -> Result<()> {
        match self.check() {
            Ok(()) => Ok(()),
            Err(closed @ Error::Closed { .. }) => Err(closed),
            Err(_) => self.check_closing(),
        }
    }

    fn check_closing(&self) -> Result<()> {
        if self.closing.load(Ordering::Acquire) {
            return Err(Error::Closed { reason: "close was called" });
        }
        Ok(())
    }

    pub(crate) fn begin_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether nobody is left who could append or sync.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// Keeps the first cause.
    pub(crate) fn stop(&self, cause: Error) {
        // An error here says that there is a cause already.
        let _ = self.stopped.set(cause);
    }
}
