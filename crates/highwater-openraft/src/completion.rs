//! Calls the callback of an append exactly once.

use std::io;

use highwater::raft::AppendTicket;
use openraft::{RaftTypeConfig, storage::IOFlushed};

use crate::error::StoreError;

/// The callback of an append.
///
/// A node hangs if its callback is never called. So it is also called, with an error, if the
/// append's future is dropped.
pub(crate) struct Completion<C: RaftTypeConfig> {
    callback: Option<IOFlushed<C>>,
    group: u64,
}

impl<C: RaftTypeConfig> Completion<C> {
    pub(crate) fn new(callback: IOFlushed<C>, group: u64) -> Self {
        Completion { callback: Some(callback), group }
    }

    /// Passes the callback to the log.
    ///
    /// The log calls it once, in the order of the log, without a lock.
    pub(crate) fn on_durable(self, ticket: AppendTicket) {
        let group = self.group;
        ticket.on_durable(move |outcome| {
            let operation = "append: waiting until it is durable";
            let log = |source| StoreError::Log { group, operation, source };
            self.call(outcome.map_err(|error| log(error).into()));
        });
    }

    /// Returns the error of a refused append and reports it to the callback.
    pub(crate) fn refuse(self, error: StoreError) -> io::Result<()> {
        self.call(Err(error.clone().into()));
        Err(error.into())
    }

    fn call(mut self, outcome: io::Result<()>) {
        if let Some(callback) = self.callback.take() {
            callback.io_completed(outcome);
        }
    }
}

impl<C: RaftTypeConfig> Drop for Completion<C> {
    fn drop(&mut self) {
        if let Some(callback) = self.callback.take() {
            callback.io_completed(Err(StoreError::Cancelled { group: self.group }.into()));
        }
    }
}
