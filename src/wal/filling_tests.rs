//! Whether what is learned about flushes decides how segments are prepared.

use crate::{options::Preallocation, storage::MemoryStorage, wal::Wal};

#[tokio::test]
async fn what_is_flushed_in_large_pieces_is_not_filled() {
    let wal = Wal::options().segment_bytes(64 << 20).open_with(MemoryStorage::new()).await;
    let wal = wal.unwrap();
    let record = vec![1; 64 << 10];
    for _ in 0..16 {
        wal.append(&record).await.unwrap();
    }
    let core = wal.core();
    assert_eq!(core.next_preallocation(), Preallocation::Reserve, "no flush at all");
    for _ in 0..16 {
        wal.append_and_sync(&record).await.unwrap();
    }
    assert_eq!(core.next_preallocation(), Preallocation::ZeroFill, "64 KiB each");
    for _ in 0..8 {
        wal.append_batch(vec![&record; 8]).await.unwrap();
        wal.sync().await.unwrap();
    }
    assert_eq!(core.next_preallocation(), Preallocation::Reserve, "half a mebibyte each");
    assert_eq!(core.next_preallocation(), Preallocation::ZeroFill, "nothing since");
}
