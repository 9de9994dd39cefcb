//! The cut: the log ends at an earlier position, and goes on from there in the next epoch.
//!
//! Nothing is overwritten. A fresh segment begins at the cut; its synced header is the commit point.
//! From then on frames and segments of lower epochs at or above the cut don't exist for anyone, and
//! removing their files is no more than cleaning up.
//!
//! It is a barrier: it holds all permits of the ring, so nothing is in flight and whoever reserves
//! next does so in the new epoch. All that takes long comes before: the flush of what stays, and the
//! preparation of the file. Appends wait for one small write and one flush.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    error::{Error, Result},
    lsn::Lsn,
    pipeline::{core::Core, epochs::Goal, job::Job},
    turn::lock_over_io,
};

impl Core {
    /// Ends the log at `at`, which in `epoch` was the end of a unit that is written, or where it
    /// begins. Answers with the new end, once that is durable.
    pub(crate) async fn cut(self: &Arc<Self>, at: Option<Lsn>, epoch: u64) -> Result<Lsn> {
        if let Some(end) = at {
            // The header will say so.
            self.wait_synced(Goal { end, epoch }).await?;
        }
        self.wait_for_spare().await?;
        let all = self.acquire(self.ring.capacity_bytes()).await?;
        // A rotation has taken it meanwhile. The next one can't.
        self.wait_for_spare().await?;
        self.status.check_new()?;
        let (first, end) = (self.purge.first(), self.records_end());
        let cut = at.unwrap_or(first);
        if at.is_some() {
            self.epochs.check(Goal { end: cut, epoch })?;
        }
        if cut < first {
            return Err(Error::OutOfRange { lsn: cut, first, end });
        }
        if cut >= end {
            return Ok(cut);
        }
        // From here on a job ends it, whatever becomes of this future.
        all.forget();
        let (answer, receive) = oneshot::channel();
        let job = Job::new(Arc::clone(self), move |core| {
            // The receiver may be gone: its future was dropped.
            let _ = answer.send(core.finish_cut(cut));
        });
        job.spawn();
        match receive.await {
            Ok(done) => done.map(|()| cut),
            Err(_) => Err(self.why_stopped()),
        }
    }

    /// All permits are ours.
    fn finish_cut(self: &Arc<Self>, cut: Lsn) -> Result<()> {
        let done = match lock_over_io(&self.writer) {
            Ok(mut writer) => self.status.check().and_then(|()| {
                writer.begin_epoch(self, cut).inspect_err(|error| {
                    // Under the lock: whoever waits for it must not write behind a failed write.
                    self.set_stopped(error.clone().into_poison());
                })
            }),
            Err(_) => return Err(self.why_stopped()),
        };
        if let Err(error) = done {
            let error = error.into_poison();
            // Said aloud, and everybody woken, once the lock is free.
            self.stop(error.clone());
            return Err(error);
        }
        // To see what became of the positions that they wait for.
        self.written.wake_all();
        self.synced.wake_all();
        self.publish_marks();
        self.remove_segments();
        self.permits.add_permits(self.permits_all() as usize);
        Ok(())
    }
}
