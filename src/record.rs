//! A record as readers get it.

use bytes::Bytes;

use crate::lsn::Lsn;

/// One record: where it stands and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Its position.
    pub lsn: Lsn,
    /// Its bytes. Records of one read share a buffer, which stays in memory as long as any of
    /// them does: copy what is kept for long. One that was stored compressed has a buffer of its
    /// own.
    pub payload: Bytes,
}
