//! The ring under every interleaving of two appenders and the drainer.

use std::{cell::Cell, convert::Infallible};

use super::*;
use crate::{format::frame::Seed, pipeline::state::loom_tests::explore};

thread_local! {
    /// Replaces a slot's value, for a negative control. Loom runs a whole model on one thread.
    pub(crate) static TAG: Cell<Option<fn(Lsn) -> u64>> = const { Cell::new(None) };
}

/// Two appenders and the drainer over one and a half laps. Taken units are whole and in order.
#[test]
fn publish_and_drain() {
    explore(|| {
        let (ring, mut drainer) = Ring::new(64, Lsn::ZERO);
        let appenders: Vec<_> = (0..2u8)
            .map(|who| {
                let ring = Arc::clone(&ring);
                loom::thread::spawn(move || {
                    let payload = [who + 1; 8];
                    let reserved = ring.reserve(24);
                    let lsn = reserved.lsn();
                    let crc = crc32c::crc32c(&payload);
                    let seed = Seed::new([0; 16], 1);
                    let header = FrameHeader::seal(seed, lsn, Kind::Record, 8, crc, lsn);
                    reserved.publish(std::iter::once((header, &payload[..])));
                })
            })
            .collect();
        let mut seen = 0;
        for _ in 0..3 {
            if let Taken::Units { end, .. } = drainer.take(64, 64) {
                check(&drainer, &mut seen);
                assert_eq!(end.as_u64() % 24, 0);
                drainer.release();
            }
            loom::thread::yield_now();
        }
        for appender in appenders {
            appender.join().unwrap();
        }
        if let Taken::Units { .. } = drainer.take(64, 64) {
            check(&drainer, &mut seen);
            drainer.release();
        }
        assert_eq!(seen, 0b11);
    });
}

fn put(ring: &Ring, payload: &[u8]) {
    let reserved = ring.reserve(frame_bytes(payload.len() as u64));
    let (lsn, bytes) = (reserved.lsn(), u32::try_from(payload.len()).unwrap());
    let crc = crc32c::crc32c(payload);
    let seed = Seed::new([0; 16], 1);
    let header = FrameHeader::seal(seed, lsn, Kind::Record, bytes, crc, lsn);
    reserved.publish(std::iter::once((header, payload)));
}

/// A unit begins at the place of a unit two laps before. No unit of the lap between begins there:
///
/// ```text
/// 0      24                      80                 128
/// |  A   |  B  (64: the next lap) |  C   (slots 1..) |  D: slot 0 still holds A
/// ```
///
/// While D is published, the drainer takes it whole or not at all.
fn two_laps(tag: Option<fn(Lsn) -> u64>) {
    explore(move || {
        TAG.set(tag);
        let (ring, mut drainer) = Ring::new(64, Lsn::ZERO);
        for payload_bytes in [8, 40, 32] {
            put(&ring, &vec![0; payload_bytes]);
            assert!(matches!(drainer.take(1, 64), Taken::Units { frame_count: 1, .. }));
            drainer.release();
        }
        assert_eq!(drainer.at(), Lsn::new(128));
        let appender = loom::thread::spawn({
            let ring = Arc::clone(&ring);
            move || put(&ring, &[7; 8])
        });
        let early = drainer.take(1, 64);
        if early != Taken::Nothing {
            let end = Lsn::new(152);
            assert_eq!(early, Taken::Units { end, frame_count: 1 }, "an old tag");
            check(&drainer, &mut 0);
            drainer.release();
        }
        appender.join().unwrap();
        let late = drainer.take(64, 64);
        assert_eq!((late == Taken::Nothing), (early != Taken::Nothing), "once");
        TAG.set(None);
    });
}

#[test]
fn slot_of_two_laps_ago_is_not_published() {
    two_laps(None);
}

/// A tag with the lap's parity is not enough, because a lap may leave a slot unused.
#[test]
#[should_panic(expected = "an old tag")]
fn control_tag_of_the_laps_parity() {
    two_laps(Some(|lsn| lsn.as_u64() / 64 % 2 + 1));
}

fn check(drainer: &Drainer, seen: &mut u8) {
    let read: Result<(), Infallible> = drainer.read_taken(|_, bytes| {
        for frame in bytes.chunks(24) {
            let payload = &frame[16..24];
            assert!(payload.iter().all(|&byte| byte == payload[0] && byte != 0));
            *seen |= payload[0];
        }
        Ok(())
    });
    read.unwrap();
}
