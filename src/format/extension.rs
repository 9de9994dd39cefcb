//! The extension area of a segment header. A later release can add entries to it without a new
//! version.
//!
//! ```text
//!  0      2        4
//!  | code | length | value … | 0..3 zeros |
//! ```
//!
//! A release that does not know a code skips the entry if [`SKIPPABLE`] is set, and refuses the
//! header otherwise. This release writes the entries of [`Extension`]. `docs/FORMAT.md` lists the
//! reserved codes.

use crate::{format::frame::is_aligned, lsn::Lsn};

/// The bit of a code that permits an older release to skip the entry.
pub(crate) const SKIPPABLE: u16 = 0x8000;

const ENTRY_ALIGN: usize = 4;

const CODE_TIME: u16 = 0x8003;
const CODE_SLOTS: u16 = 0x8004;

/// The entries that this release knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extension {
    /// The newest time mark before the segment.
    pub(crate) time: Option<TimeMark>,
    /// The position of a slots record. The slots records from there on, and their order, give the
    /// state of all slots. Absent if the log had no slot below the header's `synced`.
    pub(crate) slots: Option<Lsn>,
}

/// A clock value, and the position at which it was written to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeMark {
    pub(crate) unix_ms: u64,
    pub(crate) lsn: Lsn,
}

impl Extension {
    /// Returns the encoded entries.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(TimeMark { unix_ms, lsn }) = self.time {
            bytes.extend_from_slice(&CODE_TIME.to_le_bytes());
            bytes.extend_from_slice(&16u16.to_le_bytes());
            bytes.extend_from_slice(&unix_ms.to_le_bytes());
            bytes.extend_from_slice(&lsn.as_u64().to_le_bytes());
        }
        if let Some(lsn) = self.slots {
            bytes.extend_from_slice(&CODE_SLOTS.to_le_bytes());
            bytes.extend_from_slice(&8u16.to_le_bytes());
            bytes.extend_from_slice(&lsn.as_u64().to_le_bytes());
        }
        bytes
    }

    /// Takes the value of an entry. A value of another shape is skipped, as an unknown code.
    fn take(&mut self, code: u16, value: &[u8]) {
        let position = |bytes: &[u8]| {
            let word = bytes.try_into().ok().map(u64::from_le_bytes);
            word.map(Lsn::new).filter(|&lsn| is_aligned(lsn))
        };
        match (code, value.split_first_chunk::<8>()) {
            (CODE_TIME, Some((unix_ms, rest))) => {
                let unix_ms = u64::from_le_bytes(*unix_ms);
                self.time = position(rest).map(|lsn| TimeMark { unix_ms, lsn }).or(self.time);
            }
            (CODE_SLOTS, _) => self.slots = position(value).or(self.slots),
            _ => {}
        }
    }
}

/// The reason why the entries of an intact header are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// An entry of a newer release that must not be skipped.
    Unknown { code: u16 },
    /// Bytes that no release writes.
    Malformed,
}

/// Parses the entries. Returns an error unless every unknown one may be skipped.
pub(crate) fn parse(entries: &[u8]) -> Result<Extension, Refused> {
    let mut extension = Extension::default();
    let mut rest = entries;
    let mut unknown = None;
    while let Some((head, behind)) = rest.split_first_chunk::<4>() {
        let [c0, c1, l0, l1] = *head;
        let code = u16::from_le_bytes([c0, c1]);
        let value_bytes = usize::from(u16::from_le_bytes([l0, l1]));
        let padded_bytes = value_bytes.next_multiple_of(ENTRY_ALIGN);
        let padding = behind.get(value_bytes..padded_bytes).ok_or(Refused::Malformed)?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(Refused::Malformed);
        }
        extension.take(code, behind.get(..value_bytes).unwrap_or_default());
        if code & SKIPPABLE == 0 && unknown.is_none() {
            unknown = Some(code);
        }
        rest = behind.get(padded_bytes..).unwrap_or_default();
    }
    match (rest.is_empty(), unknown) {
        (false, _) => Err(Refused::Malformed),
        (true, Some(code)) => Err(Refused::Unknown { code }),
        (true, None) => Ok(extension),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_round_trips_and_skips_other_shapes() {
        let time = Some(TimeMark { unix_ms: 1 << 40, lsn: Lsn::new(64) });
        for extension in [
            Extension::default(),
            Extension { time, slots: None },
            Extension { time: None, slots: Some(Lsn::new(4096)) },
            Extension { time, slots: Some(Lsn::ZERO) },
        ] {
            let bytes = extension.encode();
            assert_eq!(parse(&bytes), Ok(extension));
            let refused = (1..bytes.len()).filter(|&end| parse(&bytes[..end]).is_err()).count();
            assert!(refused + 2 >= bytes.len(), "only whole entries parse");
        }
        let none = Ok(Extension::default());
        assert_eq!(parse(&[4, 0x80, 4, 0, 1, 2, 3, 4]), none, "a shorter value");
        let slots = Extension { time: None, slots: Some(Lsn::new(4096)) };
        let twice = [slots.encode(), vec![4, 0x80, 0, 0]].concat();
        assert_eq!(parse(&twice), Ok(slots), "the entry without a value is skipped");
        assert_eq!(parse(&[4, 0x80, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0]), none, "no frame begins there");
    }
}
