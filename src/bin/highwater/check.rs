//! `verify`: is all of it whole?

use std::io::Write;

use highwater::inspect::{Inspection, Problem, ProblemKind, Verdict};
use serde::Serialize;

use crate::{
    arguments::VerifyOptions,
    output::{Answer, Failure, Out, Paint, json, note_owner, open, snapshot},
    progress::Progress,
    report::{advice_on, kind, verdict},
    text::{counted, size},
};

pub(crate) const WHOLE: u8 = 0;
pub(crate) const TORN: u8 = 1;
pub(crate) const CORRUPT: u8 = 2;
pub(crate) const UNSUPPORTED: u8 = 3;
pub(crate) const UNREADABLE: u8 = 4;

#[derive(Serialize)]
struct Answered<'a> {
    status: u8,
    #[serde(flatten)]
    found: &'a Inspection,
}

pub(crate) fn run(options: &VerifyOptions) -> Answer {
    let snapshot = snapshot(&options.log.directory)?;
    let mut progress = Progress::new(snapshot.bytes_to_read(), !options.quiet);
    let found = snapshot.read_all(&mut |bytes| progress.add(bytes));
    drop(progress);
    let status = status(&found);
    let said = if options.quiet {
        Ok(())
    } else if options.log.json {
        json(&Answered { status, found: &found })
    } else {
        let (mut out, paint) = open();
        say(&mut out, paint, &found).and_then(|()| out.flush()).map_err(Failure::from)
    };
    match said {
        // The status is the answer, whoever reads the text.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(status),
        said => said.map(|()| status),
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

pub(crate) fn status_of(problem: &Problem) -> u8 {
    match problem.kind {
        ProblemKind::Corrupt => CORRUPT,
        ProblemKind::Unsupported => UNSUPPORTED,
        _ => UNREADABLE,
    }
}

fn say(out: &mut Out, paint: Paint, found: &Inspection) -> std::io::Result<()> {
    note_owner(out, paint, found.owner_pid)?;
    verdict(out, paint, &found.verdict)?;
    let bad = paint.bad;
    for problem in &found.damage {
        let (what, advice) = (kind(problem.kind), advice_on(problem.kind));
        writeln!(out, "{bad}{what}{bad:#}: {}{advice}", problem.message)?;
    }
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
