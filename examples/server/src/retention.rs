//! How much of the log is kept.

use std::time::Duration;

use highwater::{Retention, Wal};
use tokio::{sync::watch, time::timeout};

/// The time between two applications of the retention. An idle log needs them.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);

/// Returns the retention of these limits. Without a limit, everything is kept.
pub(crate) fn of(bytes: Option<u64>, hours: Option<u64>) -> Retention {
    let mut retention = Retention::default();
    if let Some(bytes) = bytes {
        retention = retention.bytes(bytes);
    }
    if let Some(hours) = hours {
        retention = retention.age(Duration::from_secs(hours.saturating_mul(60 * 60)));
    }
    retention
}

/// Applies the retention of a log by a timer, until the server ends.
///
/// A log in use applies it in its flushes. An idle log has none, but its events get older, and its
/// consumers may have moved on.
pub(crate) async fn apply(wal: Wal, interval: Duration, mut is_ending: watch::Receiver<bool>) {
    // Ends also if the sender is gone.
    while timeout(interval, is_ending.wait_for(|is_ending| *is_ending)).await.is_err() {
        // A log that has failed or has no space reports that itself, in its health and its events.
        if let Err(error) = wal.apply_retention().await {
            eprintln!("the retention was not applied: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use highwater::storage::MemoryStorage;

    use super::*;

    #[tokio::test]
    async fn idle_log_drops_old_segments_by_timer() {
        let old = Retention::default().age(Duration::from_millis(100));
        let options = Wal::options().segment_bytes(8 << 10).retention(old);
        let wal = options.open_with(MemoryStorage::new()).await.unwrap();
        for _ in 0..200 {
            wal.append_and_sync(&[0; 200]).await.unwrap();
        }
        let newest = wal.segments().last().unwrap().start;
        let (ends, is_ending) = watch::channel(false);
        let timer = tokio::spawn(apply(wal.clone(), Duration::from_millis(1), is_ending));
        let dropped = async {
            while wal.watermarks().first < newest {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), dropped).await.unwrap();
        ends.send_replace(true);
        timeout(Duration::from_secs(20), timer).await.unwrap().unwrap();
        wal.close().await.unwrap();
    }

    #[test]
    fn retention_has_the_limits_that_are_given() {
        assert_eq!(of(None, None), Retention::default());
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(of(Some(1000), Some(24)), Retention::default().bytes(1000).age(day));
    }
}
