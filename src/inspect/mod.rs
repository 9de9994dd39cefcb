//! What stands in a log: its segments, their frames, and what opening would say.
//!
//! Nothing here changes a byte or takes the log's lock, so a log can be looked at while somebody
//! writes to it, by whoever may read its files. The verdict is that of the judge that opening asks.
//! All calls block; on a runtime make them from `spawn_blocking`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
//! use highwater::{Wal, inspect::{self, Verdict}};
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("log");
//! let wal = Wal::open(&path).await?;
//! wal.append(b"look at me").await?;
//! wal.close().await?;
//!
//! let found = inspect::directory(&path)?;
//! assert_eq!(found.verdict, Verdict::Closed);
//! let contents = found.segments[0].contents.unwrap();
//! assert_eq!((contents.record_count, contents.control_count), (1, 1));
//!
//! let snapshot = inspect::Snapshot::of_directory(&path)?;
//! let segment = &snapshot.outline().segments[0];
//! for frame in snapshot.frames(segment)? {
//!     let frame = frame?;
//!     println!("{} {:?}: {:?}", frame.lsn, frame.kind, frame.payload);
//! }
//! # Ok(()) }
//! ```

mod found;
mod frames;
mod frozen;
mod outline;

use std::{path::Path, sync::Arc, time::Duration};

pub use found::{
    CompressedRecords, Contents, Header, HeaderState, Inspection, KeptCut, Link, LogId, Problem,
    ProblemKind, Role, Segment, Verdict,
};
pub use frames::{Compressed, Frame, FrameKind, FrameState, Frames};
pub(crate) use frozen::Frozen;

use crate::{
    error::{Error, Result},
    format::scan::Stop,
    inspect::{
        frames::Counted,
        outline::{RECORD_BYTES_MAX, outline, reader},
    },
    lsn::Lsn,
    options::{Config, OnDamage},
    recovery::{RecoveryReport, look},
    replay::damage,
    storage::{ReadOnlyDirectory, Storage},
    turn::pause,
};

/// What looks torn while somebody writes may be a write on its way: worth another look, so often.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(3);

/// Reads all of the log in `directory`, and judges it.
///
/// # Errors
///
/// [`Error::Io`] if the directory can't be read, [`Error::NotALog`] if it holds other files and no
/// segment. Whatever else is wrong is in the answer.
pub fn directory(directory: impl AsRef<Path>) -> Result<Inspection> {
    Ok(Snapshot::of_directory(directory)?.read_all(&mut |_| {}))
}

/// Reads all of the log in `storage`, and judges it.
///
/// # Errors
///
/// As [`directory`].
pub fn storage(storage: impl Storage) -> Result<Inspection> {
    Ok(Snapshot::of_storage(storage)?.read_all(&mut |_| {}))
}

/// A log as it stood at one moment: what a writer appends later isn't seen.
///
/// Taking one reads the headers and the unsynced end, as opening does; the rest is read when asked
/// for.
#[derive(Debug)]
pub struct Snapshot {
    frozen: Frozen,
    outline: Inspection,
}

impl Snapshot {
    /// Looks at the log in a directory.
    ///
    /// # Errors
    ///
    /// As [`directory`].
    pub fn of_directory(directory: impl AsRef<Path>) -> Result<Self> {
        let path = directory.as_ref();
        let opened = ReadOnlyDirectory::open(path).map_err(|error| {
            Error::io("opening directory", path.display().to_string(), None, error)
        })?;
        let opened = Arc::new(opened);
        let mut look = 0;
        loop {
            look += 1;
            let storage: Arc<dyn Storage> = Arc::<ReadOnlyDirectory>::clone(&opened);
            let mut snapshot = Self::of(storage)?;
            let verdict = &snapshot.outline.verdict;
            let is_settled = !matches!(verdict, Verdict::TornTail(_) | Verdict::Refused(_));
            snapshot.outline.owner_pid = opened.owner_pid();
            if is_settled || snapshot.outline.owner_pid.is_none() || look == LOOKS {
                return Ok(snapshot);
            }
            pause(PAUSE);
        }
    }

    /// Looks at the log in any storage.
    ///
    /// # Errors
    ///
    /// As [`directory`].
    pub fn of_storage(storage: impl Storage) -> Result<Self> {
        Self::of(Arc::new(storage))
    }

    fn of(storage: Arc<dyn Storage>) -> Result<Self> {
        let frozen = Frozen::new(storage)?;
        let outline = outline(&frozen)?;
        Ok(Snapshot { frozen, outline })
    }

