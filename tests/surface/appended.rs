//! `append_with`: the requested durability, and the place of the record.

use highwater::{Durability, Error, Wal, storage::MemoryStorage};

use crate::{
    closed, held, poisoned, runtimes,
    support::{assert_ring_is_whole, poll_and_drop, records, small, within},
};

/// The payload follows this header (`docs/FORMAT.md`).
const FRAME_HEADER_BYTES: u64 = 16;

#[test]
fn append_with_returns_file_and_offset() {
    for runtime in runtimes() {
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let wal = small().open(directory.path()).await.unwrap();
            let mut segments = std::collections::BTreeSet::new();
            for i in 0..100u32 {
                let payload = format!("{i}:").repeat(1 + i as usize * 7 % 200).into_bytes();
                let durability = if i % 2 == 0 { Durability::Synced } else { Durability::Written };
                let appended =
                    within("append_with", wal.append_with(&payload, durability)).await.unwrap();
                let file = std::fs::read(directory.path().join(appended.segment_name())).unwrap();
                let at = usize::try_from(appended.offset + FRAME_HEADER_BYTES).unwrap();
                assert_eq!(file[at..at + payload.len()], payload, "{appended:?}");
                assert_eq!(wal.read(appended.lsn).await.unwrap().payload, payload);
                segments.insert(appended.segment);
                assert_eq!(appended.sync_time.is_some(), i % 2 == 0);
                if i % 2 == 0 {
                    assert!(appended.synced && wal.watermarks().synced > appended.lsn);
                }
            }
            assert!(segments.len() > 1, "the log must rotate");
            // A record that needs its own segment, and one after it.
            for bytes in [40_000, 10] {
                let payload = vec![7; bytes];
                let appended = wal.append_with(&payload, Durability::Synced).await.unwrap();
                let file = std::fs::read(directory.path().join(appended.segment_name())).unwrap();
                let at = usize::try_from(appended.offset + FRAME_HEADER_BYTES).unwrap();
                assert_eq!(file[at..at + bytes], payload);
            }
        });
    }
}

#[tokio::test]
async fn unsynced_append_is_not_reported_synced() {
    let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
    let appended = wal.append_with("written", Durability::Written).await.unwrap();
    assert!(!appended.synced && wal.watermarks().synced <= appended.lsn);
    assert_eq!(appended.sync_time, None);
    assert!(wal.append_with("synced", Durability::Synced).await.unwrap().synced);
}

#[tokio::test]
async fn dropped_it_is_there_whole_or_not_at_all() {
    for durability in [Durability::Written, Durability::Synced] {
        for polls in 0..=5 {
            let (wal, memory, writes) = held().await;
            let append = wal.append_with(b"perhaps", durability);
            let result = poll_and_drop(append, polls, |_| writes.allow(1));
            writes.open();
            within("sync", wal.sync()).await.unwrap();
            let found = records(&wal).await;
            let count = found.iter().filter(|(_, payload)| payload == b"perhaps").count();
            assert_eq!(
                count,
                usize::from(polls >= 2),
                "{durability:?} {polls}: the first poll waits for space"
            );
            if let Some(result) = result {
                assert_eq!(found[1].0, result.unwrap().lsn);
            }
            assert_ring_is_whole(&wal).await;
            let found = records(&wal).await;
            within("close", wal.close()).await.unwrap();
            let again = small().open_with(memory).await.unwrap();
            assert_eq!(records(&again).await, found);
        }
    }
}

#[tokio::test]
async fn append_with_fails_on_stopped_log() {
    for durability in [Durability::Written, Durability::Synced] {
        let error = poisoned().await.append_with(b"x", durability).await.unwrap_err();
        assert!(error.is_poisoned(), "{error}");
        let error = closed().await.append_with(b"x", durability).await.unwrap_err();
        assert!(error.is_closed(), "{error}");
        let wal = small().record_bytes_max(10).open_with(MemoryStorage::new()).await.unwrap();
        let error = wal.append_with(vec![0; 11], durability).await.unwrap_err();
        assert!(matches!(error, Error::RecordTooLarge { .. }), "{error}");
    }
}
