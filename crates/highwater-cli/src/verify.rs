//! `verify`: reads the whole log, and reports its state by the exit status.

use std::io::Write;

use clap::Args;
use highwater::inspect::{Inspection, Verdict};
use serde::Serialize;

use crate::{
    describe::{damage, verdict},
    exit::{TORN, UNSUPPORTED, WHOLE, status_of},
    options::LogOptions,
    output::{CommandResult, Failure, Out, Paint, json, note_owner, open, snapshot},
    progress::Progress,
    text::{counted, size},
};

pub(crate) const EXAMPLES: &str = "\
Exit status:
  0  whole: closed, or ends cleanly without having been closed, or there is no log yet
  1  torn tail: unsynced bytes at the end, which opening cuts and keeps
  2  corrupt: durable bytes are wrong or missing
  3  unsupported: intact, and written by a newer release
  4  could not be read, or the path is not a log
The highest status counts. Wrong arguments are 64.

Examples:
  highwater verify data/log
  highwater verify --quiet data/log || echo \"status $?\"";

#[derive(Debug, Args)]
pub(crate) struct VerifyOptions {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// Prints errors only
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    status: u8,
    #[serde(flatten)]
    found: &'a Inspection,
}

pub(crate) fn run(options: &VerifyOptions) -> CommandResult {
    let snapshot = snapshot(&options.log.directory)?;
    let mut progress = Progress::new(snapshot.bytes_to_read(), !options.quiet);
    let found = snapshot.read_all(&mut |bytes| progress.add(bytes));
    drop(progress);
    let status = status(&found);
    let printed = if options.quiet {
        Ok(())
    } else if options.log.json {
        json(&Report { status, found: &found })
    } else {
        let (mut out, paint) = open();
        print(&mut out, paint, &found).and_then(|()| out.flush()).map_err(Failure::from)
    };
    match printed {
        // The status is the result, even if the reader of the text closed it early.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(status),
        printed => printed.map(|()| status),
    }
}

fn status(found: &Inspection) -> u8 {
    let by_verdict = match &found.verdict {
        Verdict::New | Verdict::Closed | Verdict::CleanEnd => WHOLE,
        Verdict::TornTail(_) => TORN,
        Verdict::Refused(problem) => status_of(problem),
        _ => UNSUPPORTED,
    };
    found.damage.iter().map(status_of).fold(by_verdict, u8::max)
}

fn print(out: &mut Out, paint: Paint, found: &Inspection) -> std::io::Result<()> {
    note_owner(out, paint, found.owner_pid)?;
    verdict(out, paint, &found.verdict)?;
    damage(out, paint, &found.damage)?;
    let read = found.segments.iter().filter_map(|segment| segment.contents);
    let (mut segments, mut records, mut payload_bytes) = (0, 0, 0);
    for contents in read {
        segments += 1;
        records += contents.record_count;
        payload_bytes += contents.payload_bytes;
    }
    if segments == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "read {}: {}, {} of payload, all with their checksums",
        counted(segments, "segment", "segments"),
        counted(records, "record", "records"),
        size(payload_bytes)
    )
}
