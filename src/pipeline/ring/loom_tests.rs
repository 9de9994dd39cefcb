//! The ring under every interleaving of two appenders and the drainer.

use std::convert::Infallible;

use super::*;
use crate::{format::frame::Seed, pipeline::loom_tests::explore};

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
