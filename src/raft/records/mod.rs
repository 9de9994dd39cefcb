//! The format of the records of a Raft log. Pure: no I/O, and no panic for any input.
//!
//! The first byte is the version (high four bits) and the kind (low four bits). Integers are
//! varints. A record is checked as a whole: one that is too long, too short or malformed is
//! rejected.

pub(crate) mod entries;
pub(crate) mod kind;
pub(crate) mod record;
#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests;
pub(crate) mod varint;
