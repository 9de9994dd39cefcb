//! [`OpenLog`]: a holder of the log, which can move its marks.

use std::{ops::Deref, sync::Arc};

use crate::{
    error::{ClosedBy, Error},
    pipeline::{
        core::{Core, Patient, Role, Start},
        state::metrics::Instruments,
    },
};

/// A share of an open log. Handles, tickets and jobs hold one, because they can move its marks.
///
/// When the last holder is gone, no mark moves any more, and waiting readers are woken. A reader
/// holds only the [`Core`], so a reader that waits for more does not keep the log open.
#[derive(Debug)]
pub(crate) struct OpenLog(Arc<Core>);

impl OpenLog {
    /// Starts the log. `perform` does the work of a role.
    pub(super) fn start(
        start: Start,
        instruments: Instruments,
        perform: fn(&Arc<Core>, Role),
    ) -> Arc<Self> {
        let log = OpenLog(Arc::new(Core::new(start, instruments, perform)));
        let patient: Arc<dyn Patient> = Arc::clone(&log.0) as Arc<dyn Patient>;
        log.vitals().attach(Arc::downgrade(&patient));
        let core = Arc::downgrade(&log);
        let gone = move || {
            if let Some(core) = core.upgrade().filter(|core| core.status().check().is_ok()) {
                settle(&core);
                // No job runs any more, so calls that need none get the same error from now on.
                core.stop(Error::Closed { by: ClosedBy::RuntimeGone });
            }
        };
        if let Some(watch) = log.executor().on_gone(Box::new(gone)) {
            // No other code sets this cell.
            let _ = log.life.runtime.set(watch);
        }
        log.publish_metrics();
        Arc::new(log)
    }

    /// Adds a holder, unless the last one is gone.
    pub(crate) fn enter(core: &Arc<Core>) -> Option<Self> {
        core.status().enter().then(|| OpenLog(Arc::clone(core)))
    }
}

impl Deref for OpenLog {
    type Target = Arc<Core>;

    fn deref(&self) -> &Arc<Core> {
        &self.0
    }
}

impl Drop for OpenLog {
    fn drop(&mut self) {
        if self.0.status().leave() {
            settle(&self.0);
            self.0.end_waits();
        }
    }
}

/// Writes the mark that is owed, because the process may end before the log is seen at rest.
fn settle(core: &Arc<Core>) {
    if core.vitals().owed_mark().is_owed() {
        // As for a job: no other process owns the log while this may write.
        if let Some(_lock) = core.life.lock.hold() {
            (core.perform)(core, Role::Mark);
        }
    }
}
