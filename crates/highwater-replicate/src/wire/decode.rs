//! Decodes messages, for any bytes: a message or a reason, never a panic.

use bytes::Bytes;
use highwater::{Lsn, shipping::SegmentId};

use crate::wire::{
    kind::{Header, Kind, NO_POSITION, SEGMENT_BYTES, checksum},
    message::{Begin, Hello, Message, Offer, Refusal, Report, Segment, Tail},
};

/// Decodes the body of a message.
pub(crate) fn decode(header: Header, body: Bytes) -> Result<Message, &'static str> {
    if checksum(header.body_bytes, header.kind, &[&body]) != header.crc {
        return Err("a message does not match its checksum");
    }
    let mut fields = Fields { rest: body };
    let message = match header.kind {
        Kind::Auth => Message::Auth(fields.take_rest()),
        Kind::Offer => Message::Offer(Offer {
            log_id: fields.array()?,
            epoch: fields.word()?,
            first: fields.position()?,
            synced: fields.position()?,
        }),
        Kind::Hello => Message::Hello(fields.hello()?),
        Kind::Refuse => Message::Refuse(fields.refusal()?),
        Kind::Begin => {
            let (at, end) = (fields.position()?, fields.optional_position()?);
            let segment = if fields.rest.is_empty() { None } else { Some(fields.segment()?) };
            Message::Begin(Begin { at, segment, end })
        }
        Kind::Segment => {
            let end = fields.optional_position()?;
            Message::Segment(Segment { end, header: fields.take_rest() })
        }
        Kind::Data => Message::Data { lsn: fields.position()?, bytes: fields.take_rest() },
        Kind::Commit => Message::Commit { lsn: fields.position()? },
        Kind::Report => Message::Report(Report {
            epoch: fields.word()?,
            written: fields.position()?,
            synced: fields.position()?,
        }),
        Kind::Ping => Message::Ping,
    };
    if fields.rest.is_empty() { Ok(message) } else { Err("a message is longer than its fields") }
}

const TOO_SHORT: &str = "a message is shorter than its fields";

struct Fields {
    rest: Bytes,
}

