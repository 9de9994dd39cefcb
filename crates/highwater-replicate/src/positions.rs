//! Arithmetic of positions.

use highwater::Lsn;

/// Returns the number of bytes from `from` to `to`, or 0 if `to` is below.
pub(crate) fn bytes_between(from: Lsn, to: Lsn) -> usize {
    usize::try_from(to.as_u64().saturating_sub(from.as_u64())).unwrap_or(usize::MAX)
}

/// Returns the position `bytes` bytes after `lsn`.
pub(crate) fn after(lsn: Lsn, bytes: usize) -> Lsn {
    Lsn::new(lsn.as_u64().saturating_add(bytes as u64))
}
