//! The messages, in memory.

use bytes::Bytes;
use highwater::{Lsn, shipping::SegmentId};

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Auth(Bytes),
    Offer(Offer),
    Hello(Hello),
    Refuse(Refusal),
    Begin(Begin),
    Segment(Segment),
    Data { lsn: Lsn, bytes: Bytes },
    Commit { lsn: Lsn },
    Report(Report),
    Ping,
}

/// The log of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) log_id: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) first: Lsn,
    pub(crate) synced: Lsn,
}

/// The copy of the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) name: String,
    /// `None` if the directory is empty.
    pub(crate) log_id: Option<[u8; 16]>,
    pub(crate) promise: u64,
    /// Everything below was durable when the copy was opened.
    pub(crate) committed: Lsn,
    pub(crate) end: Lsn,
    /// The newest segments, oldest first.
    pub(crate) segments: Vec<SegmentId>,
    /// `None` if the newest segment is empty.
    pub(crate) tail: Option<Tail>,
}

/// A checksum of the bytes below the committed position of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) from: Lsn,
    pub(crate) to: Lsn,
    pub(crate) crc: u32,
}

/// The position from which on the leader sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) at: Lsn,
    /// The segment of the copy that continues; `None` if a segment message comes first.
    pub(crate) segment: Option<SegmentId>,
    /// The end of that segment in the leader's log, if it is sealed there.
    pub(crate) end: Option<Lsn>,
}

/// The beginning of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The end of the segment, if it is sealed.
    pub(crate) end: Option<Lsn>,
    pub(crate) header: Bytes,
}

/// The marks of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) epoch: u64,
    pub(crate) written: Lsn,
    pub(crate) synced: Lsn,
}

/// The reason why a side ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    OtherLog,
    Fenced { promised: u64 },
    Diverged { common: Lsn, end: Lsn },
    Ahead { synced: Lsn, end: Lsn },
    TooFarBehind { first: Lsn },
    NoCommonPoint,
    Name,
}
