//! Opens a directory with the library.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use futures::StreamExt;
use highwater::{Error, Options, Recovered, Recovery, Wal};

use crate::{
    directory::Directory,
    reference::{Opens, Outcome},
    repeatable::Repeatable,
    sizes::{RING_BYTES, SEGMENT_BYTES},
};

/// Returns the output of a future that never has to wait, because storage in memory does not block.
///
/// # Panics
///
/// If the future is still pending after 16 polls.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..16 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("the future is pending forever");
}

pub fn options(record_bytes_max: u64) -> Options {
    let options = Wal::options().segment_bytes(SEGMENT_BYTES).ring_bytes(RING_BYTES);
    options.record_bytes_max(record_bytes_max)
}

/// Reads a log during its recovery. Also returns the recovery, which can open the log for writing.
pub fn read(storage: &Repeatable, record_bytes_max: u64) -> Result<(Opens, Recovery), Error> {
    let mut recovery = now(options(record_bytes_max).recover_with(storage.clone()))?;
    let report = recovery.report().clone();
    let mut opens = Opens {
        is_new: report.is_new,
        was_closed: report.was_closed,
        is_cut: report.cut.is_some(),
        first: report.first.as_u64(),
        end: report.end.as_u64(),
        committed: report.committed.as_u64(),
        records: Vec::new(),
        is_damaged: false,
    };
    while let Some(recovered) = now(recovery.next()) {
        assert!(!opens.is_damaged, "an error ends the stream");
        match recovered {
            Ok(Recovered::Record(record)) => {
                opens.records.push((record.lsn.as_u64(), record.payload.to_vec()));
            }
            Ok(_) => {}
            Err(error) => {
                assert_expected(&error);
                opens.is_damaged = true;
            }
        }
    }
    Ok((opens, recovery))
}

/// Returns the outcome of the library's recovery in the form of the reference.
pub fn outcome(directory: &Directory, record_bytes_max: u64) -> Outcome {
    let storage = Repeatable::with(directory, 77);
    let outcome = match read(&storage, record_bytes_max) {
        Ok((opens, _)) => Outcome::Opens(opens),
        Err(Error::NotALog { .. }) => Outcome::NotALog,
        Err(Error::Corrupt { .. }) => Outcome::Corrupt,
        Err(Error::RecordTooLarge { .. }) => Outcome::TooLarge,
        Err(
            Error::UnsupportedFrame { .. }
            | Error::UnsupportedVersion { .. }
            | Error::UnsupportedExtension { .. },
        ) => Outcome::Unsupported,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(&storage.directory(), directory, "reading changes nothing");
    outcome
}

/// Asserts that the error is one that damage to a directory in memory can cause.
pub fn assert_expected(error: &Error) {
    assert!(
        matches!(
            error,
            Error::NotALog { .. }
                | Error::Corrupt { .. }
                | Error::RecordTooLarge { .. }
                | Error::UnsupportedCompression { .. }
                | Error::UnsupportedExtension { .. }
                | Error::UnsupportedFrame { .. }
                | Error::UnsupportedVersion { .. }
        ),
        "{error}"
    );
}
