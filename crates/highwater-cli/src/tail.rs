//! `tail`: prints the last records, and follows new ones.

use std::{collections::VecDeque, io::Write, time::Duration};

use clap::Args;
use futures::StreamExt;
use highwater::{Error, Lsn, Reader, Record, Start};
use serde::Serialize;

use crate::{
    exit::CORRUPT,
    options::{Form, LogOptions},
    output::{CommandResult, Failure, Out, Paint, json_line, note, open},
    records::{Shape, record, runtime},
    since::Since,
};

pub(crate) const EXAMPLES: &str = "\
Shows committed records, which are known to be synced. If the log's owner never syncs, it shows
nothing without --written, which also shows records that a crash may remove.

--since prints all records since a time, after older ones of up to two intervals of the log's time
marks. The program that writes the log sets them by the option `time_marks`.

Examples:
  highwater tail data/log
  highwater tail -f -n 0 data/log
  highwater tail -f --since 15m data/log
  highwater tail -f --json data/log | jq -r .text";

#[derive(Debug, Args)]
pub(crate) struct TailOptions {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// Prints new records as they come, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// The number of last records to begin with
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 10)]
    pub(crate) records: usize,
    /// Begins at this time (RFC 3339), or this long ago (15m, 2h, 1d), instead of the last records
    #[arg(long, value_name = "TIME", conflicts_with = "records")]
    pub(crate) since: Option<Since>,
    /// Prints whole payloads on a terminal too, which by default shows their first bytes
    #[arg(long)]
    pub(crate) whole: bool,
    /// Also shows written records that are not known to be synced; a crash may remove them
    #[arg(long)]
    pub(crate) written: bool,
    /// How payloads are printed
    #[arg(long = "as", value_enum, value_name = "FORM", default_value = "text")]
    pub(crate) form: Form,
}

impl TailOptions {
    pub(crate) fn shape(&self) -> Shape {
        Shape::new(if self.log.json { Form::Json } else { self.form }, self.whole)
    }
}

/// The poll interval, short enough for a person who watches.
const INTERVAL: Duration = Duration::from_millis(50);

pub(crate) fn run(options: &TailOptions) -> CommandResult {
    match runtime()?.block_on(tail(options)) {
        // The same status as `verify` returns.
        Err(Failure::Log(error)) if error.is_corrupt() => {
            note(format_args!("{error:#}"));
            Ok(CORRUPT)
        }
        result => result,
    }
}

async fn tail(options: &TailOptions) -> CommandResult {
    // Registered before the first record is printed, because a user may then press Ctrl-C.
    let mut stopped = std::pin::pin!(tokio::signal::ctrl_c());
    let reader = Reader::options()
        .written(options.written)
        .poll_interval(INTERVAL)
        .open(&options.log.directory)
        .await?;
    let (mut out, paint) = open();
    // The follower continues after the newest printed record.
    let end = reader.end();
    let newest = tokio::select! {
        biased;
        _ = &mut stopped => return Ok(0),
        newest = history(&mut out, paint, &reader, options) => newest?,
    };
    if !options.follow {
        return Ok(0);
    }
    let mut tail = reader.follow(newest.map_or(Start::At(end), Start::After));
    loop {
        let item = tokio::select! {
            biased;
            _ = &mut stopped => break,
            item = tail.next() => item,
        };
        match item {
            Some(Ok(found)) => show(&mut out, paint, &found, options)?,
            Some(Err(Error::Truncated { to })) => {
                truncated(&mut out, to, options)?;
            }
            Some(Err(error)) => return Err(error.into()),
            None => break,
        }
    }
    out.flush()?;
    Ok(0)
}

/// Prints the records to begin with. Returns the newest one.
async fn history(
    out: &mut Out,
    paint: Paint,
    reader: &Reader,
    options: &TailOptions,
) -> Result<Option<Lsn>, Failure> {
    let mut newest = None;
    let failed = if let Some(since) = options.since {
        let from = since.position(reader, &options.log.directory, "-n COUNT").await?;
        let mut records = reader.replay(from..);
        loop {
            match records.next().await {
                Some(Ok(found)) => {
                    record(out, paint, &found, options.shape())?;
                    newest = Some(found.lsn);
                }
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        }
    } else {
        let (last, failed) = last(reader, options.records).await;
        for found in &last {
            record(out, paint, found, options.shape())?;
        }
        newest = last.back().map(|found| found.lsn);
        failed
    };
    out.flush()?;
    // Returned after the intact records before the damage are printed.
    if let Some(error) = failed {
        return Err(error.into());
    }
    if newest.is_none() && (options.since.is_some() || options.records > 0) {
        note_no_records(reader, options);
    }
    Ok(newest)
}

/// Reports on standard error why there are no records to print.
fn note_no_records(reader: &Reader, options: &TailOptions) {
    let place = options.log.directory.display();
    if reader.report().is_new {
        note(format_args!("{place}: no log yet"));
    } else if options.since.is_some() && reader.end() > reader.first() {
        note(format_args!("{place}: no record since that time"));
    } else if options.written {
        note(format_args!("{place}: no record yet"));
    } else {
        note(format_args!(
            "{place}: no record is known to be synced; --written also shows unsynced records"
        ));
    }
}

/// Returns the last records, and the error that ended the reading, if one did.
///
/// Reads only the last segments, and doubles their number until they hold enough records.
async fn last(reader: &Reader, count: usize) -> (VecDeque<Record>, Option<Error>) {
    let starts = reader.segment_starts();
    let mut segment_count = 1;
    loop {
        let at = starts.len().saturating_sub(segment_count);
        let from = starts.get(at).copied().unwrap_or(reader.first());
        let mut last = VecDeque::new();
        let mut failed = None;
        let mut records = reader.replay(from..);
        while let Some(item) = records.next().await {
            match item {
                Ok(found) => last.push_back(found),
                Err(error) => failed = Some(error),
            }
            if last.len() > count {
                last.pop_front();
            }
        }
        if last.len() == count || at == 0 {
            return (last, failed);
        }
        segment_count *= 2;
    }
}

fn show(out: &mut Out, paint: Paint, found: &Record, options: &TailOptions) -> Result<(), Failure> {
    record(out, paint, found, options.shape())?;
    // Flushed at once, because a person may be watching.
    Ok(out.flush()?)
}

#[derive(Serialize)]
struct Truncated {
    truncated_to: Lsn,
}

fn truncated(out: &mut Out, to: Lsn, options: &TailOptions) -> Result<(), Failure> {
    if options.shape().form == Form::Json {
        json_line(out, &Truncated { truncated_to: to })?;
    } else {
        note(format_args!(
            "the log was truncated to LSN {to}: records printed from there on no longer exist"
        ));
    }
    Ok(out.flush()?)
}
