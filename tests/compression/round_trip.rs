//! Round trips: every record is read back unchanged, for all contents and settings.

use futures::{SinkExt, StreamExt, TryStreamExt};
use highwater::{
    Compression, Error, Lsn, Recovered, Wal, inspect,
    simulation::{Disk, Survival},
    storage::MemoryStorage,
};

use super::{
    block_on, compressions,
    frames::{HEADER, LZ4, RECORD, ZSTD, contents},
    noise, payloads, replayed, small, text,
};

fn sizes() -> impl Iterator<Item = usize> {
    (0..40).chain([127, 128, 129, 1000, 4096, 20_000, 70_000, 300_000])
}

/// Each way of appending and each way of reading.
#[test]
fn records_of_all_sizes_are_read_back() {
    for compression in compressions() {
        block_on(async {
            let storage = MemoryStorage::new();
            let options = || small().compression(compression).compression_bytes_min(0);
            let wal = options().open_with(storage.clone()).await.unwrap();
            let all: Vec<_> = sizes().flat_map(|bytes| [text(bytes), noise(bytes)]).collect();
            let mut lsns = Vec::new();
            for (i, payload) in all.iter().enumerate() {
                lsns.push(match i % 4 {
                    0 => wal.append(payload).await.unwrap(),
                    1 => wal.append_and_sync(payload.clone()).await.unwrap(),
                    2 => wal.enqueue(payload).await.unwrap().lsn(),
                    _ => match wal.try_enqueue(payload) {
                        Ok(ticket) => ticket.lsn(),
                        Err(Error::Full) => wal.append(payload).await.unwrap(),
                        Err(error) => panic!("{error}"),
                    },
                });
            }
            wal.sync().await.unwrap();
            let follower = wal.follow(Lsn::ZERO).take(all.len());
            let followed: Vec<_> = follower.try_collect().await.unwrap();
            assert_eq!(payloads(&followed), all);
            let records = replayed(&wal, Lsn::ZERO).await.unwrap();
            assert_eq!(records.iter().map(|record| record.lsn).collect::<Vec<_>>(), lsns);
            assert_eq!(payloads(&records), all);
            for (lsn, payload) in lsns.iter().zip(&all) {
                assert_eq!(&wal.read(*lsn).await.unwrap().payload, payload);
            }
            drop(wal);
            let mut recovery = options().recover_with(storage).await.unwrap();
            let mut recovered = Vec::new();
            while let Some(next) = recovery.try_next().await.unwrap() {
                if let Recovered::Record(record) = next {
                    recovered.push(record.payload.to_vec());
                }
            }
            assert_eq!(recovered, all);
        });
    }
}

#[test]
fn batch_and_sink_records_are_compressed_singly() {
    for compression in compressions() {
        block_on(async {
            let options = small().compression(compression);
            let wal = options.open_with(MemoryStorage::new()).await.unwrap();
            let mut all = vec![text(3000), noise(300), text(0), text(2000), b"short".to_vec()];
            let range = wal.append_batch(&all).await.unwrap();
            let plain: usize =
                all.iter().map(|payload| 16 + payload.len().next_multiple_of(8)).sum();
            let taken = range.end.as_u64() - range.start.as_u64();
            assert!(taken < plain as u64 / 2, "{taken} of {plain}");
            // Larger than the ring, and larger than a segment.
            let large = [noise(5000), text(50_000)];
            wal.append_batch(&large).await.unwrap();
            all.extend(large);
            let mut sink = wal.sink();
            for bytes in [10, 1500, 2500, 20_000] {
                sink.send(text(bytes).into()).await.unwrap();
                all.push(text(bytes));
            }
            sink.flush().await.unwrap();
            assert_eq!(payloads(&replayed(&wal, Lsn::ZERO).await.unwrap()), all);
        });
    }
}

