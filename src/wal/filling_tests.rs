//! Tests that the sizes of flushes decide how segments are prepared.

use crate::{
    options::Preallocation, pipeline::recycle::next_preallocation, storage::MemoryStorage, wal::Wal,
};

#[tokio::test]
async fn large_flushes_stop_the_filling_of_segments() {
    let wal = Wal::options().segment_bytes(64 << 20).open_with(MemoryStorage::new()).await;
    let wal = wal.unwrap();
    let record = vec![1; 64 << 10];
    for _ in 0..16 {
        wal.append(&record).await.unwrap();
    }
    let core = wal.core();
    assert_eq!(next_preallocation(core), Preallocation::Reserve, "no flush at all");
    for _ in 0..16 {
        wal.append_and_sync(&record).await.unwrap();
    }
    assert_eq!(next_preallocation(core), Preallocation::ZeroFill, "64 KiB each");
    for _ in 0..8 {
        wal.append_batch(vec![&record; 8]).await.unwrap();
        wal.sync().await.unwrap();
    }
    assert_eq!(next_preallocation(core), Preallocation::Reserve, "half a mebibyte each");
    assert_eq!(next_preallocation(core), Preallocation::ZeroFill, "no flush since");
}
