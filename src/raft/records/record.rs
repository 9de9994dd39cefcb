//! Encodes and decodes every record of a Raft log.

use bytes::Bytes;

use crate::raft::records::{
    entries::{EntriesHead, EntriesRecord},
    kind::RecordKind,
    varint::{Cursor, put, put_bytes},
};

const INCOMPLETE: &str = "the record is incomplete";

/// How far a group is purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// The last purged index.
    pub index: u64,
    /// The term of that entry; 0 if the caller does not use terms.
    pub term: u64,
    /// Bytes of the caller, for example the full id of the entry.
    pub id: Bytes,
}

impl Purged {
    pub(crate) fn put(&self, to: &mut Vec<u8>) {
        put(to, self.index);
        put(to, self.term);
        put_bytes(to, &self.id);
    }

    pub(crate) fn read(cursor: &mut Cursor) -> Option<Self> {
        let (index, term) = (cursor.varint()?, cursor.varint()?);
        Some(Purged { index, term, id: cursor.bytes()? })
    }
}

/// A change of one group.
#[derive(Clone, Debug)]
pub(crate) enum GroupChange {
    /// Entries, with the first index of each of their terms.
    Entries(RecordKind, EntriesHead, Vec<(u64, u64)>),
    /// Drops all entries from index `next` on.
    Truncate {
        next: u64,
    },
    Purge(Purged),
    Vote(Bytes),
    Committed(Bytes),
    User(Bytes),
    Remove,
}

impl GroupChange {
    /// Encodes any change except entries, which [`EntriesHead::put_before`] encodes.
    pub(crate) fn encode(&self, group: u64) -> Bytes {
        let kind = match self {
            GroupChange::Entries(kind, ..) => *kind,
            GroupChange::Truncate { .. } => RecordKind::Truncate,
            GroupChange::Purge(_) => RecordKind::Purge,
            GroupChange::Vote(_) => RecordKind::Vote,
            GroupChange::Committed(_) => RecordKind::Committed,
            GroupChange::User(_) => RecordKind::User,
            GroupChange::Remove => RecordKind::Remove,
        };
        let mut to = vec![kind.byte()];
        put(&mut to, group);
        match self {
            GroupChange::Truncate { next } => put(&mut to, *next),
            GroupChange::Purge(purged) => purged.put(&mut to),
            GroupChange::Vote(bytes) | GroupChange::Committed(bytes) | GroupChange::User(bytes) => {
                to.extend_from_slice(bytes);
            }
            GroupChange::Entries(..) | GroupChange::Remove => {}
        }
        to.into()
    }

    /// Decodes any change except entries. The group is decoded already.
    fn decode(kind: RecordKind, cursor: &mut Cursor) -> Result<GroupChange, &'static str> {
        Ok(match kind {
            RecordKind::Truncate => {
                GroupChange::Truncate { next: cursor.varint().ok_or(INCOMPLETE)? }
            }
            RecordKind::Purge => {
                let purged = Purged::read(cursor).ok_or(INCOMPLETE)?;
                if purged.index == u64::MAX {
                    return Err("impossible indexes");
                }
                GroupChange::Purge(purged)
            }
            RecordKind::Vote => GroupChange::Vote(cursor.rest()),
            RecordKind::Committed => GroupChange::Committed(cursor.rest()),
            RecordKind::User => GroupChange::User(cursor.rest()),
            RecordKind::Remove => GroupChange::Remove,
            _ => return Err("unknown kind of record"),
        })
    }
}

/// A record of the log.
#[derive(Clone, Debug)]
pub(crate) enum RaftRecord {
    Init {
        codec: u64,
    },
    Group(u64, GroupChange),
    CheckpointBegin {
        codec: u64,
    },
    /// Part `number` (from 0) of the checkpoint that starts at `begin`; holds group fragments.
    CheckpointPart {
        begin: u64,
        number: u64,
        fragments: Bytes,
    },
    /// Ends the checkpoint that starts at `begin` and has `count` parts.
    CheckpointEnd {
        begin: u64,
        count: u64,
    },
}

impl RaftRecord {
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = Vec::new();
        match self {
            RaftRecord::Init { codec } => {
                to.push(RecordKind::Init.byte());
                put(&mut to, *codec);
            }
            RaftRecord::Group(group, change) => return change.encode(*group),
            RaftRecord::CheckpointBegin { codec } => {
                to.push(RecordKind::CheckpointBegin.byte());
                put(&mut to, *codec);
            }
            RaftRecord::CheckpointPart { begin, number, fragments } => {
                to.push(RecordKind::CheckpointPart.byte());
                put(&mut to, *begin);
                put(&mut to, *number);
                to.extend_from_slice(fragments);
            }
            RaftRecord::CheckpointEnd { begin, count } => {
                to.push(RecordKind::CheckpointEnd.byte());
                put(&mut to, *begin);
                put(&mut to, *count);
            }
        }
        to.into()
    }

    pub(crate) fn decode(payload: Bytes) -> Result<RaftRecord, &'static str> {
        let length = payload.len() as u64;
        let mut cursor = Cursor::new(payload);
        let kind = RecordKind::of(cursor.byte().ok_or("the record is empty")?)?;
        if matches!(kind, RecordKind::Append | RecordKind::Overwrite | RecordKind::Copy) {
            let entries = EntriesRecord::after_kind(cursor)?;
            // Each entry takes at least one byte.
            if entries.head.count > length {
                return Err(INCOMPLETE);
            }
            let change = GroupChange::Entries(kind, entries.head, entries.terms()?);
            return Ok(RaftRecord::Group(entries.head.group, change));
        }
        let first = cursor.varint().ok_or(INCOMPLETE)?;
        let record = match kind {
            RecordKind::Init => RaftRecord::Init { codec: first },
            RecordKind::CheckpointBegin => RaftRecord::CheckpointBegin { codec: first },
            RecordKind::CheckpointPart => RaftRecord::CheckpointPart {
                begin: first,
                number: cursor.varint().ok_or(INCOMPLETE)?,
                fragments: cursor.rest(),
            },
            RecordKind::CheckpointEnd => {
                let count = cursor.varint().ok_or(INCOMPLETE)?;
                RaftRecord::CheckpointEnd { begin: first, count }
            }
            _ => RaftRecord::Group(first, GroupChange::decode(kind, &mut cursor)?),
        };
        if cursor.is_at_end() { Ok(record) } else { Err("bytes follow the record") }
    }
}
