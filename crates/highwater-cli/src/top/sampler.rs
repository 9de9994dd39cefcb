//! Looks at a log in use, without its lock.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use futures::TryStreamExt;
use highwater::{Error, Lsn, Reader, inspect::Snapshot};

use crate::{
    files::{Space, space},
    top::sample::{Log, Sample, State},
};

/// If more bytes were written between two looks, their records are not counted.
const COUNTED_BYTES_MAX: u64 = 64 << 20;

/// Takes one sample after the other.
#[derive(Debug)]
pub(super) struct Sampler {
    directory: PathBuf,
    begun: Instant,
    counter: Counter,
}

impl Sampler {
    pub(super) fn new(directory: &Path, begun: Instant) -> Self {
        let directory = directory.to_path_buf();
        Sampler { directory, begun, counter: Counter::default() }
    }

    /// Takes a sample. The reads block other threads, because the disk may hang.
    pub(super) async fn take(mut self) -> (Self, Sample) {
        let directory = self.directory.clone();
        let looked = tokio::task::spawn_blocking(move || look(&directory));
        let (state, mut log, space) =
            looked.await.unwrap_or_else(|error| (State::Unreadable(error.to_string()), None, None));
        let at = self.begun.elapsed();
        if let Some(log) = &mut log {
            log.record_count = self.counter.count(&self.directory).await;
        }
        (self, Sample { at, state, log, space })
    }
}

/// Reads the headers and the end of the log, as `stat` does.
fn look(directory: &Path) -> (State, Option<Log>, Option<Space>) {
    let (state, log) = match Snapshot::of_directory(directory) {
        Ok(snapshot) => {
            let found = snapshot.outline();
            (State::of(found), Log::of(found, SystemTime::now()))
        }
        Err(error) => (State::Unreadable(reason(&error)), None),
    };
    (state, log, space(directory))
}

fn reason(error: &Error) -> String {
    match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            "the directory is gone".to_owned()
        }
        error => format!("{error:#}"),
    }
}

/// Counts the records that are new since the last look.
#[derive(Debug, Default)]
struct Counter {
    /// The position of the last look.
    reader: Option<(Reader, Lsn)>,
}

impl Counter {
    /// Returns `None` at the first look, after an error or a truncation, and if there are too many.
    async fn count(&mut self, directory: &Path) -> Option<u64> {
        let Some((reader, from)) = self.reader.take() else {
            let reader = Reader::options().written(true).open(directory).await.ok()?;
            let end = reader.end();
            self.reader = Some((reader, end));
            return None;
        };
        // After an error, the next look opens another reader.
        reader.refresh().await.ok()?;
        let end = reader.end();
        let new_bytes = end.as_u64().checked_sub(from.as_u64());
        let count = match new_bytes.filter(|bytes| *bytes <= COUNTED_BYTES_MAX) {
            None => None,
            Some(_) => {
                let records = reader.replay(from..end);
                records.try_fold(0, async |count, _| Ok(count + 1)).await.ok()
            }
        };
        self.reader = Some((reader, end));
        count
    }
}

/// Returns how long the pause after a look must be, so that looking takes a tenth of the time.
pub(super) fn pause_after(look: Duration, interval: Duration) -> Duration {
    interval.saturating_sub(look).max(look.saturating_mul(9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_takes_at_most_a_tenth_of_the_time() {
        let ms = Duration::from_millis;
        assert_eq!(pause_after(ms(0), ms(1000)), ms(1000));
        assert_eq!(pause_after(ms(50), ms(1000)), ms(950));
        assert_eq!(pause_after(ms(200), ms(1000)), ms(1800));
        assert_eq!(pause_after(ms(5000), ms(1000)), ms(45_000));
    }
}
