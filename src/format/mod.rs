//! The meaning of a log's bytes: encoding, checking, scanning, judging.
//!
//! This module has no I/O, no clock and no tokio. For any bytes, the result is a value or a reason,
//! never a panic. Recovery, replay and reads all use this module, so they agree about where the log
//! ends. `docs/FORMAT.md` is the normative text.

pub(crate) mod compression;
pub(crate) mod control;
pub(crate) mod epoch;
pub(crate) mod extension;
pub(crate) mod frame;
pub(crate) mod header;
pub(crate) mod judge;
pub(crate) mod last_close;
pub(crate) mod scan;
pub(crate) mod sealed_at;
pub(crate) mod search;
mod shift;
pub(crate) mod slots;
