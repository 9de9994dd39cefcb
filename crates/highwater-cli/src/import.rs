//! `import`: creates a log from a stream, or from a log of another library.

use std::{
    fmt::Write as _,
    io::{self, BufReader, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use highwater::{Lsn, Wal, inspect::frame_bytes};
use serde::Serialize;

use crate::{
    exit::{CORRUPT, UNREADABLE, UNSUPPORTED},
    files::{Input, NewDirectory, NewFile, PathKind, failed, path_kind},
    foreign::{Format, KayaWal, Source, Torn, WalDb, detect},
    output::{CommandResult, Failure, failure, json, note, open},
    progress::Progress,
    stream::{StreamError, StreamReader, Unit},
    text::{counted, safe, size},
};

pub(crate) const EXAMPLES: &str = "\
Every checksum of the source is verified. DIR appears only when the whole log is written and synced. With \
--append, a source that is a file is verified before the first record is appended. The records keep \
their order and get new LSNs; --map writes the old and the new ones. Batches stay whole. Records of \
kaya-wal become changes that `highwater::typed::KeyValue` reads, without their sequence numbers.

Exit status: 0 imported; 2 the source is damaged or incomplete; 3 newer than this release; 4 otherwise.

Examples:
  highwater import log.hwx data/log
  highwater export old/log | highwater import - data/log
  highwater import old-wal-db.log data/log --map positions.tsv
  highwater import --format kaya-wal old/wal data/log";

/// The default limit of a log. A reader of larger records must raise it.
const RECORD_BYTES_DEFAULT: u64 = 64 << 20;
const RECORD_BYTES_MAX: u64 = 1 << 30;
const BATCH_BYTES_MAX: u64 = 2 << 30;

#[derive(Debug, Args)]
pub(crate) struct ImportOptions {
    /// A file, a directory, or `-` for a stream on standard input
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// The new log's directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The format of the source; by default it is detected
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Appends to the log in DIR, if there is one
    #[arg(long)]
    append: bool,
    /// Writes a line with the old and the new position of each record to this new file
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// The size of the new log's segments in bytes
    #[arg(long, value_name = "BYTES")]
    segment_bytes: Option<u64>,
    /// The segment size of a wal-db log, if its files don't show it
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    source_segment_bytes: Option<u64>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// The result, as JSON.
#[derive(Debug, Default, Serialize)]
struct Imported {
    format: &'static str,
    records: u64,
    batches: u64,
    payload_bytes: u64,
    largest_bytes: u64,
    /// The LSN of the first imported record, and the end of the last.
    first: Option<Lsn>,
    end: Option<Lsn>,
    /// The same value as `export` reports for the same records.
    contents_checksum: Option<u32>,
    torn: Option<Torn>,
    notes: Vec<String>,
}

/// An exported stream from a file or a pipe.
struct Exported {
    name: String,
    reader: StreamReader<BufReader<Box<dyn Read>>>,
    total_bytes: u64,
}

impl Exported {
    fn open(path: &Path) -> Result<Self, Failure> {
        let is_piped = path == Path::new("-");
        let (name, input, total_bytes): (_, Box<dyn Read>, _) = if is_piped {
            if io::stdin().is_terminal() {
                let message =
                    "nothing is piped in: `highwater export LOG | highwater import - DIR`";
                return Err(failure(UNREADABLE, message.to_owned()));
            }
            ("standard input".to_owned(), Box::new(io::stdin()), 0)
        } else {
            let input = Input::open(path)?;
            let bytes = input.bytes;
            (path.display().to_string(), Box::new(input), bytes)
        };
        let mut input = BufReader::with_capacity(256 << 10, input);
        let is_empty = io::BufRead::fill_buf(&mut input).is_ok_and(<[u8]>::is_empty);
        if is_empty {
            let message = format!("{name}: no input: the command that should write it failed");
            return Err(failure(CORRUPT, message));
        }
        let reader = StreamReader::new(input).map_err(|error| refused(&name, &error))?;
        Ok(Exported { name, reader, total_bytes })
    }
}

fn refused(name: &str, error: &StreamError) -> Failure {
    let status = match error {
        StreamError::Damaged { .. } | StreamError::Truncated { .. } => CORRUPT,
        StreamError::Newer { .. } => UNSUPPORTED,
        StreamError::Io(_) | StreamError::NotAStream => UNREADABLE,
    };
    failure(status, format!("{name}: {error}"))
}

impl Source for Exported {
    fn next_unit(&mut self) -> Result<Option<Unit>, Failure> {
        self.reader.next_unit().map_err(|error| refused(&self.name, &error))
    }

    fn read_bytes(&self) -> u64 {
        self.reader.offset()
    }

    fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    fn contents_checksum(&self) -> Option<u32> {
        Some(self.reader.totals().contents_checksum)
    }
}

fn source(options: &ImportOptions, format: Format) -> Result<Box<dyn Source>, Failure> {
    let path = &options.source;
    Ok(match format {
        Format::Export => Box::new(Exported::open(path)?),
        Format::WalDb => Box::new(WalDb::open(path, options.source_segment_bytes)?),
        Format::KayaWal => Box::new(KayaWal::open(path)?),
    })
}

pub(crate) fn run(options: &ImportOptions) -> CommandResult {
    let is_piped = options.source == Path::new("-");
    let format = match options.format {
        None if is_piped => Format::Export,
        None => detect(&options.source)?,
        Some(Format::WalDb | Format::KayaWal) if is_piped => {
            let message = "standard input must be an exported stream; name the log's path";
            return Err(failure(UNREADABLE, message.to_owned()));
        }
        Some(format) => format,
    };
    let target = &options.directory;
    let is_new = match path_kind(target)? {
        PathKind::Nothing | PathKind::EmptyDirectory => true,
        PathKind::Directory if options.append => false,
        PathKind::Directory => {
            let message = format!(
                "{}: not empty; name a new directory, or append to the log in it with --append",
                target.display()
            );
            return Err(failure(UNREADABLE, message));
        }
        PathKind::File => {
            let message = format!("{}: a file; name a directory", target.display());
            return Err(failure(UNREADABLE, message));
        }
    };
    if !is_new && !is_piped {
        verify(source(options, format)?.as_mut())?;
    }
    let mut from = source(options, format)?;
    let map = options.map.as_deref().map(NewFile::create).transpose()?;
    let imported = if is_new {
        let new = NewDirectory::create(target)?;
        let imported = fill(from.as_mut(), new.staging(), options, map, false)?;
        new.finish()?;
        imported
    } else {
        fill(from.as_mut(), target, options, map, true)?
    };
    report(Imported { format: format.name(), ..imported }, options)?;
    Ok(0)
}

/// Reads the whole source, so that damage is found before an existing log is changed.
fn verify(from: &mut dyn Source) -> Result<(), Failure> {
    let mut progress = Progress::new(from.total_bytes(), true);
    let mut read_bytes = 0;
    while from.next_unit()?.is_some() {
        progress.add(from.read_bytes() - read_bytes);
        read_bytes = from.read_bytes();
    }
    Ok(())
}

/// Opens the log, appends everything, syncs and closes it.
fn fill(
    from: &mut dyn Source,
    directory: &Path,
    options: &ImportOptions,
    mut map: Option<NewFile>,
    is_append: bool,
) -> Result<Imported, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| failed("starting to write", directory, &error))?;
    let mut imported = Imported::default();
    let filled = runtime.block_on(async {
        let mut settings =
            Wal::options().record_bytes_max(RECORD_BYTES_MAX).batch_bytes_max(BATCH_BYTES_MAX);
        if let Some(bytes) = options.segment_bytes {
            settings = settings.segment_bytes(bytes);
        }
        let wal = settings.open(directory).await?;
        if let Some(cut) = &wal.recovery().cut {
            note(format_args!("note: a torn tail was cut at LSN {} and kept", cut.lsn));
        }
        let appended = append_all(from, &wal, &mut map, &mut imported).await;
        // Closes after an error too, because closing makes the appended records durable.
        let ended = wal.close().await;
        appended.and(ended.map_err(Failure::from))
    });
    // Ends all jobs of the log before its directory is renamed or deleted.
    drop(runtime);
    match (filled, imported.first) {
        (Ok(()), _) => {}
        (Err(cause), Some(first)) if is_append => {
            let message = format!(
                "{cause}; {} had been appended before, from LSN {first} on, and may be in the log",
                counted(imported.records, "record", "records")
            );
            return Err(failure(cause.status(), message));
        }
        (Err(cause), _) if is_append => return Err(cause),
        (Err(cause), _) => {
            let message = format!("{cause}; nothing was imported");
            return Err(failure(cause.status(), message));
        }
    }
    imported.contents_checksum = from.contents_checksum();
    imported.torn = from.torn().cloned();
    imported.notes = from.notes().to_vec();
    map.map_or(Ok(()), NewFile::finish)?;
    Ok(imported)
}

async fn append_all(
    from: &mut dyn Source,
    wal: &Wal,
    map: &mut Option<NewFile>,
    imported: &mut Imported,
) -> Result<(), Failure> {
    let mut progress = Progress::new(from.total_bytes(), true);
    let mut read_bytes = 0;
    let mut lines = String::new();
    while let Some(unit) = from.next_unit()? {
        let lsn = match unit.records.as_slice() {
            [record] => wal.enqueue(record.payload.clone()).await?.lsn(),
            records => {
                imported.batches += 1;
                let payloads = records.iter().map(|record| record.payload.clone());
                wal.append_batch(payloads).await?.start
            }
        };
        imported.first = imported.first.or(Some(lsn));
        let mut at = lsn.as_u64();
        lines.clear();
        for record in &unit.records {
            let bytes = record.payload.len() as u64;
            imported.records += 1;
            imported.payload_bytes += bytes;
            imported.largest_bytes = imported.largest_bytes.max(bytes);
            match record.position {
                // Writing into a string doesn't fail.
                Some(position) => drop(writeln!(lines, "{position}\t{at}")),
                None => drop(writeln!(lines, "-\t{at}")),
            }
            at += frame_bytes(bytes);
        }
        imported.end = Some(Lsn::new(at));
        if let Some(map) = map {
            let written = map.write_all(lines.as_bytes());
            written.map_err(|error| failed("writing", Path::new("the map"), &error))?;
        }
        progress.add(from.read_bytes() - read_bytes);
        read_bytes = from.read_bytes();
    }
    Ok(())
}

fn report(imported: Imported, options: &ImportOptions) -> Result<(), Failure> {
    if options.json {
        return json(&imported);
    }
    let (mut out, paint) = open();
    let odd = paint.odd;
    for note in &imported.notes {
        writeln!(out, "{odd}note{odd:#}: {}", safe(note))?;
    }
    if let Some(Torn { file, offset, bytes, reason }) = &imported.torn {
        let (bytes, file) = (size(*bytes), safe(file));
        writeln!(
            out,
            "{odd}torn tail{odd:#}: {bytes} at {file}, offset {offset} ({reason}): left out"
        )?;
    }
    if imported.largest_bytes > RECORD_BYTES_DEFAULT {
        let largest = imported.largest_bytes;
        writeln!(out, "{odd}note{odd:#}: open it with record_bytes_max of at least {largest}")?;
    }
    let (good, records) = (paint.good, counted(imported.records, "record", "records"));
    let (bytes, format) = (size(imported.payload_bytes), imported.format);
    write!(out, "{good}imported and synced{good:#}: {records}, {bytes} of payload, from {format}")?;
    if let (Some(first), Some(end)) = (imported.first, imported.end) {
        write!(out, ", LSN {first} to {end}")?;
    }
    if let Some(checksum) = imported.contents_checksum {
        write!(out, ", contents {checksum:08x}")?;
    }
    writeln!(out)?;
    Ok(out.flush()?)
}
