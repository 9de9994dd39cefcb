//! Control records: records of the log itself, in the same stream as users' records.

use crate::lsn::Lsn;

/// A control record. Its payload is a multiple of 8 bytes. The code is in the first and the last
/// byte of the last 8 bytes. So the last word of a control frame is never zero. The opening of a
/// clean log relies on that, because it reads backwards over zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Carries only its own commitment. Written when a sync leaves the log idle, because the last
    /// synced group has no later frame that commits it.
    Mark,
    /// The log was closed, after everything before this record was synced.
    Close,
    /// The log begins here, because everything before was truncated.
    First(Lsn),
    /// Changes of the log's slots. `format/slots` parses the payload.
    Slots,
    /// The clock when the record was made: Unix time in milliseconds.
    Time(u64),
    /// A record of a newer release that this release may skip. Never written.
    Skipped,
}

/// The bit of a code that permits an older release to skip the record.
const SKIPPABLE: u8 = 0x80;

pub(crate) const CONTROL_PAYLOAD_BYTES: usize = 8;
pub(crate) const FIRST_PAYLOAD_BYTES: usize = 16;

/// The largest payload of a control record. The limit on users' records does not apply to it.
pub(crate) const CONTROL_PAYLOAD_BYTES_MAX: u64 = 64 << 10;

pub(crate) const CODE_SLOTS: u8 = 0x81;
const CODE_TIME: u8 = 0x82;

/// Returns the last word of a control record's payload.
pub(crate) const fn trailer(code: u8) -> [u8; CONTROL_PAYLOAD_BYTES] {
    [code, 0, 0, 0, 0, 0, 0, code]
}

impl Control {
    const fn code(self) -> u8 {
        match self {
            Control::Mark => 1,
            Control::Close => 2,
            Control::First(_) => 3,
            Control::Slots => CODE_SLOTS,
            Control::Time(_) => CODE_TIME,
            Control::Skipped => SKIPPABLE,
        }
    }

    /// Returns the payload of a control record that has at most one word beside its code. A slots
    /// record has more, see `format/slots`.
    pub(crate) fn payload(self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(FIRST_PAYLOAD_BYTES);
        match self {
            Control::First(lsn) => payload.extend_from_slice(&lsn.as_u64().to_le_bytes()),
            Control::Time(unix_ms) => payload.extend_from_slice(&unix_ms.to_le_bytes()),
            Control::Mark | Control::Close | Control::Slots | Control::Skipped => {}
        }
        payload.extend_from_slice(&trailer(self.code()));
        payload
    }

    /// Parses a control record. `None` for a code that this release does not know and must not
    /// skip.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        if is_skippable(payload) {
            return Some(parse_skippable(payload));
        }
        let first = payload.first_chunk().map(|word| Lsn::new(u64::from_le_bytes(*word)));
        let known = [Some(Control::Mark), Some(Control::Close), first.map(Control::First)];
        known.into_iter().flatten().find(|control| control.payload() == payload)
    }
}

/// Returns the record that a payload with a skippable code is. A time mark of another length is
/// skipped, too.
fn parse_skippable(payload: &[u8]) -> Control {
    match (payload.last(), payload) {
        (Some(&CODE_SLOTS), _) => Control::Slots,
        (Some(&CODE_TIME), [word @ .., _, _, _, _, _, _, _, _]) => {
            let word = <[u8; 8]>::try_from(word).ok();
            word.map_or(Control::Skipped, |word| Control::Time(u64::from_le_bytes(word)))
        }
        _ => Control::Skipped,
    }
}

/// Returns whether a payload has the shape of a control record with a skippable code.
fn is_skippable(payload: &[u8]) -> bool {
    match payload.last_chunk::<CONTROL_PAYLOAD_BYTES>() {
        Some([code, 0, 0, 0, 0, 0, 0, last]) => {
            code == last && code & SKIPPABLE != 0 && payload.len() % CONTROL_PAYLOAD_BYTES == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_code_with_the_skip_bit_is_skipped() {
        let skipped = Some(Control::Skipped);
        assert_eq!(Control::parse(&[0x89, 0, 0, 0, 0, 0, 0, 0x89]), skipped);
        assert_eq!(
            Control::parse(&[7, 7, 7, 7, 7, 7, 7, 7, 0x80, 0, 0, 0, 0, 0, 0, 0x80]),
            skipped
        );
        for refused in [
            &[0x09, 0, 0, 0, 0, 0, 0, 0x09][..],
            &[0x89, 0, 0, 0, 0, 0, 0, 0x88],
            &[0x89, 0, 1, 0, 0, 0, 0, 0x89],
            &[0, 0x89, 0, 0, 0, 0, 0, 0, 0x89],
        ] {
            assert_eq!(Control::parse(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn controls_round_trip_and_unknown_codes_are_refused() {
        let first = Control::First(Lsn::new(1 << 40));
        for control in [Control::Mark, Control::Close, first, Control::Time(u64::MAX)] {
            assert_eq!(Control::parse(&control.payload()), Some(control));
        }
        assert_eq!(Control::parse(&[9, 0, 0, 0, 0, 0, 0, 9]), None);
        assert_eq!(Control::parse(&[0; 16]), None);
        assert_eq!(Control::parse(b""), None);
    }
}
