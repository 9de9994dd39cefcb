//! `append`: appends records from standard input, and reports each one when it is durable.

use std::{
    io::{self, BufRead, Read, Write},
    path::PathBuf,
};

use clap::Args;
use highwater::{Lsn, Wal};
use serde::Serialize;

use crate::{
    exit::UNREADABLE,
    output::{CommandResult, Failure, Out, failure, json_line, note, open},
    records::runtime,
};

pub(crate) const EXAMPLES: &str = "\
Each line of standard input becomes a record, without its line break. DIR is created if there is no log \
yet. A record is synced before its LSN is printed. Lines that arrive together share one flush. An error \
ends the command; each LSN printed before it is durable.

Exit status: 0 all input is durable; 4 otherwise, or the log is in use; 64 wrong arguments.

Examples:
  printf 'one\\ntwo\\n' | highwater append data/log
  highwater append --raw data/log < picture.png
  producer --frames | highwater append --length-delimited data/log";

#[derive(Debug, Args)]
pub(crate) struct AppendOptions {
    /// The log's directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Appends all of standard input as one record
    #[arg(long, conflicts_with = "length_delimited")]
    raw: bool,
    /// Reads a length before each record: 4 bytes, little-endian
    #[arg(long)]
    length_delimited: bool,
    /// The size of a new log's segments in bytes
    #[arg(long, value_name = "BYTES")]
    segment_bytes: Option<u64>,
    /// Prints a JSON object for each record
    #[arg(long)]
    json: bool,
}

/// The largest record, which is the default limit of a log.
const RECORD_BYTES_MAX: u64 = 64 << 20;
/// The maximum number of records that share a flush. Their LSNs are printed after the flush.
const GROUP_MAX: usize = 4096;

#[derive(Clone, Copy)]
enum Framing {
    Lines,
    Raw,
    LengthDelimited,
}

pub(crate) fn run(options: &AppendOptions) -> CommandResult {
    let framing = match (options.raw, options.length_delimited) {
        (true, _) => Framing::Raw,
        (_, true) => Framing::LengthDelimited,
        _ => Framing::Lines,
    };
    let runtime = runtime()?;
    let appended = runtime.block_on(async {
        let mut settings = Wal::options();
        if let Some(bytes) = options.segment_bytes {
            settings = settings.segment_bytes(bytes);
        }
        let wal = settings.open(&options.directory).await?;
        if let Some(cut) = &wal.recovery().cut {
            note(format_args!("note: a torn tail was cut at LSN {} and kept", cut.lsn));
        }
        let appended = append_all(&wal, framing, options.json).await;
        // Closes after an error too, because closing makes the appended records durable.
        let closed = wal.close().await.map_err(Failure::from);
        appended.and(closed)
    });
    drop(runtime);
    appended.map(|()| 0)
}

async fn append_all(wal: &Wal, framing: Framing, is_json: bool) -> Result<(), Failure> {
    let mut input = io::BufReader::with_capacity(256 << 10, io::stdin());
    let (mut out, _) = open();
    let mut group = Vec::new();
    while let Some(record) = next(&mut input, framing)? {
        let ticket = wal.enqueue(&record).await?;
        group.push((ticket.lsn(), record.len()));
        // Syncs before a read that may block, so that no arrived record waits for later input.
        if !has_more(&input, framing) || group.len() == GROUP_MAX {
            wal.sync().await?;
            print(&mut out, &mut group, is_json)?;
        }
    }
    wal.sync().await?;
    print(&mut out, &mut group, is_json)
}

type Input = io::BufReader<io::Stdin>;

/// Returns whether the buffer holds the complete next record.
///
/// Reading such a record does not block.
fn has_more(input: &Input, framing: Framing) -> bool {
    let buffered = input.buffer();
    match framing {
        Framing::Lines => buffered.contains(&b'\n'),
        Framing::Raw => false,
        Framing::LengthDelimited => buffered.split_first_chunk().is_some_and(|(length, rest)| {
            rest.len() as u64 >= u64::from(u32::from_le_bytes(*length))
        }),
    }
}

/// Reads the next record. Returns `None` at the end of the input.
fn next(input: &mut Input, framing: Framing) -> Result<Option<Vec<u8>>, Failure> {
    let read = match framing {
        Framing::Lines => line(input),
        Framing::Raw => raw(input),
        Framing::LengthDelimited => delimited(input),
    };
    read.map_err(|error| failure(UNREADABLE, format!("reading standard input: {error}")))
}

/// Reads up to `bytes` bytes.
fn take(input: &mut Input, bytes: u64) -> io::Result<Vec<u8>> {
    let mut record = Vec::new();
    input.take(bytes).read_to_end(&mut record)?;
    Ok(record)
}

fn too_large() -> io::Error {
    let message = format!("a record is larger than {RECORD_BYTES_MAX} bytes");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn line(input: &mut Input) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let count = input.take(RECORD_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 > RECORD_BYTES_MAX {
        return Err(too_large());
    }
    Ok((count > 0).then_some(line))
}

fn raw(input: &mut Input) -> io::Result<Option<Vec<u8>>> {
    let record = take(input, RECORD_BYTES_MAX + 1)?;
    if record.len() as u64 > RECORD_BYTES_MAX {
        return Err(too_large());
    }
    Ok((!record.is_empty()).then_some(record))
}

fn delimited(input: &mut Input) -> io::Result<Option<Vec<u8>>> {
    let length = take(input, 4)?;
    if length.is_empty() {
        return Ok(None);
    }
    let cut_short = || io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within a record");
    let length = u32::from_le_bytes(*length.first_chunk().ok_or_else(cut_short)?);
    if u64::from(length) > RECORD_BYTES_MAX {
        return Err(too_large());
    }
    // Grows with the bytes that arrive, because a wrong length must not allocate much.
    let record = take(input, u64::from(length))?;
    if record.len() as u64 == u64::from(length) { Ok(Some(record)) } else { Err(cut_short()) }
}

#[derive(Serialize)]
struct Appended {
    lsn: Lsn,
    payload_bytes: usize,
}

fn print(out: &mut Out, group: &mut Vec<(Lsn, usize)>, is_json: bool) -> Result<(), Failure> {
    for (lsn, payload_bytes) in group.drain(..) {
        if is_json {
            json_line(out, &Appended { lsn, payload_bytes })?;
        } else {
            writeln!(out, "{lsn}")?;
        }
    }
    Ok(out.flush()?)
}
