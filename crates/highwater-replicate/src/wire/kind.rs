//! The kinds of messages, their limits, and the header before each.

/// The largest number of log bytes in one message.
pub(crate) const DATA_BYTES_MAX: usize = 1 << 20;
/// The largest number of segments in a hello.
pub(crate) const SEGMENTS_MAX: usize = 1024;
/// The largest message of an authentication.
pub(crate) const AUTH_BYTES_MAX: usize = 4096;
/// The longest name of a replica, so that `replica:NAME` is the name of a slot.
pub(crate) const NAME_BYTES_MAX: usize = 54;
/// The word for "no position".
pub(super) const NO_POSITION: u64 = u64::MAX;

/// The bytes before the body of a message.
pub(crate) const HEADER_BYTES: usize = 12;

pub(super) const SEGMENT_BYTES: usize = 24;
const HELLO_FIXED_BYTES: usize = 1 + 16 + 5 * 8 + 4 + 1;

/// The kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Auth,
    Offer,
    Hello,
    Refuse,
    Begin,
    Segment,
    Data,
    Commit,
    Report,
    Ping,
}

pub(super) const KINDS: [Kind; 10] = [
    Kind::Auth,
    Kind::Offer,
    Kind::Hello,
    Kind::Refuse,
    Kind::Begin,
    Kind::Segment,
    Kind::Data,
    Kind::Commit,
    Kind::Report,
    Kind::Ping,
];

impl Kind {
    fn code(self) -> u8 {
        let at = KINDS.iter().position(|kind| *kind == self).unwrap_or_default();
        u8::try_from(at + 1).unwrap_or(u8::MAX)
    }

    pub(super) fn of_code(code: u8) -> Option<Kind> {
        KINDS.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// Returns the longest body of this kind.
    pub(super) fn body_bytes_max(self) -> usize {
        match self {
            Kind::Auth => AUTH_BYTES_MAX,
            Kind::Offer => 40,
            Kind::Hello => HELLO_FIXED_BYTES + NAME_BYTES_MAX + SEGMENTS_MAX * SEGMENT_BYTES,
            Kind::Refuse | Kind::Report => 24,
            Kind::Begin => 16 + SEGMENT_BYTES,
            Kind::Segment => 8 + highwater::shipping::Header::BYTES_MAX,
            Kind::Data => 8 + DATA_BYTES_MAX,
            Kind::Commit => 8,
            Kind::Ping => 0,
        }
    }
}

/// The checked header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) body_bytes: u32,
    pub(crate) kind: Kind,
    pub(crate) crc: u32,
}

impl Header {
    /// Parses a header, and checks the length before memory is taken for the body.
    pub(crate) fn parse(bytes: [u8; HEADER_BYTES]) -> Result<Header, &'static str> {
        let [a, b, c, d, code, z0, z1, z2, k0, k1, k2, k3] = bytes;
        let kind = Kind::of_code(code).ok_or("a message of an unknown kind")?;
        if [z0, z1, z2] != [0; 3] {
            return Err("the header of a message has reserved bytes that are not zero");
        }
        let body_bytes = u32::from_le_bytes([a, b, c, d]);
        if usize::try_from(body_bytes).is_ok_and(|bytes| bytes <= kind.body_bytes_max()) {
            Ok(Header { body_bytes, kind, crc: u32::from_le_bytes([k0, k1, k2, k3]) })
        } else {
            Err("a message is longer than its kind allows")
        }
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = self.body_bytes.to_le_bytes();
        let [k0, k1, k2, k3] = self.crc.to_le_bytes();
        [a, b, c, d, self.kind.code(), 0, 0, 0, k0, k1, k2, k3]
    }
}

/// Returns the checksum of a message.
pub(super) fn checksum(body_bytes: u32, kind: Kind, body: &[&[u8]]) -> u32 {
    let [a, b, c, d] = body_bytes.to_le_bytes();
    let header = crc32c::crc32c(&[a, b, c, d, kind.code(), 0, 0, 0]);
    body.iter().fold(header, |crc, part| crc32c::crc32c_append(crc, part))
}
