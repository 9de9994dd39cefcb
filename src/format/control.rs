//! Control records: what the log notes for its own recovery, in the same stream as the records.

/// A control record. The payload is eight bytes, its code in the first and the last, so that the
/// last word of a control frame is never zero: a clean log is opened by reading back over zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Says nothing but its own commitment: written when a sync leaves the log idle, since the last
    /// group that was synced has no later frame to commit it.
    Mark,
    /// The log was closed after all before it was synced.
    Close,
}

pub(crate) const CONTROL_PAYLOAD_BYTES: usize = 8;

impl Control {
    pub(crate) const fn payload(self) -> [u8; CONTROL_PAYLOAD_BYTES] {
        let code = match self {
            Control::Mark => 1,
            Control::Close => 2,
        };
        [code, 0, 0, 0, 0, 0, 0, code]
    }

    /// `None` for a code that this release doesn't know.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        [Control::Mark, Control::Close].into_iter().find(|control| control.payload() == payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_survive_the_round_trip_and_unknown_ones_are_told_apart() {
        for control in [Control::Mark, Control::Close] {
            assert_eq!(Control::parse(&control.payload()), Some(control));
        }
        assert_eq!(Control::parse(&[9, 0, 0, 0, 0, 0, 0, 9]), None);
        assert_eq!(Control::parse(b""), None);
    }
}
