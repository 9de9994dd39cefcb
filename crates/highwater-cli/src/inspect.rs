//! `inspect`: describes a log, one paragraph for each segment.

use std::io::Write;

use crate::{
    describe,
    options::LogOptions,
    output::{CommandResult, json, open, snapshot},
    progress::Progress,
};

pub(crate) fn run(options: &LogOptions) -> CommandResult {
    let snapshot = snapshot(&options.directory)?;
    let mut progress = Progress::new(snapshot.bytes_to_read(), true);
    let found = snapshot.read_all(&mut |bytes| progress.add(bytes));
    drop(progress);
    if options.json {
        json(&found)?;
        return Ok(0);
    }
    let (mut out, paint) = open();
    describe::head(&mut out, paint, &found)?;
    for segment in &found.segments {
        writeln!(out)?;
        describe::segment(&mut out, paint, segment)?;
    }
    describe::tail(&mut out, paint, &found)?;
    out.flush()?;
    Ok(0)
}
