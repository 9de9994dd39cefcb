//! What the bytes of a log mean: encoding, checking, scanning, judging.
//!
//! Pure: no I/O, no clock, no tokio. Any bytes may come in; what comes out is a value or a reason,
//! never a panic. Recovery, replay and reads all ask this module, so they can't disagree about
//! where the log ends. `docs/FORMAT.md` is the normative text.

pub(crate) mod compression;
pub(crate) mod control;
pub(crate) mod frame;
pub(crate) mod header;
pub(crate) mod judge;
pub(crate) mod scan;
pub(crate) mod search;
