//! Closing: everything written, synced and noted as complete, the lock freed.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    error::{Error, Result},
    format::control::Control,
    pipeline::{
        core::{CONTROL_FRAME_BYTES, Core, FIRST_FRAME_BYTES},
        job::Job,
        writer::Drained,
    },
    sync::Ordering,
};

impl Core {
    pub(crate) async fn close(self: &Arc<Self>) -> Result<()> {
        self.status.begin_closing();
        // What was left to be written later holds permits.
        self.kick_writer();
        // Room in the ring is given in the order in which it was asked for: those before us append.
        let all = match self.permits.acquire_many(self.permits_all()).await {
            Ok(all) => all,
            Err(_) => return self.closed_before().await,
        };
        if self.status.check().is_err() {
            return self.closed_before().await;
        }
        // From here on a job ends it, whatever becomes of this future.
        all.forget();
        let (answer, receive) = oneshot::channel();
        let job = Job::new(Arc::clone(self), move |core| {
            let closed = core.finish_close();
            core.lock_cell().release_from_last_job();
            // The receiver may be gone: its future was dropped.
            let _ = answer.send(closed);
        });
        job.spawn();
        match receive.await {
            Ok(closed) => closed,
            Err(_) => self.closed_before().await,
        }
    }

    /// The answer when the log had stopped before: fine if it was closed, else why it stopped.
    async fn closed_before(&self) -> Result<()> {
        self.lock_cell().release().await;
        match self.status.check() {
            Err(Error::Closed { reason: CLOSED }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether `close` has ended the log, and not a failure.
    pub(crate) fn was_closed(&self) -> bool {
        matches!(self.status.check(), Err(Error::Closed { reason: CLOSED }))
    }

    fn finish_close(self: &Arc<Self>) -> Result<()> {
        let closed = self.sync_and_note_close();
        match &closed {
            Ok(()) => self.stop(Error::Closed { reason: CLOSED }),
            Err(closed @ Error::Closed { .. }) => self.stop(closed.clone()),
            Err(error) => self.stop(error.clone().into_poison()),
        }
        self.segments.close_files();
        self.remove_spare();
        // If it had stopped before, then for that reason.
        closed.or_else(|_| self.status.check())
    }

    /// A closed log is opened without a look at what comes before its close, so the beginning stands
    /// right before that if no header tells it. All permits are ours.
    fn note_first(self: &Arc<Self>) {
        let is_appended = !self.is_clean_end(self.ring.tail());
        if is_appended && self.purge.is_untold() && self.status.check().is_ok() {
            let first = self.purge.first();
            let reserved = self.ring.reserve(FIRST_FRAME_BYTES);
            self.publish_control(reserved, Control::First(first));
        }
    }

    /// A closed log keeps no empty file. Not vital: what stays is removed by the next opening.
    fn remove_spare(&self) {
        if let Some(spare) = self.space.discard_spare() {
            let name = spare.file.name().to_owned();
            drop(spare);
            if let Err(error) = self.storage.remove(&name) {
                tracing::debug!(name, %error, "an unused segment stays until the log is opened");
            }
        }
    }

    fn sync_and_note_close(self: &Arc<Self>) -> Result<()> {
        // The permits that our own frames give back are for nobody: an append that was let in before we
        // began to close may still be waiting, and would stand between them or behind the close.
        self.permits.close();
        self.note_first();
        self.sync_once()?;
        self.status.check()?;
        let end = self.ring.tail();
        if self.is_clean_end(end) {
            return Ok(());
        }
        // All permits are ours, so the close is the last frame, and it claims all before it.
        let reserved = self.ring.reserve(CONTROL_FRAME_BYTES);
        self.close_frame.store(reserved.lsn().as_u64(), Ordering::Release);
        self.publish_control(reserved, Control::Close);
        while self.ring.drained() < self.ring.tail() {
            if self.drain_once() != Drained::Wrote {
                self.status.check()?;
            }
        }
        self.sync_once()?;
        self.status.check()
    }
}

const CLOSED: &str = "close was called";
