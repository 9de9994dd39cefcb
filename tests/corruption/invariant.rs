//! The invariant that holds for every damage.

use std::collections::BTreeMap;

use futures::StreamExt;
use highwater::{
    Error, Lsn, RecoveryReport,
    simulation::{Disk, Image},
};

use super::{
    cutting,
    log::{Log, block_on, open},
    slots::{Slots, check_slots, slots_of},
};

/// A prime number, so that it does not match a period of the damages.
const CUT_ONE_IN: u64 = 41;

fn cuts_all() -> bool {
    std::env::var("HIGHWATER_CUTS").is_ok_and(|value| value == "all")
}

pub(crate) enum Outcome {
    Refused(Error),
    Opened {
        found: BTreeMap<Lsn, Vec<u8>>,
        error: Option<Error>,
        report: Box<RecoveryReport>,
        slots: Slots,
        after: Image,
    },
}

pub(crate) fn outcome(damaged: &Image) -> Outcome {
    block_on(async {
        let disk = Disk::with_image(damaged.clone(), 99);
        let wal = match open(&disk).await {
            Ok(wal) => wal,
            Err(error) => return Outcome::Refused(error),
        };
        let (mut found, mut error) = (BTreeMap::new(), None);
        let mut replay = wal.replay(..);
        while let Some(item) = replay.next().await {
            match item {
                Ok(record) => drop(found.insert(record.lsn, record.payload.to_vec())),
                Err(stop) => error = Some(stop),
            }
        }
        Outcome::Opened {
            found,
            error,
            report: Box::new(wal.recovery().clone()),
            slots: slots_of(&wal),
            after: disk.image(),
        }
    })
}

pub(crate) fn is_honest(error: &Error) -> bool {
    matches!(
        error,
        Error::Corrupt { .. } | Error::UnsupportedFrame { .. } | Error::UnsupportedVersion { .. }
    )
}

/// Checks the invariant: all records covered by surviving commitments are there, or there is an
/// error. Bytes cut above them are reported and kept. The slots are those at the end of the log.
pub(crate) fn check(log: &Log, damaged: &Image) -> Result<(), String> {
    let synced = log.surviving_commitment(damaged);
    let (found, error, report, slots, after) = match outcome(damaged) {
        Outcome::Refused(error) if is_honest(&error) => return Ok(()),
        Outcome::Refused(error) => return Err(format!("refused with another error: {error}")),
        Outcome::Opened { found, error, report, slots, after } => {
            (found, error, report, slots, after)
        }
    };
    check_slots(log, &slots, &report)?;
    for (lsn, payload) in &found {
        if log.records.get(lsn) != Some(payload) {
            return Err(format!("{lsn} was never appended like this; {report}"));
        }
    }
    if let Some(error) = error {
        return if is_honest(&error) { Ok(()) } else { Err(format!("replay: {error}")) };
    }
    let missing: Vec<_> = log.records.keys().filter(|lsn| !found.contains_key(lsn)).collect();
    if let Some(lost) = missing.iter().find(|lsn| lsn.as_u64() < synced) {
        return Err(format!("{lost} is lost without an error, committed up to {synced}; {report}"));
    }
    for frame in log.frames.iter().filter(|frame| frame.lsn >= report.end.as_u64()) {
        if !log.is_intact(damaged, &frame.name, frame.offset, frame.bytes) {
            continue;
        }
        if report.cut.is_none() {
            return Err(format!(
                "the intact frame at {} was cut without a report; {report}",
                frame.lsn
            ));
        }
        let bytes =
            &log.image.bytes(&frame.name).unwrap()[frame.offset..frame.offset + frame.bytes];
        let kept = after.names().iter().any(|name| {
            after.bytes(name).unwrap().windows(bytes.len()).step_by(8).any(|window| window == bytes)
        });
        if !kept {
            return Err(format!("the bytes of the frame at {} are lost; {report}", frame.lsn));
        }
    }
    Ok(())
}

/// Runs `check` for many damages and collects the violations.
#[derive(Default)]
pub(crate) struct Damages {
    pub(crate) count: u64,
    pub(crate) cut_count: u64,
    pub(crate) cuts_all: bool,
    pub(crate) broken: Vec<String>,
}

impl Damages {
    pub(crate) fn check(&mut self, log: &Log, what: impl Fn() -> String, damaged: &Image) {
        self.count += 1;
        // Only some damages are also opened with the cutting policy, because that takes three
        // opens.
        if self.cuts_all || cuts_all() || self.count % CUT_ONE_IN == 0 {
            self.cut_count += 1;
            if let Err(why) = cutting::check(log, damaged) {
                self.broken.push(format!("{}: {}: cutting: {why}", log.name, what()));
            }
        }
        if let Err(why) = check(log, damaged) {
            self.broken.push(format!("{}: {}: {why}", log.name, what()));
        }
    }

    pub(crate) fn assert_none_broken(self, floor: u64) {
        println!("{} damages, {} of them cut", self.count, self.cut_count);
        let some: Vec<_> = self.broken.iter().take(12).cloned().collect();
        let broken = self.broken.len();
        assert!(broken == 0, "{broken} of {} damages:\n{}", self.count, some.join("\n"));
        assert!(self.count >= floor, "too few damages: {}", self.count);
    }
}
