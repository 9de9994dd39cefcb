//! Shows the three ways to read a log: during recovery, by replay from a position, and by LSN.
//!
//! A small key-value store writes its changes to the log. After a simulated power loss the store
//! rebuilds its values from the log. The power loss tears the last change, which was not synced, so
//! recovery removes that change. To run it:
//!
//! ```text
//! cargo run --release --example replay
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::{collections::BTreeMap, path::Path};

use futures::TryStreamExt;
use highwater::{Lsn, Record, Recovered, Wal};
use tokio::runtime::Runtime;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    // Each runtime represents a process. The first one ends without closing the log.
    let second_day = Runtime::new()?.block_on(write(directory.path()))?;
    lose_power(directory.path(), b"plums=99")?;
    Runtime::new()?.block_on(read(directory.path(), second_day))
}

/// Reads the log in all three ways.
async fn read(directory: &Path, second_day: Lsn) -> Result<()> {
    let (store, wal) = recover(directory).await?;
    println!("\nrecovered: {:?}", store.values);

    println!("\nreplay from LSN {second_day} on:");
    let mut changes = wal.replay(second_day..);
    while let Some(record) = changes.try_next().await? {
        println!("  {}", line(&record));
    }

    let last = store.last.ok_or("the log is empty")?;
    println!("\nreplay up to the last change, which is not included:");
    let all_but_last: Vec<Record> = wal.replay(..last).try_collect().await?;
    println!("  {} records", all_but_last.len());
    println!("\nread of the last change by its LSN:\n  {}", line(&wal.read(last).await?));

    wal.close().await?;
    Ok(())
}

/// Writes the changes of two days. Returns the LSN of the second day's first change.
async fn write(directory: &Path) -> Result<Lsn> {
    let wal = Wal::open(directory).await?;
    println!("{}", wal.recovery());
    wal.append(b"apples=3").await?;
    wal.append(b"pears=5").await?;
    wal.append_and_sync(b"plums=8").await?;

    // Exchanges two pears for two apples. After a crash the log has both changes or neither.
    let moved = wal.append_batch(["apples=5", "pears=3"]).await?;
    wal.append_and_sync(b"plums=0").await?;
    wal.append(b"plums=99").await?; // not synced, and the log is not closed
    Ok(moved.start)
}

/// Clears the first half of a record, as a power loss may do to a record that was not synced.
fn lose_power(directory: &Path, record: &[u8]) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let mut bytes = std::fs::read(&path)?;
        let found = bytes.windows(record.len()).position(|window| window == record);
        if let Some(torn) = found.and_then(|at| bytes.get_mut(at..at + record.len() / 2)) {
            torn.fill(0);
            std::fs::write(&path, bytes)?;
        }
    }
    Ok(())
}

/// Rebuilds the store in one pass over the log, and then opens the log for writing.
async fn recover(directory: &Path) -> Result<(Store, Wal)> {
    let mut store = Store::default();
    let mut recovery = Wal::recover(directory).await?;
    while let Some(recovered) = recovery.try_next().await? {
        match recovered {
            Recovered::Record(record) => store.apply(&record)?,
            Recovered::Warning(warning) => println!("warning: {warning}"),
            Recovered::Cut(cut) => println!("{cut}"),
            other => println!("{other:?}"),
        }
    }
    let wal = recovery.into_wal().await?;
    println!("{}", wal.recovery());
    Ok((store, wal))
}

/// The values, and the LSN of the last change in them.
#[derive(Debug, Default)]
struct Store {
    values: BTreeMap<String, i64>,
    last: Option<Lsn>,
}

impl Store {
    fn apply(&mut self, record: &Record) -> Result<()> {
        let text = std::str::from_utf8(&record.payload)?;
        let (key, value) = text.split_once('=').ok_or("a change without a `=`")?;
        self.values.insert(key.to_owned(), value.parse()?);
        self.last = Some(record.lsn);
        Ok(())
    }
}

fn line(record: &Record) -> String {
    let text = String::from_utf8_lossy(&record.payload);
    format!("LSN {:>4}: {text}", record.lsn)
}
