//! The ring under every interleaving of two appenders and the drainer.

use std::{cell::Cell, convert::Infallible};

use super::*;
use crate::{format::frame::Seed, pipeline::loom_tests::explore};

thread_local! {
    /// What a slot holds instead, for a negative control. Loom runs all of a model on one thread.
    pub(super) static TAG: Cell<Option<fn(Lsn) -> u64>> = const { Cell::new(None) };
}

/// Two appenders and the drainer over one and a half laps: what is taken is whole and in order.
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

/// The unit that begins a lap where one began two laps before, and none on the lap between:
///
/// ```text
/// 0      24                      80                 128
/// |  A   |  B  (64: the next lap) |  C   (slots 1..) |  D: slot 0 last told of A
/// ```
///
/// While D is being published the drainer takes it whole or not at all.
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
fn what_a_slot_told_two_laps_ago_is_not_taken_for_now() {
    two_laps(None);
}

/// Which of two laps it is doesn't do: a slot may be left out for a lap.
#[test]
#[should_panic(expected = "an old tag")]
fn control_a_tag_of_the_laps_parity() {
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
