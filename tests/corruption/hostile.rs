//! Hostile bytes: opening succeeds or fails, within a time limit.

use std::time::Duration;

use highwater::simulation::Disk;
use proptest::prelude::*;

use super::{
    bytes::{file_name, reseal_header},
    invariant::outcome,
    log::{HEADER, block_on, open},
};

/// Runs `work` on its own thread, and panics if it takes longer than `limit`.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || drop(send.send(work())));
    match receive.recv_timeout(limit) {
        Ok(done) => done,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("still running after {limit:?}"),
        Err(_) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it sends before it ends"),
        },
    }
}

fn opens_or_refuses(files: Vec<(u64, Vec<u8>)>) {
    within(Duration::from_secs(20), move || {
        let mut image = Disk::new(1).image();
        for (sequence, mut bytes) in files {
            // Without this the header would belong to another file.
            if bytes.len() >= 124 && bytes[12..16] == [124, 0, 0, 0] {
                bytes[112..120].copy_from_slice(&sequence.to_le_bytes());
                reseal_header(&mut bytes);
            }
            image.put(&file_name(sequence), bytes);
        }
        drop(outcome(&image));
    });
}

fn hostile_file() -> impl Strategy<Value = Vec<u8>> {
    let tail = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..5000),
        Just(vec![0; 4096]),
    ];
    let near = prop_oneof![0..5000u64, (0..5000u64).prop_map(|n| u64::MAX - n), any::<u64>()];
    let fields = (near.clone(), near.clone(), near.clone(), near.clone(), near.clone(), near);
    let header = (fields, 0..3u8, any::<bool>()).prop_map(|(fields, id, linked)| {
        let (base, epoch, incarnation, first, synced, file_bytes) = fields;
        let mut bytes = vec![0; HEADER];
        bytes[..8].copy_from_slice(&[0x8b, b'H', b'W', b'A', b'L', 0x0d, 0x0a, 0x1a]);
        bytes[8] = 1;
        bytes[12] = 124;
        bytes[16..32].fill(id);
        let link = if linked { (base / 2, 1) } else { (0, 0) };
        let words = [
            base,
            epoch,
            incarnation.max(1),
            link.0,
            link.1,
            first,
            synced.min(base),
            0,
            u64::MAX,
            file_bytes,
        ];
        for (i, word) in words.into_iter().enumerate() {
            bytes[32 + i * 8..40 + i * 8].copy_from_slice(&word.to_le_bytes());
        }
        reseal_header(&mut bytes);
        bytes
    });
    let header = prop_oneof![
        3 => header,
        1 => prop::collection::vec(any::<u8>(), 0..4200),
        1 => Just(vec![0; HEADER]),
    ];
    (header, tail).prop_map(|(mut bytes, tail)| {
        bytes.extend(tail);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_files_are_opened_or_refused(
        files in prop::collection::vec((1..5u64, hostile_file()), 0..4)
    ) {
        opens_or_refuses(files);
    }
}

/// An intact header may hold positions near `u64::MAX`.
#[test]
fn positions_near_u64_max_neither_hang_nor_overflow() {
    let disk = Disk::new(5);
    drop(block_on(open(&disk)).unwrap());
    let intact = disk.image().bytes(&file_name(1)).unwrap().to_vec();
    for base in [u64::MAX, u64::MAX - 7, u64::MAX - 4096, 1 << 63] {
        let mut bytes = intact.clone();
        bytes[32..40].copy_from_slice(&base.to_le_bytes());
        bytes[72..80].copy_from_slice(&base.to_le_bytes());
        bytes[80..88].copy_from_slice(&base.to_le_bytes());
        reseal_header(&mut bytes);
        opens_or_refuses(vec![(1, bytes.clone())]);
        // A segment without a readable header follows: its base must be searched.
        opens_or_refuses(vec![(1, bytes), (2, vec![0xaa; 8192])]);
    }
}
