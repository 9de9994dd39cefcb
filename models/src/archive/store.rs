//! The content of an object store: objects, and the entries of the manifest.

use std::collections::BTreeSet;

/// The line of a leader: the term and tag of its promotion, as one number.
pub(super) type Line = u8;

/// An object with the record of a line at an LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Object {
    /// The line in the object's name.
    pub(super) name: Line,
    pub(super) lsn: usize,
    /// The line whose record the object holds.
    pub(super) content: Line,
}

/// An entry of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Entry {
    /// The object of this line and LSN is part of the archive.
    Segment(Line, usize),
    /// The line begins at this LSN. Lower lines get no more entries.
    Fence(Line, usize),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Archive {
    pub(super) objects: BTreeSet<Object>,
    /// Entry `n` is at the index `n`. A writer puts the entry after the last one it has read.
    pub(super) entries: Vec<Entry>,
}

impl Entry {
    pub(super) fn line(&self) -> Line {
        match self {
            Self::Segment(line, _) | Self::Fence(line, _) => *line,
        }
    }
}

impl Archive {
    pub(super) fn find(&self, name: Line, lsn: usize) -> Option<Object> {
        self.objects.iter().copied().find(|object| (object.name, object.lsn) == (name, lsn))
    }

    /// Returns the highest line that the first `seen` entries fence the others for, or 1.
    pub(super) fn line_of(&self, seen: usize) -> Line {
        let fences = self.entries.iter().take(seen).filter_map(|entry| match entry {
            Entry::Fence(line, _) => Some(*line),
            Entry::Segment(..) => None,
        });
        fences.max().unwrap_or(1)
    }
}
