//! Encodes messages.

use bytes::Bytes;
use highwater::{Lsn, shipping::SegmentId};

use crate::wire::{
    kind::{HEADER_BYTES, Header, Kind, NO_POSITION, checksum},
    message::{Hello, Message, Refusal, Segment},
};

/// Appends the encoded message to `out`. The payload of a data message is not copied; it is
/// returned, and follows the bytes of `out`.
pub(crate) fn encode(message: &Message, out: &mut Vec<u8>) -> Option<Bytes> {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    let mut body = Body { out };
    let mut payload = None;
    let kind = match message {
        Message::Auth(bytes) => {
            body.bytes(bytes);
            Kind::Auth
        }
        Message::Offer(offer) => {
            body.bytes(&offer.log_id);
            body.words(&[offer.epoch, offer.first.as_u64(), offer.synced.as_u64()]);
            Kind::Offer
        }
        Message::Hello(hello) => {
            body.hello(hello);
            Kind::Hello
        }
        Message::Refuse(refusal) => {
            body.refusal(refusal);
            Kind::Refuse
        }
        Message::Begin(begin) => {
            body.words(&[begin.at.as_u64(), begin.end.map_or(NO_POSITION, Lsn::as_u64)]);
            begin.segment.iter().for_each(|segment| body.segment(segment));
            Kind::Begin
        }
        Message::Segment(Segment { end, header }) => {
            body.words(&[end.map_or(NO_POSITION, Lsn::as_u64)]);
            body.bytes(header);
            Kind::Segment
        }
        Message::Data { lsn, bytes } => {
            body.words(&[lsn.as_u64()]);
            payload = Some(bytes.clone());
            Kind::Data
        }
        Message::Commit { lsn } => {
            body.words(&[lsn.as_u64()]);
            Kind::Commit
        }
        Message::Report(report) => {
            body.words(&[report.epoch, report.written.as_u64(), report.synced.as_u64()]);
            Kind::Report
        }
        Message::Ping => Kind::Ping,
    };
    let after: &[u8] = payload.as_deref().unwrap_or_default();
    let encoded = out.get(start + HEADER_BYTES..).unwrap_or_default();
    // A body has at most 1 MiB and 8 bytes.
    let body_bytes = u32::try_from(encoded.len() + after.len()).unwrap_or(u32::MAX);
    let crc = checksum(body_bytes, kind, &[encoded, after]);
    let header = Header { body_bytes, kind, crc }.to_bytes();
    if let Some(place) = out.get_mut(start..start + HEADER_BYTES) {
        place.copy_from_slice(&header);
    }
    payload
}

struct Body<'a> {
    out: &'a mut Vec<u8>,
}

impl Body<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn words(&mut self, words: &[u64]) {
        words.iter().for_each(|word| self.out.extend_from_slice(&word.to_le_bytes()));
    }

    fn segment(&mut self, segment: &SegmentId) {
        self.words(&[segment.base.as_u64(), segment.epoch, segment.incarnation]);
    }

    fn hello(&mut self, hello: &Hello) {
        self.bytes(&[u8::from(hello.log_id.is_some())]);
        self.bytes(&hello.log_id.unwrap_or_default());
        self.words(&[hello.promise, hello.committed.as_u64(), hello.end.as_u64()]);
        let (from, to, crc) = match hello.tail {
            Some(tail) => (tail.from.as_u64(), tail.to.as_u64(), tail.crc),
            None => (NO_POSITION, NO_POSITION, 0),
        };
        self.words(&[from, to]);
        self.bytes(&crc.to_le_bytes());
        // A name has at most 54 bytes.
        self.bytes(&[u8::try_from(hello.name.len()).unwrap_or(u8::MAX)]);
        self.bytes(hello.name.as_bytes());
        hello.segments.iter().for_each(|segment| self.segment(segment));
    }

    fn refusal(&mut self, refusal: &Refusal) {
        let (code, first, second) = match *refusal {
            Refusal::OtherLog => (1, 0, 0),
            Refusal::Fenced { promised } => (2, promised, 0),
            Refusal::Diverged { common, end } => (3, common.as_u64(), end.as_u64()),
            Refusal::Ahead { synced, end } => (4, synced.as_u64(), end.as_u64()),
            Refusal::TooFarBehind { first } => (5, first.as_u64(), 0),
            Refusal::NoCommonPoint => (6, 0, 0),
            Refusal::Name => (7, 0, 0),
        };
        self.words(&[code, first, second]);
    }
}
