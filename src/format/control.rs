//! Control records: what the log notes for its own recovery, in the same stream as the records.

use crate::lsn::Lsn;

/// A control record. Its payload is eight bytes, or sixteen of which the first eight are a position;
/// the code stands in the first and the last of the last eight, so that the last word of a control
/// frame is never zero: a clean log is opened by reading back over zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Says nothing but its own commitment: written when a sync leaves the log idle, since the last
    /// group that was synced has no later frame to commit it.
    Mark,
    /// The log was closed after all before it was synced.
    Close,
    /// The log begins here: what stands before was truncated.
    First(Lsn),
}

pub(crate) const CONTROL_PAYLOAD_BYTES: usize = 8;
pub(crate) const FIRST_PAYLOAD_BYTES: usize = 16;

impl Control {
    const fn code(self) -> u8 {
        match self {
            Control::Mark => 1,
            Control::Close => 2,
            Control::First(_) => 3,
        }
    }

    pub(crate) fn payload(self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(FIRST_PAYLOAD_BYTES);
        if let Control::First(lsn) = self {
            payload.extend_from_slice(&lsn.as_u64().to_le_bytes());
        }
        payload.extend_from_slice(&[self.code(), 0, 0, 0, 0, 0, 0, self.code()]);
        payload
    }

    /// `None` for a code that this release doesn't know.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let first = payload.first_chunk().map(|word| Lsn::new(u64::from_le_bytes(*word)));
        let known = [Some(Control::Mark), Some(Control::Close), first.map(Control::First)];
        known.into_iter().flatten().find(|control| control.payload() == payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_survive_the_round_trip_and_unknown_ones_are_told_apart() {
        for control in [Control::Mark, Control::Close, Control::First(Lsn::new(1 << 40))] {
            assert_eq!(Control::parse(&control.payload()), Some(control));
        }
        assert_eq!(Control::parse(&[9, 0, 0, 0, 0, 0, 0, 9]), None);
        assert_eq!(Control::parse(&[0; 16]), None);
        assert_eq!(Control::parse(b""), None);
    }
}