/// The largest default record, which fits into the ring only when it is compressed.
#[test]
fn record_of_64_mib_is_read_back() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir_in(".").unwrap();
        for compression in compressions().into_iter().take(2) {
            let options = Wal::options().compression(compression);
            let wal = options.open(directory.path()).await.unwrap();
            let mut large = text(1 << 16).repeat(1 << 10);
            large[..4096].copy_from_slice(&noise(4096));
            let lsn = wal.append_and_sync(&large).await.unwrap();
            let taken = wal.watermarks().reserved.as_u64() - lsn.as_u64();
            assert!(taken < 32 << 20, "{taken}");
            let record = wal.replay(lsn..).try_next().await.unwrap().unwrap();
            assert!(record.payload == large);
            assert!(wal.read(lsn).await.unwrap().payload == large);
            large.push(0);
            let refused = wal.append(large).await;
            assert!(matches!(refused, Err(Error::RecordTooLarge { .. })), "{refused:?}");
            wal.close().await.unwrap();
        }
    });
}

/// A log is reopened with different settings, after a close or after a kill.
#[test]
fn log_with_changing_settings_is_read_back() {
    let mut settings = vec![Compression::None];
    settings.extend(compressions());
    let mut disk = Disk::new(1);
    let mut all = Vec::new();
    for round in 0..12 {
        let options = small().compression(settings[round % settings.len()]);
        disk = block_on(async {
            let wal = options.open_with(disk.clone()).await.unwrap();
            let found = payloads(&replayed(&wal, Lsn::ZERO).await.unwrap());
            assert_eq!(found, all, "round {round}");
            all.push(text(900));
            wal.append_and_sync(text(900)).await.unwrap();
            let batch = [text(100 * round), noise(300), text(2000)];
            wal.append_batch(&batch).await.unwrap();
            all.extend(batch);
            if round % 2 == 0 {
                wal.close().await.unwrap();
            }
            // Records above the last commitment are framed again, as they are stored.
            Disk::with_image(disk.image().crash(Survival::Everything), round as u64)
        });
    }
}

#[test]
fn short_or_incompressible_record_is_stored_plain() {
    for compression in compressions() {
        let storage = MemoryStorage::new();
        block_on(async {
            let options = small().compression(compression).compression_bytes_min(200);
            let wal = options.open_with(storage.clone()).await.unwrap();
            wal.append(&text(199)).await.unwrap();
            wal.append(&noise(300)).await.unwrap();
            wal.append(&text(1000)).await.unwrap();
            wal.close().await.unwrap();
        });
        let snapshot = inspect::Snapshot::of_storage(storage).unwrap();
        let frames = snapshot.frames(&snapshot.outline().segments[0]).unwrap();
        let frames: Vec<_> = frames.map(Result::unwrap).collect();
        for (frame, bytes) in frames.iter().zip([199, 300]) {
            assert_eq!((frame.compression, frame.stored_bytes), (None, bytes));
        }
        let compressed = frames[2].compression.unwrap();
        let codec = if compression == Compression::Lz4 { "lz4" } else { "zstd" };
        assert_eq!((compressed.codec, compressed.problem), (codec, None));
        assert_eq!((frames[2].payload_bytes, &frames[2].payload[..]), (1000, &text(1000)[..]));
        assert!(frames[2].stored_bytes < 500);
        let contents = snapshot.read_all(&mut |_| {}).segments[0].contents.unwrap();
        assert_eq!((contents.record_count, contents.payload_bytes), (3, 1499));
        let sums = contents.compressed.unwrap();
        assert_eq!((sums.record_count, sums.payload_bytes), (1, 1000));
        assert_eq!(sums.stored_bytes, frames[2].stored_bytes);
    }
}

/// The payload begins with the real length; the frame's flag names the codec.
#[test]
fn flag_and_length_follow_the_format() {
    for compression in compressions() {
        let storage = MemoryStorage::new();
        block_on(async {
            let wal = small().compression(compression).open_with(storage.clone()).await.unwrap();
            wal.append(&text(1000)).await.unwrap();
            wal.close().await.unwrap();
        });
        let bytes = &contents(&storage)[0].1;
        let flag = if compression == Compression::Lz4 { LZ4 } else { ZSTD };
        assert_eq!(bytes[HEADER + 4..HEADER + 6], [RECORD, flag]);
        assert_eq!(bytes[HEADER + 16..HEADER + 20], 1000u32.to_le_bytes());
    }
}

