//! The invariant of `TruncateAtDamage`: after every damage the log opens. All records before the
//! first damage are there, every cut byte is in a copy that the manifest names, and the log then
//! opens as usual.

use std::collections::BTreeMap;

use futures::StreamExt;
use highwater::{
    DurableCut, Error, Lsn, OnDamage, RecoveryReport, Wal,
    simulation::{Disk, Image},
};

use super::{
    bytes::word,
    invariant::{Outcome, outcome},
    log::{Frame, HEADER, Log, block_on},
    slots::{Slots, check_slots, is_incomplete, slots_of},
};

const PART: u8 = 2;

/// The result of opening with the cutting policy.
struct Cut {
    found: BTreeMap<Lsn, Vec<u8>>,
    report: RecoveryReport,
    slots: Slots,
    after: Image,
}

fn open_cutting(damaged: &Image) -> Result<Cut, Error> {
    block_on(async {
        let disk = Disk::with_image(damaged.clone(), 99);
        let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
        let options = options.on_damage(OnDamage::TruncateAtDamage);
        let wal = options.open_with(disk.clone()).await?;
        let mut found = BTreeMap::new();
        let mut replay = wal.replay(..);
        while let Some(item) = replay.next().await {
            let record = item?;
            found.insert(record.lsn, record.payload.to_vec());
        }
        let (report, slots) = (wal.recovery().clone(), slots_of(&wal));
        Ok(Cut { found, report, slots, after: disk.image() })
    })
}

/// Returns whether the frame, and one copy of its segment's header, are unchanged.
fn is_whole(log: &Log, damaged: &Image, frame: &Frame) -> bool {
    let header = |at| log.is_intact(damaged, &frame.name, at, 124);
    (header(0) || header(2048)) && log.is_intact(damaged, &frame.name, frame.offset, frame.bytes)
}

/// Returns the LSN below which all frames are intact. It is never within a batch.
fn first_damaged(log: &Log, damaged: &Image) -> u64 {
    let kind = |frame: &Frame| log.image.bytes(&frame.name).unwrap()[frame.offset + 4];
    let Some(mut at) = log.frames.iter().position(|frame| !is_whole(log, damaged, frame)) else {
        return u64::MAX;
    };
    while at > 0 && kind(&log.frames[at - 1]) == PART {
        at -= 1;
    }
    log.frames[at].lsn
}

fn holds(image: &Image, name: &str, bytes: &[u8]) -> bool {
    let there = image.bytes(name).unwrap();
    there.windows(bytes.len()).step_by(8).any(|window| window == bytes)
}

pub(crate) fn check(log: &Log, damaged: &Image) -> Result<(), String> {
    let cut = match open_cutting(damaged) {
        Ok(cut) => cut,
        Err(Error::UnsupportedFrame { .. } | Error::UnsupportedVersion { .. }) => return Ok(()),
        Err(error) => return Err(format!("refused: {error}")),
    };
    let Cut { found, report, slots, after } = &cut;
    check_slots(log, slots, report)?;
    for (lsn, payload) in found {
        if log.records.get(lsn) != Some(payload) {
            return Err(format!("{lsn} was never appended like this; {report}"));
        }
    }
    let intact_to = first_damaged(log, damaged);
    let mut kept = log.records.keys().filter(|lsn| lsn.as_u64() < intact_to);
    if let Some(lost) = kept.find(|lsn| !found.contains_key(lsn)) {
        return Err(format!("{lost} is lost, although all is intact up to {intact_to}; {report}"));
    }
    let durable = report.cut.as_ref().and_then(|cut| cut.durable.as_ref());
    if let Some(durable) = durable {
        check_manifest(durable, after).map_err(|what| format!("{what}; {report}"))?;
    } else if let Outcome::Refused(error) | Outcome::Opened { error: Some(error), .. } =
        outcome(damaged)
    {
        // Damage below the beginning of the log cuts nothing. It may hide slots.
        if !is_incomplete(report) {
            return Err(format!(
                "no durable cut is reported, but without the policy: {error}; {report}"
            ));
        }
    }
    check_copies(log, damaged, &cut).map_err(|what| format!("{what}; {report}"))?;
    match outcome(after) {
        // A close would make the slots whole.
        Outcome::Refused(Error::Corrupt { .. }) if is_incomplete(report) => Ok(()),
        Outcome::Opened { found: again, error: None, slots: same, .. }
            if again == *found && same == *slots =>
        {
            Ok(())
        }
        Outcome::Opened { found: again, error, .. } => Err(format!(
            "reopened: {} of {} records, {error:?}; {report}",
            again.len(),
            found.len()
        )),
        Outcome::Refused(error) => Err(format!("reopening fails: {error}; {report}")),
    }
}

fn check_manifest(durable: &DurableCut, after: &Image) -> Result<(), String> {
    let bytes = after.bytes(&durable.manifest).ok_or("there is no manifest")?;
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    if !text.ends_with("\nend\n") {
        return Err(format!("an unfinished manifest: {text}"));
    }
    for copy in &durable.copies {
        if !text.contains(&copy.segment) || after.bytes(&copy.kept_as).is_none() {
            return Err(format!("{copy:?} is not kept or not listed: {text}"));
        }
    }
    Ok(())
}

/// Checks that all bytes that left the log are in a copy.
fn check_copies(log: &Log, damaged: &Image, cut: &Cut) -> Result<(), String> {
    let Cut { report, after, .. } = cut;
    let names = after.names();
    let is_copy = |name: &&String| {
        let is_durable = report.cut.as_ref().is_some_and(|cut| cut.durable.is_some());
        name.contains(".wal.cut") || !is_durable && name.ends_with(".wal")
    };
    let copies: Vec<_> = names.iter().filter(is_copy).collect();
    for frame in &log.frames {
        let there = damaged.bytes(&frame.name).filter(|_| frame.lsn >= report.end.as_u64());
        let Some(bytes) = there.and_then(|b| b.get(frame.offset..frame.offset + frame.bytes))
        else {
            continue;
        };
        // The zeros at the end of a file, also those of a damaged frame, are given back.
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let bytes = if is_whole(log, damaged, frame) { bytes } else { &bytes[..used] };
        // Damaged bytes must be kept, too. Bytes that have moved may still belong to the log.
        let is_moved = !is_whole(log, damaged, frame) && names.contains(&frame.name);
        let is_kept = used == 0
            || copies.iter().any(|name| holds(after, name, bytes))
            || is_moved && holds(after, &frame.name, bytes);
        if !is_kept {
            return Err(format!("the bytes of the frame at {} are lost", frame.lsn));
        }
    }
    for name in damaged.names().iter().filter(|name| name.ends_with(".wal")) {
        let bytes = damaged.bytes(name).unwrap();
        let has_frames = bytes.get(HEADER..).is_some_and(|rest| rest.iter().any(|&b| b != 0));
        let is_there = names.contains(name)
            || copies.iter().any(|copy| after.bytes(copy).unwrap() == bytes)
            // A rotation that never happened: an ordinary cut of zeros, or a rewritten end.
            || report.cut.as_ref().is_none_or(|cut| cut.durable.is_none());
        if has_frames && !is_there {
            return Err(format!("{name} is lost, its base was {}", word(bytes, 32)));
        }
    }
    Ok(())
}
