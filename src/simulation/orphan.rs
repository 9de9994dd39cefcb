//! Writes whose caller gave up on them, and that are done all the same, later.

use std::sync::{Arc, Mutex};

use crate::{simulation::fault::lock, storage::StorageFile};

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
        lock(&self.0).push(Orphan { operations_left, file, bytes, offset });
    }

    /// All of them land now.
    pub(super) fn land(&self) {
        lock(&self.0).drain(..).for_each(Orphan::land);
    }

    /// One more operation has begun: those whose time has come land.
    pub(super) fn step(&self) {
        let mut orphans = lock(&self.0);
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
        // Nobody is left to hear of an error.
        let _ = self.file.write_at(&self.bytes, self.offset);
    }
}
