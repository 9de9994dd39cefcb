//! `repair`: what it takes to open a damaged log again, said or done.

use std::{
    io::{self, Write},
    path::Path,
};

use highwater::{Cut, DurableCut, Error, OnDamage, RecoveryReport, Wal};
use serde::Serialize;

use crate::{
    arguments::RepairOptions,
    check::{CORRUPT, TORN, UNSUPPORTED, WHOLE},
    output::{Answer, Failure, Out, Paint, json, note_owner, open, snapshot},
    text::{counted, size},
};

/// As large as any record can be: what somebody's limit refuses is none the less intact.
const RECORD_BYTES_MAX: u64 = 1 << 30;
/// The new segment is a small one: the device may be nearly full.
const SEGMENT_BYTES: u64 = 1 << 20;

#[derive(Serialize)]
struct Answered<'a> {
    status: u8,
    is_applied: bool,
    #[serde(flatten)]
    report: &'a RecoveryReport,
}

pub(crate) fn run(options: &RepairOptions) -> Answer {
    let directory = &options.log.directory;
    let snapshot = snapshot(directory)?;
    let planned = match snapshot.plan_repair() {
        Err(error @ (Error::UnsupportedVersion { .. } | Error::UnsupportedFrame { .. })) => {
            eprintln!("highwater: {error}");
            return Ok(UNSUPPORTED);
        }
        planned => planned?,
    };
    let is_damaged = durable(&planned).is_some();
    let is_applied = options.apply && is_damaged;
    let report = if is_applied { apply(directory)? } else { planned };
    let status = match &report.cut {
        _ if is_applied => WHOLE,
        Some(_) if is_damaged => CORRUPT,
        Some(_) => TORN,
        None => WHOLE,
    };
    if options.log.json {
        json(&Answered { status, is_applied, report: &report })?;
        return Ok(status);
    }
    let (mut out, paint) = open();
    note_owner(&mut out, paint, snapshot.outline().owner_pid)?;
    say(&mut out, paint, &report, is_applied)?;
    out.flush()?;
    Ok(status)
}

fn durable(report: &RecoveryReport) -> Option<(&Cut, &DurableCut)> {
    let cut = report.cut.as_ref()?;
    Some((cut, cut.durable.as_ref()?))
}

/// Through the policy that opening has for it, under the log's lock.
fn apply(directory: &Path) -> Result<RecoveryReport, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let options = Wal::options()
            .record_bytes_max(RECORD_BYTES_MAX)
            .segment_bytes(SEGMENT_BYTES)
            .on_damage(OnDamage::TruncateAtDamage);
        let wal = options.open(directory).await?;
        let report = wal.recovery().clone();
        wal.close().await?;
        Ok(report)
    })
}

fn say(out: &mut Out, paint: Paint, report: &RecoveryReport, is_applied: bool) -> io::Result<()> {
    let Paint { good, odd, bad, .. } = paint;
    let Some((cut, durable)) = durable(report) else {
        return match &report.cut {
            Some(cut) => writeln!(
                out,
                "{odd}torn tail{odd:#} at LSN {}: nothing to repair, opening cuts and keeps it",
                cut.lsn
            ),
            None => writeln!(out, "{good}whole{good:#}: nothing to repair"),
        };
    };
    let does = |done: &'static str, planned: &'static str| if is_applied { done } else { planned };
    writeln!(out, "{bad}corrupt{bad:#}: {}", durable.refusal)?;
    write!(out, "{}cut at LSN {}", does("", "would "), cut.lsn)?;
    if !cut.segment.is_empty() {
        write!(out, " ({}, offset {})", cut.segment, cut.offset)?;
    }
    writeln!(out, ": {}", cut.reason)?;
    writeln!(out, "  stays    LSN {} to {}, byte for byte", report.first, cut.lsn)?;
    writeln!(
        out,
        "  is cut   {} in use, known durable up to LSN {}: {} in {}, and what is damaged",
        size(cut.bytes),
        durable.synced,
        counted(durable.record_count, "intact record", "intact records"),
        counted(cut.valid_frame_count, "intact frame", "intact frames"),
    )?;
    for copy in &durable.copies {
        let how = if copy.is_still_there { "a copy of" } else { "all of" };
        writeln!(out, "  is kept  {how} {} as {}", copy.segment, copy.kept_as)?;
    }
    writeln!(out, "  is told  in {}", durable.manifest)?;
    writeln!(out, "  goes on  in {}", durable.new_segment)?;
    let end = does(
        "repaired; remove the .cut files when nobody needs them",
        "nothing was changed; --apply does it, and never without the copies",
    );
    let style = if is_applied { good } else { odd };
    writeln!(out, "{style}{end}{style:#}")
}