impl Fields {
    fn take(&mut self, bytes: usize) -> Result<Bytes, &'static str> {
        if bytes > self.rest.len() {
            return Err(TOO_SHORT);
        }
        Ok(self.rest.split_to(bytes))
    }

    fn take_rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.take(N)?.as_ref().try_into().map_err(|_| TOO_SHORT)
    }

    fn word(&mut self) -> Result<u64, &'static str> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Takes a position. Positions are below 2^62, so that no sum overflows.
    fn position(&mut self) -> Result<Lsn, &'static str> {
        let word = self.word()?;
        if word < 1 << 62 { Ok(Lsn::new(word)) } else { Err("a position is above the highest one") }
    }

    fn optional_position(&mut self) -> Result<Option<Lsn>, &'static str> {
        let word = self.word()?;
        match word {
            NO_POSITION => Ok(None),
            word if word < 1 << 62 => Ok(Some(Lsn::new(word))),
            _ => Err("a position is above the highest one"),
        }
    }

    fn segment(&mut self) -> Result<SegmentId, &'static str> {
        Ok(SegmentId { base: self.position()?, epoch: self.word()?, incarnation: self.word()? })
    }

    fn hello(&mut self) -> Result<Hello, &'static str> {
        let [has_log] = self.array()?;
        let log_id: [u8; 16] = self.array()?;
        let promise = self.word()?;
        let (committed, end) = (self.position()?, self.position()?);
        let (from, to) = (self.optional_position()?, self.optional_position()?);
        let crc = u32::from_le_bytes(self.array()?);
        let [name_bytes] = self.array()?;
        let name = self.take(usize::from(name_bytes))?;
        let name = std::str::from_utf8(&name).map_err(|_| "a name is no UTF-8")?.to_owned();
        let mut segments = Vec::with_capacity(self.rest.len() / SEGMENT_BYTES);
        while !self.rest.is_empty() {
            segments.push(self.segment()?);
        }
        let tail = match (from, to) {
            (Some(from), Some(to)) if from < to => Some(Tail { from, to, crc }),
            (None, None) => None,
            _ => return Err("the checked range of a hello is empty"),
        };
        let log_id = match has_log {
            0 => None,
            1 => Some(log_id),
            _ => return Err("a hello has an unknown flag"),
        };
        Ok(Hello { name, log_id, promise, committed, end, segments, tail })
    }

    fn refusal(&mut self) -> Result<Refusal, &'static str> {
        let (code, first, second) = (self.word()?, self.word()?, self.word()?);
        let position = |word: u64| Lsn::new(word);
        Ok(match code {
            1 => Refusal::OtherLog,
            2 => Refusal::Fenced { promised: first },
            3 => Refusal::Diverged { common: position(first), end: position(second) },
            4 => Refusal::Ahead { synced: position(first), end: position(second) },
            5 => Refusal::TooFarBehind { first: position(first) },
            6 => Refusal::NoCommonPoint,
            7 => Refusal::Name,
            _ => return Err("a refusal with an unknown code"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{
        encode::encode,
        kind::{HEADER_BYTES, KINDS},
    };

    fn position() -> impl Strategy<Value = Lsn> {
        (0u64..1 << 62).prop_map(Lsn::new)
    }

    fn segment() -> impl Strategy<Value = SegmentId> {
        (position(), any::<u64>(), any::<u64>()).prop_map(|(base, epoch, incarnation)| SegmentId {
            base,
            epoch,
            incarnation,
        })
    }

    fn refusal() -> impl Strategy<Value = Refusal> {
        prop_oneof![
            Just(Refusal::OtherLog),
            Just(Refusal::NoCommonPoint),
            Just(Refusal::Name),
            any::<u64>().prop_map(|promised| Refusal::Fenced { promised }),
            position().prop_map(|first| Refusal::TooFarBehind { first }),
            (position(), position()).prop_map(|(common, end)| Refusal::Diverged { common, end }),
            (position(), position()).prop_map(|(synced, end)| Refusal::Ahead { synced, end }),
        ]
    }

    fn hello() -> impl Strategy<Value = Hello> {
        let log_id = proptest::option::of(any::<[u8; 16]>());
        let segments = proptest::collection::vec(segment(), 0..20);
        let tail = proptest::option::of((0u64..1 << 61, 1u64..1 << 20, any::<u32>()));
        let marks = (any::<u64>(), position(), position());
        ("[a-zé]{0,20}", log_id, marks, segments, tail).prop_map(
            |(name, log_id, (promise, committed, end), segments, tail)| Hello {
                name,
                log_id,
                promise,
                committed,
                end,
                segments,
                tail: tail.map(|(from, bytes, crc)| Tail {
                    from: Lsn::new(from),
                    to: Lsn::new(from + bytes),
                    crc,
                }),
            },
        )
    }

    fn message() -> impl Strategy<Value = Message> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        let marks = || (any::<u64>(), position(), position());
        prop_oneof![
            bytes().prop_map(Message::Auth),
            (any::<[u8; 16]>(), marks()).prop_map(|(log_id, (epoch, first, synced))| {
                Message::Offer(Offer { log_id, epoch, first, synced })
            }),
            hello().prop_map(Message::Hello),
            refusal().prop_map(Message::Refuse),
            (position(), proptest::option::of(segment()), proptest::option::of(position()))
                .prop_map(|(at, segment, end)| Message::Begin(Begin { at, segment, end })),
            (proptest::option::of(position()), bytes())
                .prop_map(|(end, header)| Message::Segment(Segment { end, header })),
            (position(), bytes()).prop_map(|(lsn, bytes)| Message::Data { lsn, bytes }),
            position().prop_map(|lsn| Message::Commit { lsn }),
            marks().prop_map(|(epoch, written, synced)| {
                Message::Report(Report { epoch, written, synced })
            }),
            Just(Message::Ping),
        ]
    }

    fn encoded(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        let payload = encode(message, &mut bytes);
        bytes.extend_from_slice(&payload.unwrap_or_default());
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Message, &'static str> {
        let header = bytes.first_chunk().ok_or(TOO_SHORT)?;
        let header = Header::parse(*header)?;
        let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
        if body.len() != usize::try_from(header.body_bytes).unwrap_or(usize::MAX) {
            return Err(TOO_SHORT);
        }
        decode(header, Bytes::copy_from_slice(body))
    }

    proptest! {
        #[test]
        fn message_round_trips(message in message()) {
            prop_assert_eq!(parse(&encoded(&message)), Ok(message));
        }

        /// A report with a flipped bit would acknowledge a record that is not durable.
        #[test]
        fn flipped_bit_is_refused(message in message(), bit in any::<prop::sample::Index>()) {
            let mut bytes = encoded(&message);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(parse(&bytes).is_err());
        }

        #[test]
        fn any_body_is_a_message_or_a_reason(
            code in 0u8..12,
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let Some(kind) = Kind::of_code(code) else { return Ok(()) };
            let body_bytes = u32::try_from(body.len()).unwrap();
            let crc = checksum(body_bytes, kind, &[&body]);
            let decoded = decode(Header { body_bytes, kind, crc }, Bytes::from(body.clone()));
            if let Ok(message) = decoded {
                // Unused bytes of a hello without a log need not be encoded again.
                if !matches!(message, Message::Hello(_) | Message::Refuse(_)) {
                    prop_assert_eq!(encoded(&message)[HEADER_BYTES..].to_vec(), body);
                }
            }
        }
    }

    #[test]
    fn length_above_the_limit_is_refused_unread() {
        for kind in KINDS {
            let max = u32::try_from(kind.body_bytes_max()).unwrap();
            let header = |body_bytes| Header { body_bytes, kind, crc: 0 }.to_bytes();
            assert!(Header::parse(header(max)).is_ok());
            assert!(Header::parse(header(max + 1)).is_err(), "{kind:?}");
            assert!(Header::parse(header(u32::MAX)).is_err(), "{kind:?}");
        }
    }
}
