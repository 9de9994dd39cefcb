//! The note of the last close: the end of the log when it was closed.
//!
//! Like a frame, the note claims that everything below `end` was durable, but it is kept outside of
//! the segments. So recovery detects that a closed log has lost its newest segment, which no other
//! segment shows. The note stays true while the log grows. A cut in a later epoch limits it, as it
//! limits every claim. The loss of the note itself loses no record.

use std::fmt::Write;

use crate::lsn::Lsn;

/// The maximum length of a note.
pub(crate) const LAST_CLOSE_BYTES_MAX: usize = 512;

const TITLE: &str = "highwater last close 1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastClose {
    pub(crate) log_id: [u8; 16],
    pub(crate) epoch: u64,
    /// The number of the newest segment.
    pub(crate) sequence: u64,
    /// All bytes below were durable.
    pub(crate) end: Lsn,
}

impl LastClose {
    /// Returns the note as text, for people and for [`LastClose::parse`].
    pub(crate) fn encode(&self) -> String {
        let mut text = self.fields();
        let crc = crc32c::crc32c(text.as_bytes());
        // Writing to a string cannot fail.
        let _ = writeln!(text, "checksum {crc:08x}");
        text
    }

    fn fields(&self) -> String {
        let LastClose { log_id, epoch, sequence, end } = self;
        let mut text = format!("{TITLE}\nlog ");
        for byte in log_id {
            let _ = write!(text, "{byte:02x}");
        }
        let _ = write!(text, "\nepoch {epoch}\nsegment {sequence}\nend {end}\n");
        text
    }

    /// Parses a note. `None` for any other text, such as a note that was only partly written.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut values = text.lines().map(|line| line.split_once(' ').map(|(_, value)| value));
        values.next()??;
        let log_id = parse_id(values.next()??)?;
        let epoch = values.next()??.parse().ok()?;
        let sequence = values.next()??.parse().ok()?;
        let end = values.next()??.parse().map(Lsn::new).ok()?;
        let note = LastClose { log_id, epoch, sequence, end };
        (note.encode() == text).then_some(note)
    }
}

fn parse_id(text: &str) -> Option<[u8; 16]> {
    let mut id = [0; 16];
    for (place, pair) in id.iter_mut().zip(text.as_bytes().chunks(2)) {
        *place = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> LastClose {
        LastClose { log_id: *b"0123456789abcdef", epoch: 3, sequence: 12, end: Lsn::new(45_600) }
    }

    #[test]
    fn note_survives_the_round_trip() {
        let text = sample().encode();
        assert!(text.len() < LAST_CLOSE_BYTES_MAX);
        // The example of docs/FORMAT.md.
        let id = "30313233343536373839616263646566";
        let lines = format!("{TITLE}\nlog {id}\nepoch 3\nsegment 12\nend 45600\n");
        assert_eq!(text, lines + "checksum 739f5072\n");
        assert_eq!(LastClose::parse(text.as_bytes()), Some(sample()));
    }

    #[test]
    fn damaged_or_partial_note_is_none() {
        let text = sample().encode().into_bytes();
        for length in 0..text.len() {
            assert_eq!(LastClose::parse(&text[..length]), None, "{length} bytes");
        }
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(LastClose::parse(&damaged), None, "bit {bit}");
        }
        assert_eq!(LastClose::parse(&[text, b"x".to_vec()].concat()), None);
    }
}
