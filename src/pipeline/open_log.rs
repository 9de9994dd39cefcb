//! Who can still move an open log on.

use std::{
    ops::Deref,
    sync::{Arc, Weak},
};

use crate::pipeline::core::Core;

/// An open log, as those hold it who can move its marks: handles, tickets and jobs. When the last
/// of them is gone the marks stand still for ever, and those who only read are told so; what they
/// hold is the [`Core`] alone, so that a reader which waits for more doesn't keep the log open.
#[derive(Debug)]
pub(crate) struct OpenLog(Arc<Core>);

impl OpenLog {
    /// `make` gets what a job has to hold while it runs.
    pub(super) fn new(make: impl FnOnce(Weak<OpenLog>) -> Core) -> Arc<Self> {
        Arc::new_cyclic(|open| OpenLog(Arc::new(make(Weak::clone(open)))))
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
        self.0.abandon();
    }
}
