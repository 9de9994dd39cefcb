//! The ring alone, one thread or a few.

use std::convert::Infallible;

use super::*;
use crate::format::frame::Seed;

fn header(lsn: Lsn, kind: Kind, payload: &[u8]) -> FrameHeader {
    let bytes = u32::try_from(payload.len()).unwrap();
    FrameHeader::seal(Seed::new([0; 16], 1), lsn, kind, bytes, crc32c::crc32c(payload), lsn)
}

fn put(ring: &Ring, payload: &[u8]) -> Lsn {
    let reserved = ring.reserve(frame_bytes(payload.len() as u64));
    let lsn = reserved.lsn();
    reserved.publish(std::iter::once((header(lsn, Kind::Record, payload), payload)));
    lsn
}

fn taken(drainer: &Drainer) -> Vec<u8> {
    let mut bytes = Vec::new();
    let gathered: Result<(), Infallible> = drainer.read_taken(|_, piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    });
    gathered.unwrap();
    bytes
}

#[test]
fn laps_return_published_frames() {
    // Up to positions whose byte, word and slot numbers do not fit into 32 bits.
    for base in [0, 1 << 33, 1 << 35, 1 << 36, 1 << 40, 1 << 61] {
        run_laps(Lsn::new(base));
    }
}

/// On a target of 32 bits, all positions above 2^35 had the last place.
#[test]
fn every_position_has_its_own_word_and_slot() {
    for base in [0, (1 << 35) - 64, 1 << 35, 1 << 40, (1 << 62) - 128] {
        let (ring, _drainer) = Ring::new(128, Lsn::new(base));
        for number in 0..32u64 {
            let lsn = Lsn::new(base + number * 8);
            let expected = (base / 8 + number) % 16;
            assert_eq!(ring.word_index(lsn) as u64, expected, "{lsn}");
            let slot = ring.slots.iter().position(|slot| std::ptr::eq(slot, ring.slot(lsn)));
            assert_eq!(slot.unwrap() as u64, (base / 16 + number / 2) % 8, "{lsn}");
        }
    }
}

fn run_laps(base: Lsn) {
    let (ring, mut drainer) = Ring::new(256, base);
    for i in 0..100u8 {
        let payload = vec![i; usize::from(i) % 60];
        let lsn = put(&ring, &payload);
        let Taken::Units { end, frame_count: 1 } = drainer.take(1 << 20, 1 << 20) else {
            panic!("the frame is published")
        };
        assert_eq!(lsn, drainer.at());
        let bytes = taken(&drainer);
        assert_eq!(bytes[16..16 + payload.len()], payload);
        assert_eq!(bytes[..16], header(lsn, Kind::Record, &payload).to_bytes());
        drainer.release();
        assert_eq!((drainer.at(), ring.drained()), (end, end));
    }
}

/// Bytes of an earlier lap never look like a published unit, even if they equal headers or tags.
#[test]
fn earlier_lap_never_reads_as_published() {
    let (ring, mut drainer) = Ring::new(128, Lsn::ZERO);
    for lap in 0..4u64 {
        let next = lap * 128;
        let payload: Vec<u8> =
            (0..14).flat_map(|i| tag(Lsn::new(next + 8 * i)).to_le_bytes()).collect();
        put(&ring, &payload);
        assert!(matches!(drainer.take(128, 128), Taken::Units { .. }));
        drainer.release();
        let at = next + 128;
        let starts: Vec<_> = (0..16).map(|i| ring.is_published(Lsn::new(at + 8 * i))).collect();
        assert!(!starts.contains(&true), "lap {lap}: {starts:?}");
        assert_eq!(drainer.take(128, 128), Taken::Nothing);
    }
    let _unpublished = ring.reserve(24);
    assert_eq!(drainer.take(128, 128), Taken::Nothing);
    assert!(!ring.is_ready());
}

/// Positions that are used again after a truncation begin unpublished.
#[test]
fn rewind_unpublishes_everything() {
    let (ring, mut drainer) = Ring::new(128, Lsn::ZERO);
    put(&ring, b"kept");
    put(&ring, b"cut");
    assert!(matches!(drainer.take(128, 128), Taken::Units { .. }));
    drainer.release();
    drainer.rewind(Lsn::new(24));
    let _unpublished = ring.reserve(24);
    assert!(!ring.is_ready());
    assert_eq!(drainer.take(128, 128), Taken::Nothing);
}

