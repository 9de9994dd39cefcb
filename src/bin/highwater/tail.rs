//! `tail`: the last records, and those to come.

use std::{collections::VecDeque, io::Write, time::Duration};

use futures::StreamExt;
use highwater::{Error, Lsn, Reader, Record};
use serde::Serialize;

use crate::{
    arguments::{Form, TailOptions},
    check::CORRUPT,
    output::{Answer, Failure, Out, Paint, open},
    records::{json_line, record, runtime},
};

/// Soon enough for who looks on.
const INTERVAL: Duration = Duration::from_millis(50);

pub(crate) fn run(options: &TailOptions) -> Answer {
    match runtime()?.block_on(tail(options)) {
        // The same status as that of `verify`.
        Err(Failure::Log(error)) if error.is_corrupt() => {
            eprintln!("highwater: {error}");
            Ok(CORRUPT)
        }
        answer => answer,
    }
}

async fn tail(options: &TailOptions) -> Answer {
    // Before the first record is printed: who sees that may press Ctrl-C.
    let mut stopped = std::pin::pin!(tokio::signal::ctrl_c());
    let reader = Reader::options()
        .written(options.written)
        .poll_interval(INTERVAL)
        .open(&options.log.directory)
        .await?;
    let (mut out, paint) = open();
    let (last, failed) = tokio::select! {
        biased;
        _ = &mut stopped => return Ok(0),
        found = last(&reader, options.records) => found,
    };
    // Where a follower goes on: behind the last of them, which begins there.
    let mut newest = last.back().map(|found| found.lsn);
    let end = reader.end();
    for found in &last {
        record(&mut out, paint, found, options.form())?;
    }
    out.flush()?;
    // What comes before the damage is worth having all the same.
    if let Some(error) = failed {
        return Err(error.into());
    }
    if !options.follow {
        return Ok(0);
    }
    drop(last);
    let mut tail = reader.follow(newest.unwrap_or(end));
    loop {
        let item = tokio::select! {
            biased;
            _ = &mut stopped => break,
            item = tail.next() => item,
        };
        match item {
            Some(Ok(found)) if newest.is_some_and(|newest| found.lsn <= newest) => {}
            Some(Ok(found)) => show(&mut out, paint, &found, options)?,
            Some(Err(Error::Truncated { to })) => {
                // The same LSNs come again, with other records.
                newest = None;
                truncated(&mut out, to, options)?;
            }
            Some(Err(error)) => return Err(error.into()),
            None => break,
        }
    }
    out.flush()?;
    Ok(0)
}

/// The last records, and the error that came before the end: read from the last segments alone, of
/// which twice as many are tried for as long as they hold too few.
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
    record(out, paint, found, options.form())?;
    // Somebody is looking on.
    Ok(out.flush()?)
}

#[derive(Serialize)]
struct Truncated {
    truncated_to: Lsn,
}

fn truncated(out: &mut Out, to: Lsn, options: &TailOptions) -> Result<(), Failure> {
    if options.form() == Form::Json {
        json_line(out, &Truncated { truncated_to: to })?;
    } else {
        eprintln!("highwater: the log was cut at LSN {to}: what was printed from there on is gone");
    }
    Ok(out.flush()?)
}
