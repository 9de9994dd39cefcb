//! A disk that hangs on command.

use std::sync::{Arc, Mutex, PoisonError};

use highwater::{
    simulation::{Faults, Faulty, Gate, Op},
    storage::Storage,
};

/// The operations that change the disk. A frozen file system lets others pass.
const CHANGES: [Op; 6] = [Op::Create, Op::Write, Op::Resize, Op::Sync, Op::SyncDir, Op::Rename];

/// Holds all changes of the node's storages while it is frozen. A held change lands after the thaw.
#[derive(Clone, Debug)]
pub(crate) struct Freezer {
    faults: Faults,
    gates: Arc<Mutex<Vec<Gate>>>,
}

impl Freezer {
    pub(crate) fn new() -> Self {
        let faults = Faults::new();
        faults.record(false);
        Freezer { faults, gates: Arc::default() }
    }

    pub(crate) fn over<S: Storage>(&self, storage: S) -> Faulty<S> {
        self.faults.over(storage)
    }

    pub(crate) fn freeze(&self) {
        self.thaw();
        let gates = CHANGES.map(|op| self.faults.on(op).gate());
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).extend(gates);
    }

    /// Lets held changes land, and later ones pass.
    pub(crate) fn thaw(&self) {
        self.faults.heal();
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
