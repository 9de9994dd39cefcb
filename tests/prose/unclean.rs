//! Rooms whose prose is not clean yet.

/// A room, and the most findings that it may have. A room that is clean must not be listed.
pub(crate) const UNCLEAN: &[(&str, usize)] = &[];
