//! Frames and units of a segment.

use crate::seal::{
    BATCH_END, BATCH_PART, CLOSE, CONTROL, FRAME_HEADER_BYTES, Fields, RECORD, Seed,
};

/// The bytes of a segment, from its first frame to its end.
#[derive(Clone, Copy)]
pub struct Region<'a> {
    pub seed: Seed,
    pub base: u64,
    pub bytes: &'a [u8],
}

/// A valid frame, of a known or an unknown kind.
#[derive(Clone, Debug)]
pub struct Frame {
    pub lsn: u64,
    pub kind: u8,
    pub flags: u8,
    pub commitment: Option<u64>,
    pub payload: Vec<u8>,
    pub end: u64,
}

/// The content at a position.
#[derive(Debug)]
pub enum Seen {
    Unit(Vec<Frame>),
    /// The segment ends here.
    End,
    /// Zeros: nothing was written here.
    Blank,
    Damaged,
    Unsupported,
    TooLarge,
}

impl Frame {
    fn is_known(&self) -> bool {
        let controls = [[1, 0, 0, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 0, 0, 2]];
        let may_be_skipped = match self.payload.last_chunk::<8>() {
            Some([code, 0, 0, 0, 0, 0, 0, last]) => {
                code == last && code & 0x80 != 0 && self.payload.len() % 8 == 0
            }
            _ => false,
        };
        match self.kind {
            // The flags 0, 1 and 2: uncompressed, LZ4 and Zstandard.
            RECORD | BATCH_PART | BATCH_END => self.flags <= 2,
            CONTROL => {
                self.flags == 0
                    && (may_be_skipped
                        || self.first_in_control().is_some()
                        || controls.iter().any(|control| self.payload == control))
            }
            _ => false,
        }
    }

    /// Returns the longest payload that is read.
    fn limit(&self, record_bytes_max: u64) -> u64 {
        record_bytes_max.max(if self.kind == CONTROL { 64 << 10 } else { 16 })
    }

    /// Returns whether this is a close frame with everything before it synced.
    pub fn is_clean_close(&self) -> bool {
        self.kind == CONTROL
            && self.flags == 0
            && self.payload == CLOSE
            && self.commitment == Some(self.lsn)
    }

    /// Returns whether this is a control record that this release knows nothing about and skips.
    pub fn is_skipped(&self) -> bool {
        let known = self.payload.last().is_none_or(|&code| match code {
            0x81 => true,
            0x82 => self.payload.len() == 16,
            code => code & 0x80 == 0,
        });
        self.kind == CONTROL && !known
    }

    /// Returns the position in a control record for the log's beginning.
    pub fn first_in_control(&self) -> Option<u64> {
        let (position, code) = self.payload.split_first_chunk()?;
        (self.kind == CONTROL && self.flags == 0 && code == [3, 0, 0, 0, 0, 0, 0, 3])
            .then(|| u64::from_le_bytes(*position))
    }

    /// Returns the log's beginning as this frame records it. A position above its commitment does
    /// not count.
    pub fn recorded_first(&self) -> Option<u64> {
        self.first_in_control().filter(|&first| self.commitment >= Some(first))
    }
}