#[test]
fn limits_apply_to_uncompressed_records() {
    block_on(async {
        let storage = MemoryStorage::new();
        let options = || small().compression(Compression::Lz4).record_bytes_max(10_000);
        let wal = options().batch_bytes_max(12_000).open_with(storage.clone()).await.unwrap();
        let refused = wal.append(text(10_001)).await;
        assert!(matches!(refused, Err(Error::RecordTooLarge { bytes: 10_001, max: 10_000 })));
        let refused = wal.append_batch([text(6000), text(6000)]).await;
        assert!(matches!(refused, Err(Error::BatchTooLarge { bytes: 12_032, max: 12_000 })));
        let lsn = wal.append(text(10_000)).await.unwrap();
        let next = wal.append(text(10)).await.unwrap();
        wal.close().await.unwrap();
        let wal = options().record_bytes_max(9999).open_with(storage).await.unwrap();
        let refused = replayed(&wal, Lsn::ZERO).await;
        assert!(matches!(refused, Err(Error::RecordTooLarge { bytes: 10_000, max: 9999 })));
        assert!(matches!(wal.read(lsn).await, Err(Error::RecordTooLarge { .. })));
        assert_eq!(wal.read(next).await.unwrap().payload, text(10));
    });
}

/// A follower's position depends on the stored length, not on the length of the payload.
#[test]
fn follower_resumes_after_compressed_record() {
    block_on(async {
        let options = small().compression(Compression::Lz4);
        let wal = options.open_with(MemoryStorage::new()).await.unwrap();
        let mut follower = wal.follow(Lsn::ZERO);
        for round in 0..5 {
            let lsn = wal.append_and_sync(text(1000 + round)).await.unwrap();
            let record = follower.next().await.unwrap().unwrap();
            assert_eq!((record.lsn, record.payload.len()), (lsn, 1000 + round));
            let next = wal.append_and_sync(text(1)).await.unwrap();
            let mut second = wal.follow(follower.position());
            assert_eq!(second.next().await.unwrap().unwrap().lsn, next);
            assert_eq!(follower.next().await.unwrap().unwrap().lsn, next);
        }
    });
}

#[cfg(feature = "zstd")]
#[test]
fn invalid_zstd_level_is_refused() {
    for level in [0, 23] {
        let options = small().compression(Compression::Zstd { level });
        let refused = block_on(options.open_with(MemoryStorage::new()));
        assert!(matches!(refused, Err(Error::InvalidOption { option: "compression", .. })));
    }
}

/// Readers and salvage expand records, too.
#[test]
fn readers_expand_compressed_records() {
    for compression in compressions() {
        let directory = tempfile::tempdir().unwrap();
        let (expected, beside, salvaged) = block_on(async {
            let wal = small().compression(compression).open(directory.path()).await.unwrap();
            for bytes in [0, 1, 300, 2000, 3000, 12, 2500] {
                wal.append(text(bytes)).await.unwrap();
            }
            wal.append_batch([text(500), noise(200), text(700)]).await.unwrap();
            wal.sync().await.unwrap();
            let expected = replayed(&wal, Lsn::ZERO).await.unwrap();
            let reader = highwater::Reader::open(directory.path()).await.unwrap();
            let mut tail = reader.follow(Lsn::ZERO);
            let mut beside = Vec::new();
            for _ in 0..expected.len() {
                beside.push(tail.try_next().await.unwrap().unwrap());
            }
            wal.append_and_sync(text(1000)).await.unwrap();
            let last = tail.try_next().await.unwrap().unwrap();
            assert_eq!(last.payload, text(1000), "the position must be the end of the frame");
            beside.push(last);
            let expected = replayed(&wal, Lsn::ZERO).await.unwrap();
            wal.close().await.unwrap();
            let salvage = highwater::Reader::options().salvage(directory.path()).await.unwrap();
            let salvaged: Vec<_> = salvage.try_collect().await.unwrap();
            (expected, beside, salvaged)
        });
        assert_eq!(beside, expected);
        assert_eq!(salvaged, expected);
    }
}
