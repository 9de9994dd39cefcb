//! The exit statuses, which all commands share. Signals have 128 + n: see `files/temporary`.

use highwater::inspect::{Problem, ProblemKind};

/// The log is whole, or the command succeeded.
pub(crate) const WHOLE: u8 = 0;
/// The log ends with a torn tail.
pub(crate) const TORN: u8 = 1;
/// Durable bytes are wrong or missing, or an input is damaged.
pub(crate) const CORRUPT: u8 = 2;
/// The log or the input is intact and was written by a newer release.
pub(crate) const UNSUPPORTED: u8 = 3;
/// The log could not be read or written, or the command failed for another reason.
pub(crate) const UNREADABLE: u8 = 4;
/// The arguments are wrong: `EX_USAGE` of sysexits.h.
pub(crate) const WRONG_USAGE: u8 = 64;

/// Returns the status for a problem of a log.
pub(crate) fn status_of(problem: &Problem) -> u8 {
    status_of_kind(problem.kind)
}

/// Returns the status for a kind of problem.
pub(crate) fn status_of_kind(kind: ProblemKind) -> u8 {
    match kind {
        ProblemKind::Corrupt => CORRUPT,
        ProblemKind::Unsupported => UNSUPPORTED,
        _ => UNREADABLE,
    }
}