impl Region<'_> {
    fn from(&self, lsn: u64) -> &[u8] {
        let at = usize::try_from(lsn.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.bytes.get(at..).unwrap_or_default()
    }

    fn fields_at(&self, lsn: u64) -> Option<(Fields, u16, u32)> {
        let bytes = self.from(lsn).get(..FRAME_HEADER_BYTES)?;
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let fields = Fields { length: word(0), kind: bytes[4], flags: bytes[5], lag: word(8) };
        Some((fields, u16::from_le_bytes([bytes[6], bytes[7]]), word(12)))
    }

    /// Returns the checksum of the first header for `lsn` without a payload, to compute
    /// differences.
    pub fn checksum_for(&self, lsn: u64) -> Option<u32> {
        let (fields, check, _) = self.fields_at(self.base)?;
        Some(fields.checksum(self.seed, lsn, check, &[]))
    }

    /// Returns the first frame's checksum XOR the checksum of the same frame sealed for LSN 0.
    pub fn checksum_difference(&self) -> Option<u32> {
        let (fields, check, checksum) = self.fields_at(self.base)?;
        let length = fields.length as usize;
        let whole = self.bytes.get(..FRAME_HEADER_BYTES + length.next_multiple_of(8))?;
        let payload = &whole[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length];
        Some(checksum ^ fields.checksum(self.seed, 0, check, payload))
    }

    /// Returns the valid frame at `lsn`, if there is one.
    pub fn frame_at(&self, lsn: u64) -> Option<Frame> {
        let (fields, check, checksum) = self.fields_at(lsn)?;
        let length = fields.length as usize;
        let whole = self.from(lsn).get(..FRAME_HEADER_BYTES + length.next_multiple_of(8))?;
        let payload = &whole[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length];
        let is_valid = fields.kind != 0
            && fields.check(self.seed, lsn) == check
            && fields.checksum(self.seed, lsn, check, payload) == checksum;
        let commitment = lsn.checked_sub(u64::from(fields.lag) * 8);
        is_valid.then(|| Frame {
            lsn,
            kind: fields.kind,
            flags: fields.flags,
            commitment: commitment.filter(|_| fields.lag != u32::MAX),
            payload: payload.to_vec(),
            end: lsn + whole.len() as u64,
        })
    }

    /// Returns the valid frame at `lsn`, if this release can read it.
    pub fn known_frame_at(&self, lsn: u64) -> Option<Frame> {
        let frame = self.frame_at(lsn)?;
        (frame.is_known() && frame.payload.len() as u64 <= frame.limit(1 << 30)).then_some(frame)
    }

    fn content_at(&self, lsn: u64, record_bytes_max: u64) -> Seen {
        let rest = self.from(lsn);
        if rest.is_empty() {
            return Seen::End;
        }
        let first = &rest[..rest.len().min(if rest.len() < 16 { 16 } else { 8 })];
        if first.iter().all(|&byte| byte == 0) {
            return Seen::Blank;
        }
        match self.frame_at(lsn) {
            None => Seen::Damaged,
            Some(frame) if frame.payload.len() as u64 > frame.limit(record_bytes_max) => {
                Seen::TooLarge
            }
            Some(frame) if !frame.is_known() => Seen::Unsupported,
            Some(frame) => Seen::Unit(vec![frame]),
        }
    }

    /// Returns the unit that begins at `lsn`.
    pub fn unit_at(&self, lsn: u64, record_bytes_max: u64) -> Seen {
        let mut unit: Vec<Frame> = Vec::new();
        let mut at = lsn;
        loop {
            let frame = match self.content_at(at, record_bytes_max) {
                Seen::Unit(mut frames) => frames.remove(0),
                stop @ (Seen::Unsupported | Seen::TooLarge) => return stop,
                stop if unit.is_empty() => return stop,
                _ => return Seen::Damaged,
            };
            if !unit.is_empty() && !matches!(frame.kind, BATCH_PART | BATCH_END) {
                return Seen::Damaged;
            }
            at = frame.end;
            let has_more = frame.kind == BATCH_PART;
            unit.push(frame);
            if !has_more {
                return Seen::Unit(unit);
            }
        }
    }

    pub fn is_used_from(&self, lsn: u64) -> bool {
        self.from(lsn).iter().any(|&byte| byte != 0)
    }

    /// Returns all valid frames from `lsn` on, except those inside the payload of another frame.
    pub fn search(&self, lsn: u64) -> Vec<Frame> {
        let mut found = Vec::new();
        let mut at = lsn;
        while !self.from(at).is_empty() {
            match self.frame_at(at) {
                Some(frame) => {
                    at = frame.end;
                    found.push(frame);
                }
                None => at += 8,
            }
        }
        found
    }
}
