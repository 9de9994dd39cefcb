//! Frames with valid checksums and forged compressed payloads, and codecs that are not built in.

use futures::StreamExt;
use highwater::{Error, Lsn, inspect, storage::MemoryStorage};

use super::{
    allocated::largest_bytes,
    block_on,
    frames::{
        CONTROL, END, HEADER, LZ4, PART, RECORD, ZSTD, contents, log_of, lz4_by_hand, stored,
        zstd_by_hand,
    },
    payloads, replayed, small, text,
};

const PLAIN: (u8, u8) = (RECORD, 0);

/// Returns the records of a replay, and the error that ends it.
fn replay(storage: &MemoryStorage) -> (Vec<Vec<u8>>, Option<Error>) {
    block_on(async {
        let wal = small().open_with(storage.clone()).await.unwrap();
        let (mut found, mut refused) = (Vec::new(), None);
        let mut records = wal.replay(..);
        while let Some(next) = records.next().await {
            assert!(refused.is_none(), "an error ends the stream");
            match next {
                Ok(record) => found.push(record.payload.to_vec()),
                Err(error) => refused = Some(error),
            }
        }
        (found, refused)
    })
}

/// Returns payloads that no release stores, for frames with valid checksums.
fn malformed() -> Vec<(u8, Vec<u8>)> {
    let lz4 = lz4_by_hand();
    let mut all = vec![
        (LZ4, vec![]),
        (LZ4, vec![100, 0, 0]),
        (LZ4, stored(100, b"")),
        (LZ4, stored(0, b"")),
        (LZ4, stored(100, &[0xff; 40])),
        // One byte less, and one more, than the expanded length.
        (LZ4, stored(99, &lz4[4..])),
        (LZ4, stored(101, &lz4[4..])),
        // A match that begins before the output.
        (LZ4, stored(100, b"\x1fa\x02\x00\x4b\x50aaaaa")),
        (LZ4, stored(60 << 20, &lz4[4..])),
        (LZ4, stored(u32::MAX, &lz4[4..])),
    ];
    if cfg!(feature = "zstd") {
        let zstd = zstd_by_hand();
        all.extend([
            (ZSTD, vec![]),
            (ZSTD, stored(100, b"")),
            (ZSTD, stored(100, &lz4[4..])),
            (ZSTD, stored(99, &zstd[4..])),
            (ZSTD, stored(101, &zstd[4..])),
            (ZSTD, stored(60 << 20, &zstd[4..])),
            // The Zstandard frame claims 100 bytes, but holds 200.
            (ZSTD, stored(100, b"\x28\xb5\x2f\xfd\x20\x64\x43\x06\x00a")),
        ]);
    }
    all
}

#[test]
fn forged_payload_is_corrupt_and_takes_no_memory() {
    for (flags, payload) in malformed() {
        let before = (PLAIN, b"before".to_vec());
        let (storage, lsns) =
            log_of(&[before, ((RECORD, flags), payload.clone()), (PLAIN, b"after".to_vec())]);
        let largest = largest_bytes(|| {
            let (found, refused) = replay(&storage);
            assert_eq!(found, [b"before"]);
            assert!(
                matches!(&refused, Some(Error::Corrupt { lsn, offset, .. })
                    if lsn.as_u64() == lsns[1] && *offset == HEADER as u64 + lsns[1]),
                "flags {flags}, {payload:02x?}: {refused:?}"
            );
        });
        assert!(largest < 1 << 20, "flags {flags}, {payload:02x?}: {largest} bytes at once");
        // The other records can be read by LSN, and inspection names the bad one.
        let wal = block_on(small().open_with(storage.clone())).unwrap();
        let after = block_on(wal.read(Lsn::new(lsns[2]))).unwrap();
        assert_eq!(after.payload, "after");
        let refused = block_on(wal.read(Lsn::new(lsns[1])));
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
        drop(wal);
        let inspected = inspect::storage(storage).unwrap();
        let damage = inspected.damage.iter().map(|problem| problem.lsn);
        assert_eq!(damage.collect::<Vec<_>>(), [Some(Lsn::new(lsns[1]))]);
    }
}

