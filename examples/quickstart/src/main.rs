//! Writes the lines of a file to a log, and reads them back.
//!
//! 64 tasks append the lines durably. Then the example opens the log again, replays it, and
//! compares the records with the file, byte by byte. To run it:
//!
//! ```text
//! cargo run --release -p quickstart -- [FILE]
//! ```
//!
//! The default `FILE` is the `README.md` of the working directory. A small file is repeated until
//! it has 20,000 lines, so that the rates mean something. The log is in a temporary directory,
//! which is removed at the end. The exit code is not 0 if a record differs from the file.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::TryStreamExt;
use highwater::{Stats, Wal};
use tokio::task::JoinSet;

const TASK_COUNT: usize = 64;
const LINE_COUNT_MIN: usize = 20_000;
/// The bytes of the line number (little-endian) at the start of a record. The line follows.
const NUMBER_BYTES: usize = 8;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let file = PathBuf::from(std::env::args_os().nth(1).unwrap_or("README.md".into()));
    let (source, copies) = read_source(&file)?;
    let records = Arc::new(records_of(&source)?);
    println!("{} x {copies}: {} lines", file.display(), records.len());

    let directory = tempfile::tempdir()?;
    let (elapsed, stats) = write_log(directory.path(), &records).await?;
    print_rates(&records, elapsed, stats);

    let begun = Instant::now();
    let lines = read_log(directory.path()).await?;
    println!("replayed  {} records in {:.2?}", lines.len(), begun.elapsed());
    compare(&lines, &source, records.len())?;
    println!("verified  {} bytes, every line exactly once", source.len());
    Ok(())
}

/// Opens the log, appends every record durably from many tasks, and closes the log.
async fn write_log(directory: &Path, records: &Arc<Vec<Vec<u8>>>) -> Result<(Duration, Stats)> {
    let wal = Wal::open(directory).await?;
    println!("{}", wal.recovery());

    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..TASK_COUNT {
        let (wal, records) = (wal.clone(), Arc::clone(records));
        tasks.spawn(async move {
            for record in records.iter().skip(task).step_by(TASK_COUNT) {
                // Returns when the record is on stable storage. All tasks share the flushes.
                wal.append_and_sync(record).await?;
            }
            Ok::<_, highwater::Error>(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }

    let (elapsed, stats) = (begun.elapsed(), wal.stats());
    wal.close().await?;
    Ok((elapsed, stats))
}

/// Opens the log again and replays it. Returns the lines by their numbers.
async fn read_log(directory: &Path) -> Result<BTreeMap<u64, Bytes>> {
    let wal = Wal::open(directory).await?;
    println!("{}", wal.recovery());

    let mut lines = BTreeMap::new();
    let mut replay = wal.replay(..);
    while let Some(mut record) = replay.try_next().await? {
        let Some(number) = record.payload.first_chunk::<NUMBER_BYTES>() else {
            return Err(format!("the record at LSN {} is too short", record.lsn).into());
        };
        let number = u64::from_le_bytes(*number);
        if lines.insert(number, record.payload.split_off(NUMBER_BYTES)).is_some() {
            return Err(format!(
                "line {number} is in the log twice, the second time at LSN {}",
                record.lsn
            )
            .into());
        }
    }
    wal.close().await?;
    Ok(lines)
}

/// Checks that the lines of the log, in order, are the bytes of the file.
fn compare(lines: &BTreeMap<u64, Bytes>, source: &[u8], line_count: usize) -> Result<()> {
    if lines.len() != line_count {
        return Err(format!("the log has {} of {line_count} lines", lines.len()).into());
    }
    let mut rest = source;
    for (expected, (&number, line)) in (0..).zip(lines) {
        if number != expected {
            return Err(format!("line {expected} is not in the log").into());
        }
        rest = rest
            .strip_prefix(line.as_ref())
            .ok_or_else(|| format!("line {number} differs from the file"))?;
    }
    if !rest.is_empty() {
        return Err(format!("the last {} bytes of the file are not in the log", rest.len()).into());
    }
    Ok(())
}

/// Reads the file and repeats it until it has [`LINE_COUNT_MIN`] lines.
///
/// Returns the bytes and the number of copies.
fn read_source(file: &Path) -> Result<(Vec<u8>, usize)> {
    let mut bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    if bytes.is_empty() {
        return Err(format!("{}: the file is empty", file.display()).into());
    }
    if !bytes.ends_with(b"\n") {
        bytes.push(b'\n'); // otherwise the next copy would continue the last line
    }
    let copies = LINE_COUNT_MIN.div_ceil(lines_of(&bytes).count());
    Ok((bytes.repeat(copies), copies))
}

fn lines_of(source: &[u8]) -> impl Iterator<Item = &[u8]> {
    source.split_inclusive(|&byte| byte == b'\n')
}

fn records_of(source: &[u8]) -> Result<Vec<Vec<u8>>> {
    let numbered = lines_of(source).enumerate().map(|(number, line)| {
        let number = u64::try_from(number)?;
        Ok([&number.to_le_bytes(), line].concat())
    });
    numbered.collect()
}

#[allow(clippy::cast_precision_loss, reason = "the rates are only printed")]
fn print_rates(records: &[Vec<u8>], elapsed: Duration, stats: Stats) {
    let (count, seconds) = (records.len(), elapsed.as_secs_f64());
    let bytes: usize = records.iter().map(Vec::len).sum();
    println!("committed {count} records, {bytes} bytes, from {TASK_COUNT} tasks in {elapsed:.2?}");
    println!(
        "          {:.1} commits per fsync ({} fsyncs), {:.0} commits/s, {:.2} MB/s",
        count as f64 / stats.sync_count.max(1) as f64,
        stats.sync_count,
        count as f64 / seconds,
        bytes as f64 / seconds / 1e6,
    );
}