    /// All that is known without reading the log: nothing was counted, and damage below what is
    /// synced wasn't looked for.
    #[must_use]
    pub fn outline(&self) -> &Inspection {
        &self.outline
    }

    /// What opening with [`OnDamage::TruncateAtDamage`] would find and do: the plan of a repair.
    /// Reads all of the log, and changes nothing. Nothing durable would be cut unless `cut` has a
    /// `durable`.
    ///
    /// # Errors
    ///
    /// What opening would refuse with none the less: [`Error::Io`], [`Error::UnsupportedVersion`],
    /// [`Error::UnsupportedFrame`].
    pub fn plan_repair(&self) -> Result<RecoveryReport> {
        let on_damage = OnDamage::TruncateAtDamage;
        let config = Config { record_bytes_max: RECORD_BYTES_MAX, on_damage, ..Config::default() };
        Ok(look(&self.frozen, &config)?.report)
    }

    /// How many bytes [`read_all`](Snapshot::read_all) has to read, about.
    #[must_use]
    pub fn bytes_to_read(&self) -> u64 {
        let readable = self.outline.segments.iter().filter(|segment| segment.header.is_some());
        readable.map(|segment| segment.used_bytes).sum()
    }

    /// The frames of one of the segments in [`outline`](Snapshot::outline).
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if its header doesn't hold: then nothing in it can be checked.
    /// [`Error::Io`].
    pub fn frames(&self, segment: &Segment) -> Result<Frames> {
        match reader(&self.frozen, segment)? {
            Some(reader) => Ok(Frames::new(reader)),
            None => Err(Error::Corrupt {
                lsn: segment.end.unwrap_or_default(),
                segment: segment.name.clone(),
                offset: 0,
                synced: self.outline.committed.unwrap_or_default(),
                reason: "there is no header to check its frames by".to_owned(),
            }),
        }
    }

    /// Reads everything: counts what each segment holds, and finds damage that opening doesn't look
    /// for. `progress` is told how many bytes each step took.
    #[must_use]
    pub fn read_all(&self, progress: &mut dyn FnMut(u64)) -> Inspection {
        let mut inspection = self.outline.clone();
        let mut damage = Vec::new();
        for segment in &mut inspection.segments {
            let walked = match reader(&self.frozen, segment) {
                Ok(Some(reader)) => frames::count(&reader, progress).map(|found| (reader, found)),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match walked {
                Ok((reader, Counted { contents, stop, withheld })) => {
                    segment.contents = Some(contents);
                    let synced = self.outline.committed.unwrap_or_default();
                    if let Some((lsn, why)) = withheld.filter(|_| segment.role == Role::Log) {
                        damage.push(self::damage(&reader, lsn, why, synced));
                    }
                    let lsn = contents.end;
                    if segment.role == Role::Log && self.is_too_early(segment, lsn, stop) {
                        // The file ends, and its part of the log doesn't.
                        let stop =
                            if stop == Stop::SegmentEnd { Stop::PartialHeader } else { stop };
                        // Truncated meanwhile, it may be in use again: then it is gone by its name.
                        let gone = self::reader(&self.frozen, segment).err();
                        let damaged = || self::damage(&reader, lsn, stop, synced);
                        damage.push(gone.unwrap_or_else(damaged));
                    }
                }
                Err(error) => damage.push(error),
            }
        }
        inspection.damage = damage.iter().map(Problem::from).collect();
        if let Verdict::Refused(problem) = &inspection.verdict {
            inspection
                .damage
                .retain(|damage| (damage.lsn, &damage.segment) != (problem.lsn, &problem.segment));
        }
        inspection
    }

    /// Whether a reader of the log would have gone on past `lsn`, where a walk over a segment
    /// stopped.
    fn is_too_early(&self, segment: &Segment, lsn: Lsn, stop: Stop) -> bool {
        let followed = self.outline.segments.iter().any(|other| {
            other.role == Role::Log && other.header.map(|header| header.base) == segment.end
        });
        let base = segment.header.map_or(Lsn::ZERO, |header| header.base);
        match (self.outline.end, segment.end.filter(|_| followed)) {
            (Some(end), _) if base >= end => false,
            (Some(end), Some(successor)) => lsn < end.min(successor),
            (Some(end), None) => lsn < end,
            (None, Some(successor)) => lsn < successor,
            (None, None) => matches!(stop, Stop::Unsupported { .. }),
        }
    }
}