#[test]
fn unpublished_frame_blocks_later_ones() {
    let (ring, mut drainer) = Ring::new(256, Lsn::ZERO);
    let first = ring.reserve(24);
    put(&ring, b"second");
    assert_eq!(drainer.take(256, 256), Taken::Nothing);
    assert!(!ring.is_ready());
    first.publish(std::iter::once((header(Lsn::ZERO, Kind::Record, b"first"), &b"first"[..])));
    assert!(ring.is_ready());
    let taken = drainer.take(256, 256);
    assert_eq!(taken, Taken::Units { end: Lsn::new(48), frame_count: 2 });
}

#[test]
fn batch_is_taken_whole_or_not_at_all() {
    let (ring, mut drainer) = Ring::new(256, Lsn::ZERO);
    let reserved = ring.reserve(24 + 32);
    let (one, two): (&[u8], &[u8]) = (b"one", b"two - longer");
    let frames = [
        (header(Lsn::ZERO, Kind::BatchPart, one), one),
        (header(Lsn::new(24), Kind::BatchEnd, two), two),
    ];
    reserved.publish(frames.into_iter());
    assert_eq!(drainer.take(256, 40), Taken::DoesNotFit { unit_bytes: 56 });
    assert_eq!(drainer.take(1, 56), Taken::Units { end: Lsn::new(56), frame_count: 2 });
}

#[test]
#[should_panic(expected = "reserved beyond the permits")]
fn reservation_beyond_a_lap_panics() {
    let (ring, _drainer) = Ring::new(64, Lsn::ZERO);
    let _first = ring.reserve(64);
    let _second = ring.reserve(DIRECT_BYTES_MAX + 8);
}

#[test]
fn full_ring_is_taken_once() {
    let (ring, mut drainer) = Ring::new(64, Lsn::ZERO);
    put(&ring, &[1; 16]);
    put(&ring, &[2; 16]);
    let taken = drainer.take(1 << 20, 1 << 20);
    assert_eq!(taken, Taken::Units { end: Lsn::new(64), frame_count: 2 });
}

#[test]
fn oversized_units_keep_the_order() {
    let (ring, mut drainer) = Ring::new(64, Lsn::ZERO);
    assert_eq!(ring.reserve_outside(4096), Lsn::ZERO);
    assert_eq!(drainer.take(64, 64), Taken::Nothing);
    drainer.skip(4096, Some(Lsn::ZERO));
    assert_eq!(put(&ring, b"next"), Lsn::new(4096));
    assert!(matches!(drainer.take(64, 64), Taken::Units { .. }));
}

#[test]
fn concurrent_appends_are_whole_and_in_order() {
    let (ring, mut drainer) = Ring::new(4096, Lsn::ZERO);
    let permits = Arc::new(std::sync::Mutex::new(4096u64));
    // Miri runs a thousandth as fast.
    let (threads, each) = (4u8, if cfg!(miri) { 20 } else { 2000u32 });
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (ring, permits) = (&ring, &permits);
            scope.spawn(move || {
                for i in 0..each {
                    let payload = [&[thread; 5][..], &i.to_le_bytes()].concat();
                    let bytes = frame_bytes(payload.len() as u64);
                    loop {
                        let mut left = permits.lock().unwrap();
                        if *left >= bytes {
                            *left -= bytes;
                            break;
                        }
                        drop(left);
                        std::thread::yield_now();
                    }
                    put(ring, &payload);
                }
            });
        }
        let mut next = vec![0u32; usize::from(threads)];
        let mut seen = 0;
        while seen < u32::from(threads) * each {
            let Taken::Units { end, .. } = drainer.take(1024, 1 << 20) else {
                std::thread::yield_now();
                continue;
            };
            let bytes = end.since(drainer.at());
            for frame in taken(&drainer).chunks(32) {
                let thread = usize::from(frame[16]);
                assert_eq!(frame[21..25], next[thread].to_le_bytes());
                next[thread] += 1;
                seen += 1;
            }
            drainer.release();
            *permits.lock().unwrap() += bytes;
        }
    });
}
