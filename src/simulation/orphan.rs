//! Late writes: their caller got a failure, but they are done later.

use std::sync::{Arc, Mutex};

use crate::{storage::StorageFile, sync::LockAlways};

#[derive(Default)]
pub(super) struct Orphans(Mutex<Vec<Orphan>>);

struct Orphan {
    operations_left: u64,
    file: Arc<dyn StorageFile>,
    bytes: Vec<u8>,
    offset: u64,
}

impl Orphans {
    pub(super) fn add(
        &self,
        file: &Arc<dyn StorageFile>,
        bytes: &[u8],
        offset: u64,
        operations_left: u64,
    ) {
        let (file, bytes) = (Arc::clone(file), bytes.to_vec());
        self.0.lock_always().push(Orphan { operations_left, file, bytes, offset });
    }

    /// Does all late writes now.
    pub(super) fn land(&self) {
        self.0.lock_always().drain(..).for_each(Orphan::land);
    }

    /// Counts an operation, and does the writes that are due.
    pub(super) fn step(&self) {
        let mut orphans = self.0.lock_always();
        if orphans.is_empty() {
            return;
        }
        let (waiting, landing): (Vec<Orphan>, Vec<Orphan>) =
            orphans.drain(..).partition(|orphan| orphan.operations_left > 0);
        landing.into_iter().for_each(Orphan::land);
        orphans.extend(waiting.into_iter().map(Orphan::one_less));
    }
}

impl Orphan {
    fn one_less(self) -> Self {
        Orphan { operations_left: self.operations_left - 1, ..self }
    }

    fn land(self) {
        // There is no caller left for the error.
        let _ = self.file.write_at(&self.bytes, self.offset);
    }
}
