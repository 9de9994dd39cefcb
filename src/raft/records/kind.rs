//! The first byte of a record: version and kind.

pub(crate) const VERSION: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// The first record of a log. Names the codec.
    Init = 1,
    /// Entries that follow the last entry.
    Append = 2,
    /// Entries that replace all entries from their first index on.
    Overwrite = 3,
    /// A copy of live entries. Changes only the position from which they are read.
    Copy = 4,
    Truncate = 5,
    Purge = 6,
    Vote = 7,
    Committed = 8,
    User = 9,
    Remove = 10,
    CheckpointBegin = 11,
    CheckpointPart = 12,
    CheckpointEnd = 13,
}

impl RecordKind {
    pub(crate) fn of(byte: u8) -> Result<RecordKind, &'static str> {
        const ALL: [RecordKind; 13] = [
            RecordKind::Init,
            RecordKind::Append,
            RecordKind::Overwrite,
            RecordKind::Copy,
            RecordKind::Truncate,
            RecordKind::Purge,
            RecordKind::Vote,
            RecordKind::Committed,
            RecordKind::User,
            RecordKind::Remove,
            RecordKind::CheckpointBegin,
            RecordKind::CheckpointPart,
            RecordKind::CheckpointEnd,
        ];
        if byte >> 4 != VERSION {
            return Err("another version, or not a record of a Raft log");
        }
        ALL.into_iter().find(|kind| kind.byte() == byte).ok_or("unknown kind of record")
    }

    pub(crate) fn byte(self) -> u8 {
        VERSION << 4 | self as u8
    }
}
