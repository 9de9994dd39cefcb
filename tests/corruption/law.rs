//! The law that every damage has to meet.

use std::collections::BTreeMap;

use futures::StreamExt;
use highwater::{
    Error, Lsn, RecoveryReport,
    simulation::{Disk, Image},
};

use super::{
    cutting,
    log::{Log, block_on, open},
};

/// A prime, so that it meets no period of the damages.
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

/// The law: all that the surviving commitments cover is there, or there is an error; what was cut
/// above them is reported, and its bytes are still somewhere.
pub(crate) fn check(log: &Log, damaged: &Image) -> Result<(), String> {
    let synced = log.surviving_commitment(damaged);
    let (found, error, report, after) = match outcome(damaged) {
        Outcome::Refused(error) if is_honest(&error) => return Ok(()),
        Outcome::Refused(error) => return Err(format!("refused with {error}")),
        Outcome::Opened { found, error, report, after } => (found, error, report, after),
    };
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
        return Err(format!("{lost} is lost in silence, committed up to {synced}; {report}"));
    }
    for frame in log.frames.iter().filter(|frame| frame.lsn >= report.end.as_u64()) {
        if !log.is_intact(damaged, &frame.name, frame.offset, frame.bytes) {
            continue;
        }
        if report.cut.is_none() {
            return Err(format!("the intact frame at {} was cut unsaid; {report}", frame.lsn));
        }
        let bytes =
            &log.image.bytes(&frame.name).unwrap()[frame.offset..frame.offset + frame.bytes];
        let kept = after.names().iter().any(|name| {
            after.bytes(name).unwrap().windows(bytes.len()).step_by(8).any(|window| window == bytes)
        });
        if !kept {
            return Err(format!("the bytes of the frame at {} are gone; {report}", frame.lsn));
        }
    }
    Ok(())
}

/// Runs `check` on many damages and reports a few of those that break the law.
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
        // What opens with a cut of its own, one in so many: it costs three openings.
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

    pub(crate) fn assert_none_broken(self) {
        println!("{} damages, {} of them cut", self.count, self.cut_count);
        let some: Vec<_> = self.broken.iter().take(12).cloned().collect();
        let broken = self.broken.len();
        assert!(broken == 0, "{broken} of {} damages:\n{}", self.count, some.join("\n"));
        assert!(self.count > 0);
    }
}

pub(crate) fn edited(image: &Image, name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Image {
    let mut bytes = image.bytes(name).unwrap().to_vec();
    edit(&mut bytes);
    let mut image = image.clone();
    image.put(name, bytes);
    image
}
