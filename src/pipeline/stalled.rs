//! The reaction of the log to a call that does not return.
//!
//! The watching thread sets the state and wakes tasks. It runs no other user code: events, metrics
//! and completions run on a separate thread. A subscriber may write to the disk that hangs, and
//! must not keep the watching thread from the next check, or from other logs.

use std::{io, sync::Arc};

use crate::pipeline::{
    core::{Core, Patient, Role},
    job::start_apart,
    state::{
        metrics::Instruments,
        stalls::{Stall, StallEvent, Verdict},
    },
};

impl Patient for Core {
    fn act(self: Arc<Self>, verdict: &Verdict) {
        if let Some(stall) = verdict.stops {
            self.set_stopped(self.stalled(stall).into_poison());
        }
        if verdict.is_changed {
            self.wake_health_watches();
            if Instruments::IS_ON {
                let core = Arc::clone(&self);
                apart(&self, move || core.publish_metrics());
            }
        }
        if verdict.fails_more || verdict.stops.is_some() {
            self.wake_waiters();
        }
        if let Some(stall) = verdict.stops {
            let core = Arc::clone(&self);
            apart(&self, move || core.stop(core.stalled(stall).into_poison()));
        } else if verdict.fails_more {
            let core = Arc::clone(&self);
            apart(&self, move || core.run_completions());
        }
        if let Some(event) = verdict.event {
            report(&self, event);
        }
    }

    fn settle(self: Arc<Self>) {
        if self.status().is_stopped() {
            // Nothing writes to it any more.
            self.vitals().owed_mark().take();
        } else {
            start_apart(&self, Role::Mark);
        }
    }

    fn is_unwatched(self: Arc<Self>, error: &io::Error) {
        let log = self.storage().location();
        tracing::warn!(
            log,
            %error,
            "no thread can be started to watch the I/O, so stalls are neither reported nor acted on"
        );
    }
}

/// Reports an event, unless an earlier report of a lasting stall does not return.
fn report(core: &Core, event: StallEvent) {
    let is_busy = core.vitals().begin_report();
    if is_busy && matches!(event, StallEvent::Lasts(_)) {
        return;
    }
    let (vitals, log) = (Arc::clone(core.vitals()), core.storage().location());
    apart(core, move || {
        let (StallEvent::Lasts(stall) | StallEvent::Ended(stall)) = event;
        let Stall { operation, sequence, time } = stall;
        let file = sequence.file_name();
        match event {
            StallEvent::Lasts(_) => {
                tracing::warn!(log, %operation, file, ?time, "the log's I/O does not return");
            }
            StallEvent::Ended(_) => {
                tracing::info!(log, %operation, file, ?time, "the log's I/O returns again");
            }
        }
        vitals.end_report();
    });
}

fn apart(core: &Core, work: impl FnOnce() + Send + 'static) {
    core.executor().run_apart(Box::new(work));
}