/// Beyond the limit it may be a record of a log with a higher one, so the error names both values.
#[test]
fn length_above_limit_is_refused_without_memory() {
    let (storage, _) = log_of(&[((RECORD, LZ4), stored(200 << 20, &[0x1f; 3000]))]);
    let largest = largest_bytes(|| {
        let (found, refused) = replay(&storage);
        assert!(found.is_empty());
        let refused = refused.unwrap();
        assert!(matches!(refused, Error::RecordTooLarge { bytes: 0xc80_0000, .. }), "{refused:?}");
    });
    assert!(largest < 1 << 20, "{largest} bytes at once");
}

#[test]
fn handmade_frames_are_read() {
    let (storage, _) = log_of(&[
        (PLAIN, b"plain".to_vec()),
        ((PART, LZ4), lz4_by_hand()),
        ((PART, 0), b"".to_vec()),
        ((END, LZ4), lz4_by_hand()),
    ]);
    let all = [b"plain".to_vec(), vec![b'a'; 100], vec![], vec![b'a'; 100]];
    let (found, refused) = replay(&storage);
    assert!(refused.is_none(), "{refused:?}");
    assert_eq!(found, all);
}

#[test]
fn unknown_flag_is_unsupported_and_changes_nothing() {
    let unknown = [(RECORD, 3), (RECORD, 4), (RECORD, 0x80 | LZ4), (END, 0xff), (CONTROL, LZ4)];
    for (kind, flags) in unknown {
        let mark = vec![1, 0, 0, 0, 0, 0, 0, 1];
        let payload = if kind == CONTROL { mark } else { lz4_by_hand() };
        let (storage, lsns) = log_of(&[(PLAIN, b"plain".to_vec()), ((kind, flags), payload)]);
        let before = contents(&storage);
        let refused = block_on(small().open_with(storage.clone())).err();
        assert!(
            matches!(&refused, Some(Error::UnsupportedFrame { lsn, kind: k, flags: f, .. })
                if lsn.as_u64() == lsns[1] && *k == kind && *f == u16::from(flags)),
            "{kind}, {flags}: {refused:?}"
        );
        assert!(contents(&storage) == before);
    }
}

/// The default test build has no Zstandard.
#[test]
fn log_with_missing_codec_opens_and_names_feature() {
    let batch = [((PART, 0), b"part".to_vec()), ((END, ZSTD), zstd_by_hand())];
    let (storage, lsns) = log_of(&[&batch[..], &[(PLAIN, b"plain".to_vec())]].concat());
    block_on(async {
        let wal = small().open_with(storage.clone()).await.unwrap();
        assert_eq!(wal.recovery().cut, None);
        let lsn = wal.append_and_sync(text(50)).await.unwrap();
        let read = wal.read(Lsn::new(lsns[1])).await;
        if cfg!(feature = "zstd") {
            let all = [b"part".to_vec(), vec![b'a'; 100], b"plain".to_vec(), text(50)];
            assert_eq!(read.unwrap().payload, all[1]);
            assert_eq!(payloads(&replayed(&wal, Lsn::ZERO).await.unwrap()), all);
            return;
        }
        let error = read.unwrap_err();
        assert!(
            matches!(&error, Error::UnsupportedCompression { lsn, feature: "zstd", .. }
                if lsn.as_u64() == lsns[1]),
            "{error:?}"
        );
        assert!(error.to_string().contains("without the feature `zstd`"), "{error}");
        let refused = replayed(&wal, Lsn::ZERO).await;
        assert!(matches!(refused, Err(Error::UnsupportedCompression { .. })), "{refused:?}");
        assert_eq!(payloads(&replayed(&wal, Lsn::new(lsns[2])).await.unwrap()).len(), 2);
        assert_eq!(wal.read(lsn).await.unwrap().payload, text(50));
        wal.close().await.unwrap();
    });
    if !cfg!(feature = "zstd") {
        let inspected = inspect::storage(storage).unwrap();
        assert_eq!(inspected.verdict, inspect::Verdict::Closed);
        assert_eq!(inspected.damage[0].kind, inspect::ProblemKind::Unsupported);
    }
}
