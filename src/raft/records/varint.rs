//! Varints (seven bits per byte, lowest first), and a cursor with checked bounds.

use bytes::Bytes;

/// The length of the longest encoding of a `u64`.
pub(crate) const VARINT_BYTES_MAX: usize = 10;

pub(crate) fn put(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(low_bits(value) | 0x80);
        value >>= 7;
    }
    to.push(low_bits(value));
}

fn low_bits(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

/// Writes the length, then the bytes.
pub(crate) fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// Writes the length plus one, then the bytes; or 0 for `None`.
pub(crate) fn put_optional(to: &mut Vec<u8>, bytes: Option<&Bytes>) {
    match bytes {
        None => to.push(0),
        Some(bytes) => {
            put(to, (bytes.len() as u64).saturating_add(1));
            to.extend_from_slice(bytes);
        }
    }
}

/// Reads bytes that may be hostile, from the front. The returned slices share the buffer.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    bytes: Bytes,
    at: usize,
}

impl Cursor {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Cursor { bytes, at: 0 }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Returns the next `count` bytes, or `None` if fewer are left.
    pub(crate) fn take(&mut self, count: u64) -> Option<Bytes> {
        let end = self.at.checked_add(usize::try_from(count).ok()?)?;
        if end > self.bytes.len() {
            return None;
        }
        let taken = self.bytes.slice(self.at..end);
        self.at = end;
        Some(taken)
    }

    /// Returns all remaining bytes.
    pub(crate) fn rest(&mut self) -> Bytes {
        let rest = self.bytes.slice(self.at..);
        self.at = self.bytes.len();
        rest
    }

    pub(crate) fn bytes(&mut self) -> Option<Bytes> {
        let count = self.varint()?;
        self.take(count)
    }

    pub(crate) fn optional(&mut self) -> Option<Option<Bytes>> {
        match self.varint()? {
            0 => Some(None),
            count => self.take(count - 1).map(Some),
        }
    }
}
