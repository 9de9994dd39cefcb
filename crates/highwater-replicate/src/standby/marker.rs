//! [`Marker`]: the file `STANDBY`.

use std::fmt::Write;

use highwater::{
    Lsn,
    shipping::{STANDBY, STANDBY_NEW},
};

use crate::{error::Result, standby::disk::Disk};

const BYTES_MAX: usize = 512;
const FIRST_LINE: &str = "highwater standby 1";

/// Whether the first copy of the log is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The copy is a log.
    Whole,
    /// The copy becomes a log when it reaches this position.
    Seeding { goal: Lsn },
}

/// The content of the file `STANDBY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// `None` before the first connection.
    pub(crate) log_id: Option<[u8; 16]>,
    /// The highest epoch that the copy has accepted.
    pub(crate) promise: u64,
    pub(crate) state: State,
}

impl Marker {
    /// Reads the marker. `None` if there is none.
    pub(crate) fn read(disk: &Disk) -> Result<Option<Marker>> {
        if disk.names()?.iter().all(|name| name != STANDBY) {
            return Ok(None);
        }
        let mut bytes = vec![0; BYTES_MAX];
        let read = disk.open(STANDBY)?.read_at(&mut bytes, 0)?;
        let text = std::str::from_utf8(bytes.get(..read).unwrap_or_default()).unwrap_or_default();
        let parsed = Marker::parse(text);
        parsed
            .map(Some)
            .ok_or_else(|| disk.damaged(STANDBY, 0, "the marker of a standby is damaged"))
    }

    /// Makes this the marker, durably. A crash leaves the old one or this one.
    pub(crate) fn write(&self, disk: &Disk) -> Result<()> {
        let file = disk.create_again(STANDBY_NEW)?;
        file.write_at(self.to_text().as_bytes(), 0)?;
        file.sync_all()?;
        drop(file);
        disk.rename(STANDBY_NEW, STANDBY)?;
        disk.sync_dir()
    }

    fn to_text(self) -> String {
        let mut text = format!("{FIRST_LINE}\nlog ");
        match self.log_id {
            // Writing to a string does not fail.
            Some(id) => {
                for byte in id {
                    let _ = write!(text, "{byte:02x}");
                }
            }
            None => text.push_str("none"),
        }
        let state = match self.state {
            State::Whole => "whole".to_owned(),
            State::Seeding { goal } => format!("seeding {goal}"),
        };
        let _ = write!(text, "\npromise {}\nstate {state}\n", self.promise);
        let _ = writeln!(text, "checksum {:08x}", crc32c::crc32c(text.clone().as_bytes()));
        text
    }

    /// Parses a marker. Text that differs from a written one in any byte is `None`.
    fn parse(text: &str) -> Option<Marker> {
        let mut lines = text.lines();
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let log_id = match lines.next()?.strip_prefix("log ")? {
            "none" => None,
            hex => Some(parse_id(hex)?),
        };
        let promise = lines.next()?.strip_prefix("promise ")?.parse().ok()?;
        let state = match lines.next()?.strip_prefix("state ")? {
            "whole" => State::Whole,
            other => {
                let goal = other.strip_prefix("seeding ")?.parse().ok()?;
                State::Seeding { goal: Lsn::new(goal) }
            }
        };
        let marker = Marker { log_id, promise, state };
        (marker.to_text() == text).then_some(marker)
    }
}

fn parse_id(hex: &str) -> Option<[u8; 16]> {
    let mut id = [0; 16];
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marker_round_trips_and_flipped_bit_is_damage() {
        for marker in [
            Marker { log_id: None, promise: 0, state: State::Seeding { goal: Lsn::new(64) } },
            Marker { log_id: Some([0xab; 16]), promise: u64::MAX, state: State::Whole },
        ] {
            let text = marker.to_text();
            assert_eq!(Marker::parse(&text), Some(marker));
            for bit in 0..text.len() * 8 {
                let mut bytes = text.clone().into_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let flipped = String::from_utf8(bytes).ok();
                assert_eq!(flipped.and_then(|text| Marker::parse(&text)), None, "bit {bit}");
            }
        }
        assert_eq!(Marker::parse(""), None);
    }
}
