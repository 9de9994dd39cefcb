//! The number of file handles that an open log holds.

use std::{fs, path::Path, time::Duration};

use crate::{
    block_on,
    support::{filled, records, tiny, within},
};

/// The directory, its lock and `LOCK`; 16 segments for reading; those of the writer: the active
/// segment, the sealed one until it is synced, and the prepared one.
const HANDLE_COUNT_MAX: usize = 22;

/// Returns the number of this process's handles on a directory or a file in it.
fn handle_count(directory: &Path) -> usize {
    let handles = fs::read_dir("/proc/self/fd").unwrap();
    let targets = handles.filter_map(|handle| fs::read_link(handle.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(directory)).count()
}

#[test]
fn handles_do_not_grow_with_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("log");
    block_on(async {
        let wal = tiny().open(&path).await.unwrap();
        filled(&wal, 1_200).await;
        assert_eq!(records(&wal).await.len(), 1_200);
        assert!(wal.stats().segment_count > 30, "{} segments", wal.stats().segment_count);
        let count = handle_count(&path);
        assert!((16..=HANDLE_COUNT_MAX).contains(&count), "{count} handles");
        wal.close().await.unwrap();
        drop(wal);
        // The job that closed the log may hold it for a moment after its answer.
        within("a closed log without handles", async {
            while handle_count(&path) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    });
}
