//! Cycles that are left.

/// The crate and the files of each cycle. A room that is clean must not be listed.
pub(crate) const REMAINING: &[(&str, &[&str])] = &[];
